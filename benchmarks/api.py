"""Does the server stay quick and small under load, while jobs tune beside it?

    python benchmarks/api.py [--seconds 60] [--streams 200] [--rate 50] [--uploads 20] [--upload-mb 200] [--jobs 4]

A server on an empty data directory, over loopback, everything on the same cores: four jobs of the shipped example run
(they take turns at measuring), 200 clients follow their events, 50 requests a second read (lists, jobs, trials, pages
of the dashboard), and 20 clients upload 200 MB each at once. Then, alone, one upload of 1.9 GB.

* ``read_p50_ms``, ``read_p99_ms``: of the reads, from the moment when one was due to its last byte;
* ``server_errors``, ``failed``: answers of 5xx, and requests without an answer;
* ``memory_growth_mib``: the largest resident set of the server's process over the load − the one before it;
* ``large_upload_mib``: the same over the one large upload.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx2
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command_line import environment  # noqa: E402
from benchmarks.rows import provenance  # noqa: E402

_MODEL = ROOT / "examples" / "digits_cnn.onnx"
_PORT = 8793
_CHUNK_BYTES = 1024 * 1024
_MIB = 1024**2
_MEMORY_EVERY_S = 0.1
_TRIALS = 100_000


@dataclass
class Load:
    """What came of the requests of one run."""

    read_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    failed: int = 0
    events: int = 0

    def add(self, other: Load) -> None:
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.failed += other.failed
        self.events += other.events

    def answered(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


@contextlib.contextmanager
def serving(data_dir: Path, *, jobs: int) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "service", "serve", "--port", str(_PORT), "--max-parallel-jobs", str(jobs)]
    log = data_dir.parent / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=environment(data_dir), stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while b"ready" not in log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(30)


@contextlib.asynccontextmanager
async def largest_mib(server: psutil.Process) -> AsyncIterator[list[float]]:
    """The largest resident set of the server's process while the block runs, minus the one at its start."""
    before = server.memory_info().rss
    answer = [0.0]

    async def look() -> None:
        while True:
            answer[0] = max(answer[0], (server.memory_info().rss - before) / _MIB)
            await asyncio.sleep(_MEMORY_EVERY_S)

    task = asyncio.create_task(look())
    try:
        yield answer
    finally:
        task.cancel()


async def start_jobs(http: httpx2.AsyncClient, count: int) -> list[str]:
    sent = await http.post("/api/v1/models", params={"filename": _MODEL.name}, content=_MODEL.read_bytes())
    sent.raise_for_status()
    jobs = []
    for seed in range(count):
        body = {"model_id": sent.json()["id"], "trials": _TRIALS, "seed": seed}
        answer = await http.post("/api/v1/jobs", json=body)
        answer.raise_for_status()
        jobs.append(answer.json()["id"])
    while True:
        running = (await http.get("/api/v1/jobs", params={"state": "running"})).json()["items"]
        if len(running) == count and all(job["progress"]["trials_done"] for job in running):
            return jobs
        await asyncio.sleep(0.5)


async def follow(http: httpx2.AsyncClient, job_id: str, load: Load) -> None:
    """One client of the job's events; it comes back where the stream breaks."""
    last = "0"
    while True:
        try:
            headers = {"Last-Event-ID": last}
            async with http.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers, timeout=None) as answer:
                load.answered(answer.status_code)
                async for line in answer.aiter_lines():
                    if line.startswith("id:"):
                        last = line[3:].strip()
                        load.events += 1
        except httpx2.HTTPError:
            load.failed += 1
            await asyncio.sleep(0.5)


async def read(http: httpx2.AsyncClient, path: str, load: Load) -> None:
    due = time.perf_counter()
    try:
        answer = await http.get(path)
    except httpx2.HTTPError:
        load.failed += 1
        return
    load.answered(answer.status_code)
    load.read_ms.append((time.perf_counter() - due) * 1e3)


async def read_at_rate(http: httpx2.AsyncClient, jobs: list[str], *, rate: float, seconds: float, load: Load) -> None:
    """Requests at a fixed rate, whether or not the ones before were answered."""
    rng = random.Random(1)
    paths = ["/api/v1/jobs", "/api/v1/models", "/api/v1/targets", "/healthz", "/", "/models"]
    paths += [f"/api/v1/jobs/{job}{below}" for job in jobs for below in ("", "/tasks", "/trials")]
    paths += [f"/jobs/{job}" for job in jobs]
    started = time.perf_counter()
    requests = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        requests.append(asyncio.create_task(read(http, rng.choice(paths), load)))
    await asyncio.gather(*requests)


async def upload(http: httpx2.AsyncClient, size_bytes: int, seed: int, load: Load) -> None:
    """Random bytes in an ONNX file's shape: a model whose one weight is of that size."""

    async def content() -> AsyncIterator[bytes]:
        yield head
        block = random.Random(seed).randbytes(_CHUNK_BYTES)
        for start in range(0, size_bytes, _CHUNK_BYTES):
            yield block[: min(_CHUNK_BYTES, size_bytes - start)]

    head = _onnx_head(size_bytes)
    try:
        answer = await http.post(
            "/api/v1/models", params={"filename": f"large-{seed}.onnx"}, content=content(), timeout=600
        )
    except httpx2.HTTPError:
        load.failed += 1
        return
    load.answered(answer.status_code)
    if answer.status_code >= 400:
        print(answer.text[:300], file=sys.stderr)


