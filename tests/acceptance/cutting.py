"""A proxy that cuts event streams in the middle: after so many bytes or so much time, by a seed."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK_BYTES = 2**16
# A browser waits 3 s before it comes back, unless the stream says otherwise.
_RETRY = b"retry: 20\n\n"
_BYTES = (1, 3000)
_SECONDS = (0.0, 0.25)


class Cutter:
    """Passes everything on to a server on this machine and cuts ``cuts`` of its event streams; `done` is set then.

    Half of the cuts are resets, half are closed connections; most fall into the middle of an event.
    """

    def __init__(self, port: int, *, cuts: int, seed: int) -> None:
        self.cuts = 0
        self.done = threading.Event()
        self.url = ""
        self._port = port
        self._wanted = cuts
        self._random = random.Random(seed)
        self._serving: set[asyncio.Task[None]] = set()

    async def run(self, started: threading.Event, stop: asyncio.Event) -> None:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await stop.wait()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        streams = asyncio.Event()
        passing = [
            asyncio.create_task(_pass_requests(reader, server_writer, streams)),
            asyncio.create_task(self._answer(server_reader, writer, streams)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            for each in (writer, server_writer):
                each.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, streams: asyncio.Event) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if streams.is_set():
                await self._stream(data, reader, writer)
                return
            writer.write(data)
            await writer.drain()

    async def _stream(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"\r\n\r\n" not in data:
            data += await reader.readexactly(1)
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower(), "an event stream has no known length"
        writer.write(head + b"\r\n\r\n" + b"%x\r\n%b\r\n" % (len(_RETRY), _RETRY))
        left = self._random.randint(*_BYTES)
        deadline = asyncio.get_running_loop().time() + self._random.uniform(*_SECONDS)
        resets = self._random.random() < 0.5
        while self.cuts < self._wanted:
            writer.write(body[:left])
            await writer.drain()
            left -= len(body)
            if left <= 0:
                break
            try:
                async with asyncio.timeout_at(deadline):
                    body = await reader.read(_CHUNK_BYTES)
            except TimeoutError:
                break
            if not body:
                return
        else:
            writer.write(body)
            while body := await reader.read(_CHUNK_BYTES):
                writer.write(body)
                await writer.drain()
            return
        self.cuts += 1
        if self.cuts == self._wanted:
            self.done.set()
        if resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def _pass_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, streams: asyncio.Event) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        line = data.partition(b"\r\n")[0].split(b" ")
        if line[0] == b"GET" and line[1].partition(b"?")[0].endswith(b"/events"):
            streams.set()
        writer.write(data)
        await writer.drain()


@contextmanager
def cutting(port: int, *, cuts: int, seed: int) -> Iterator[Cutter]:
    """A cutter before the server on that port, in a thread of its own."""
    cutter = Cutter(port, cuts=cuts, seed=seed)
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(cutter.run(started, stop),), daemon=True)
    thread.start()
    assert started.wait(10), "the proxy did not start"
    try:
        yield cutter
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
