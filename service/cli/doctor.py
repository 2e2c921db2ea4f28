"""``tessera doctor``."""

from __future__ import annotations

import typer

from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, load_settings, print_json, print_table
from service.cli.values import show_bytes

_ENOUGH_BYTES = 2 * 1024**3


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Look at what a server here would need. Exit status 1: something is missing."""
    require_server("tessera doctor")
    import platform
    import shutil
    import sys
    from importlib.metadata import PackageNotFoundError, version

    import psutil

    from service.ownership import is_owned, owner_url
    from service.signing import known_key
    from tuner.targets import host_target

    settings = load_settings(data_dir)
    found: list[tuple[str, bool, str]] = [("python", True, platform.python_version())]
    ranker = "xgboost-cpu" if sys.platform == "linux" else "xgboost"
    for package in ("apache-tvm", "onnx", "onnxruntime", ranker, "ziglang"):
        try:
            found.append((package, True, version(package)))
        except PackageNotFoundError:
            found.append((package, False, "not installed"))
    found.append(("host", True, host_target().description))
    memory = psutil.virtual_memory().available
    found.append(("free memory", memory >= _ENOUGH_BYTES, show_bytes(memory)))
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free
    found.append(("free disk", disk >= _ENOUGH_BYTES, show_bytes(disk)))
    owner = owner_url(settings) or "starting" if is_owned(settings) else "none"
    found.append(("server", True, owner))
    found.append(("data directory", True, str(settings.data_dir)))
    key = known_key(settings)
    found.append(("signing key", True, key.text if key else "made with the first bundle"))
    fine = all(ok for _, ok, _ in found)
    if as_json:
        print_json({"ok": fine, "checks": [{"name": name, "ok": ok, "detail": told} for name, ok, told in found]})
    else:
        print_table(["what", "", "found"], [[name, "ok" if ok else "LOW", told] for name, ok, told in found], empty="")
    if not fine:
        raise typer.Exit(1)