def _onnx_head(size_bytes: int) -> bytes:
    """The bytes of a ModelProto up to the raw data of its only initializer, of which ``size_bytes`` (whole floats)
    follow."""
    import onnx

    def tag(number: int, length: int) -> bytes:
        return _varint(number << 3 | 2) + _varint(length)

    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[size_bytes // 4]).SerializeToString()
    raw = tag(9, size_bytes)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [size_bytes // 4])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [size_bytes // 4])
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.GraphProto(name="large", node=[node], input=[value], output=[result]).SerializeToString()
    tensor_bytes = len(tensor) + len(raw) + size_bytes
    initializer = tag(5, tensor_bytes)
    model = onnx.ModelProto(ir_version=8, opset_import=[onnx.helper.make_opsetid("", 17)]).SerializeToString()
    return model + tag(7, len(graph) + len(initializer) + tensor_bytes) + graph + initializer + tensor + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def client(token: str) -> httpx2.AsyncClient:
    limits, headers = httpx2.Limits(max_connections=None), {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{_PORT}"
    return httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30, trust_env=False)


async def follow_all(token: str, jobs: list[str], count: int, stop: Event) -> Load:
    load = Load()
    async with client(token) as http:
        streams = [asyncio.create_task(follow(http, jobs[number % len(jobs)], load)) for number in range(count)]
        while not stop.is_set():
            await asyncio.sleep(0.2)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    return load


async def upload_all(token: str, count: int, size_bytes: int) -> Load:
    load = Load()
    async with client(token) as http:
        await asyncio.gather(*(upload(http, size_bytes, seed, load) for seed in range(count)))
    return load


def beside(work: Coroutine[Any, Any, Load], loads: Queue[Load]) -> None:
    """Runs clients in a process of their own: what they take from each other is no answer's time."""
    loads.put(asyncio.run(work))


def follow_beside(token: str, jobs: list[str], count: int, stop: Event, loads: Queue[Load]) -> None:
    beside(follow_all(token, jobs, count, stop), loads)


def upload_beside(token: str, count: int, size_bytes: int, loads: Queue[Load]) -> None:
    beside(upload_all(token, count, size_bytes), loads)


async def run(arguments: argparse.Namespace, server: psutil.Process, token: str) -> dict[str, Any]:
    load = Load()
    context = multiprocessing.get_context("spawn")
    stop, loads = context.Event(), context.Queue()
    async with client(token) as http:
        jobs = await start_jobs(http, arguments.jobs)
        print(f"{len(jobs)} jobs run", file=sys.stderr, flush=True)
        async with largest_mib(server) as growth:
            followers = context.Process(target=follow_beside, args=(token, jobs, arguments.streams, stop, loads))
            followers.start()
            await asyncio.sleep(8)  # everybody has caught up
            size_bytes = arguments.upload_mb * 1_000_000 // 4 * 4
            uploaders = context.Process(target=upload_beside, args=(token, arguments.uploads, size_bytes, loads))
            uploaders.start()
            await read_at_rate(http, jobs, rate=arguments.rate, seconds=arguments.seconds, load=load)
            uploaded: Load = await asyncio.to_thread(loads.get)
            stop.set()
            followed: Load = await asyncio.to_thread(loads.get)
        for job in jobs:
            await http.post(f"/api/v1/jobs/{job}/cancel")
        await asyncio.sleep(5)
        async with largest_mib(server) as large:
            await upload(http, arguments.large_mb * 1_000_000 // 4 * 4, 999, load)
    for other in (uploaded, followed):
        load.add(other)
    print(load.statuses, file=sys.stderr)
    read_ms = sorted(load.read_ms)
    return {
        "reads": len(read_ms),
        "read_p50_ms": round(statistics.median(read_ms), 1),
        "read_p99_ms": round(read_ms[int(len(read_ms) * 0.99)], 1),
        "server_errors": sum(count for status, count in load.statuses.items() if status >= 500),
        "client_errors": sum(count for status, count in load.statuses.items() if 400 <= status < 500),
        "failed": load.failed,
        "events": load.events,
        "memory_growth_mib": round(growth[0], 1),
        "large_upload_mib": round(large[0], 1),
        **provenance(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of reads")
    parser.add_argument("--streams", type=int, default=200, help="clients that follow events")
    parser.add_argument("--rate", type=float, default=50, help="reads a second")
    parser.add_argument("--uploads", type=int, default=20, help="uploads at once")
    parser.add_argument("--upload-mb", type=int, default=200, help="megabytes of each of them")
    parser.add_argument("--large-mb", type=int, default=1900, help="megabytes of the one large upload")
    parser.add_argument("--jobs", type=int, default=4, help="jobs that tune meanwhile")
    arguments = parser.parse_args()
    os.environ.pop("TESSERA_URL", None)
    with tempfile.TemporaryDirectory(prefix="api-") as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        with serving(data_dir, jobs=arguments.jobs) as server:
            token = (data_dir / "token").read_text().strip()
            print(json.dumps(asyncio.run(run(arguments, server, token))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
