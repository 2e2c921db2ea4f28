"""The nine real architectures of the ``onnx`` package through the whole path; writes the table of docs/models.md.

    python benchmarks/light_models.py [--trials 32] [--models squeezenet,resnet50] [--write docs/models.md]

For every model, through the command line as a user would:

1. ``tessera check``, then ``tessera tune --trials N``: the row's figures, from the bundle's manifest.
2. The same architecture with seeded random weights (the shipped ones are constants, which hide mistakes), built from
   the records of step 1 with ``--measure none`` and verified against ONNX Runtime.
3. ``tessera verify`` on both bundles.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command_line import TuningFailed, tessera, tune
from benchmarks.networks import light_model

MODELS = (
    "squeezenet",
    "shufflenet",
    "bvlc_alexnet",
    "zfnet512",
    "inception_v1",
    "inception_v2",
    "densenet121",
    "resnet50",
    "vgg19",
)


def run_model(name: str, trials: int, workspace: Path) -> dict[str, Any]:
    """One row; ``error`` is set, with what the preflight named, where the model cannot be tuned."""
    light = light_model(name)
    data_dir = workspace / "data"
    row: dict[str, Any] = {"model": name}
    status, printed = tessera("check", str(light), "--json", data_dir=data_dir)
    if status:
        return row | {"error": printed.strip() or "check failed"}
    started = time.monotonic()
    try:
        tuned = tune(light, workspace / "light", data_dir, "--trials", str(trials))
    except TuningFailed as error:
        return row | {"error": str(error)}
    row["job_s"] = round(time.monotonic() - started, 1)
    manifest, bundle = tuned.manifest, tuned.bundle
    row |= {
        "tasks": manifest["search"]["tasks"],
        "tasks_tuned": manifest["search"]["tasks_tuned"],
        "outcome": manifest["outcome"],
        "untuned_us": manifest["baseline"]["median_us"],
        "tuned_us": manifest["latency"]["median_us"],
        "onnxruntime_us": manifest["onnxruntime"]["median_us"],
        "load_s": manifest["latency"]["load_s"],
        "bundle_bytes": bundle.stat().st_size,
        "max_rel_error": manifest["numerics"]["max_rel_error"],
        "verified": tessera("verify", str(bundle), data_dir=data_dir)[0] == 0,
    }
    bundle.unlink()
    return row | _random_weights(light, workspace, data_dir)


def _random_weights(light: Path, workspace: Path, data_dir: Path) -> dict[str, Any]:
    import onnx

    from benchmarks.random_weights import randomize_weights

    random = workspace / f"random_{light.name}"
    onnx.save(randomize_weights(onnx.load(light), seed=1), random)
    try:
        built = tune(random, workspace / "random", data_dir, "--measure", "none")
    except TuningFailed as error:
        return {"random_error": str(error)}
    finally:
        random.unlink()
    verified = tessera("verify", str(built.bundle), data_dir=data_dir)[0] == 0
    built.bundle.unlink()
    return {
        "random_shipped": built.manifest["shipped"],
        "random_max_rel_error": built.manifest["numerics"]["max_rel_error"],
        "random_verified": verified,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | tasks | tuned | untuned | tuned | ONNX Runtime | load | bundle | job | error, constant weights "
        "| error, random weights |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['model']} | {row['error']} | | | | | | | | | |")
            continue
        cells = [
            row["model"],
            str(row["tasks"]),
            str(row["tasks_tuned"]),
            _ms(row["untuned_us"]),
            _ms(row["tuned_us"]),
            _ms(row["onnxruntime_us"]),
            f"{row['load_s']:.2f} s",
            f"{row['bundle_bytes'] / 1e6:.1f} MB",
            f"{row['job_s']:.0f} s",
            f"{row['max_rel_error']:.1e}",
            f"{row['random_max_rel_error']:.1e}" if "random_max_rel_error" in row else str(row["random_error"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _ms(latency_us: float) -> str:
    milliseconds = latency_us / 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--write", type=Path, help="a page whose table (between the markers) is replaced")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory(prefix="models-") as workspace:
            rows.append(run_model(name, arguments.trials, Path(workspace)))
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    if arguments.write:
        page = arguments.write.read_text()
        before, _, rest = page.partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end of table -->")
        arguments.write.write_text(f"{before}<!-- table -->\n{table(rows)}<!-- end of table -->{after}")
    print(json.dumps({"rows": rows, "verified": sum(bool(row.get("random_verified")) for row in rows)}))
    passed = (row.get("verified") and row.get("random_verified") and row["random_shipped"] == "tuned" for row in rows)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
