"""What a job leaves to be downloaded: files in the blob store, and their rows."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import delete

from service.blobs import BlobStore
from service.database import ProjectDatabase
from service.database.tables import Artifact
from service.ids import new_id
from service.jobs import queue

_COPY_BYTES = 1024**2
# Members of the bundle that are worth a download of their own, with the kind of artifact that they become.
_MEMBERS = {"manifest.json": "manifest", "records.json": "records"}


@dataclass(frozen=True)
class Shelf:
    """Where an attempt puts what it made: each blob first, then its row."""

    database: ProjectDatabase
    blobs: BlobStore
    job_id: str
    attempt: int

    def add(self, chunks: Iterable[bytes], *, kind: str, filename: str, content_type: str) -> None:
        """Raises `queue.Superseded` when the job is another attempt's by now: its artifacts are not to be replaced."""
        with self.blobs.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
            writer.store()
            with self.database.write() as session:
                queue.require_newest(session, self.job_id, attempt=self.attempt)
                blob = writer.keep()
                # An attempt that died between here and the final state has done this before.
                session.execute(delete(Artifact).where(Artifact.job_id == self.job_id, Artifact.filename == filename))
                session.add(
                    Artifact(
                        id=new_id(),
                        job_id=self.job_id,
                        kind=kind,
                        filename=filename,
                        content_type=content_type,
                        size_bytes=blob.size_bytes,
                        sha256=blob.sha256,
                    )
                )


def store_artifacts(shelf: Shelf, bundle: Path, signature: Path) -> None:
    """Store the bundle, its signature, and the members that people look at, as artifacts."""
    for path, kind, content_type in (
        (bundle, "bundle", "application/gzip"),
        (signature, "signature", "application/json"),
    ):
        with path.open("rb") as source:
            shelf.add(_chunks(source), kind=kind, filename=path.name, content_type=content_type)
    with tarfile.open(bundle, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            content = archive.extractfile(member) if name in _MEMBERS else None
            if content is not None:
                shelf.add(_chunks(content), kind=_MEMBERS[name], filename=name, content_type="application/json")


def store_schedules(shelf: Shelf, schedules: list[dict[str, Any]]) -> None:
    """Store what pages show of the schedules, where there is something: they have no TVM to make it."""
    if schedules:
        content = json.dumps({"tasks": schedules}, ensure_ascii=False, separators=(",", ":")).encode()
        shelf.add([content], kind="schedules", filename="schedules.json", content_type="application/json")


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_COPY_BYTES):
        yield chunk
