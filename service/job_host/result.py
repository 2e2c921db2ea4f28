"""The bundle that a confined process left: looked at before it is signed and kept."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.database.tables import Job
from service.job_host.errors import ForgedResult
from tuner.bundle import BUNDLE_FORMAT, MEMBERS
from tuner.sandbox.files import UntrustedFile, opened

_MIB = 1024**2
_LARGEST_JSON_BYTES = 256 * _MIB
_CHUNK_BYTES = _MIB
# Above what is read at once: a header of an archive may name any size of itself.
_LARGEST_READ_BYTES = 4 * _MIB


class _Measured(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    median_us: float = Field(gt=0, lt=1e12)


class _Named(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(max_length=255)


class _Model(_Named):
    sha256: str


class _File(BaseModel):
    model_config = ConfigDict(extra="allow")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Manifest(BaseModel):
    """What of a manifest is looked at."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    format: int = Field(ge=BUNDLE_FORMAT, le=BUNDLE_FORMAT)
    model: _Model
    target: _Named
    outcome: str
    seed: int
    latency: _Measured | None = None
    baseline: _Measured | None = None
    onnxruntime: _Measured | None = None
    files: dict[str, _File]


def require_bundle(folder: Path, name: str, *, job: Job, outcome: str, most_bytes: int) -> Path:
    """The path of a bundle that is one: a plain file of that name in the folder, with the members that bundles have,
    each with the SHA-256 that the manifest gives, and a manifest of this job. Raises `ForgedResult`."""
    try:
        with opened(folder, name, most_bytes=most_bytes) as file, gzip.open(file) as unpacked:
            _require_members(_Bounded(unpacked, most_bytes), job, outcome)
    except (UntrustedFile, tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise ForgedResult(f"The confined process left no bundle: {str(error)[:500]}") from error
    return folder / name


def _require_members(unpacked: _Bounded, job: Job, outcome: str) -> None:
    digests: dict[str, str] = {}
    texts: dict[str, Any] = {}
    with tarfile.open(fileobj=unpacked, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            if member.name not in MEMBERS or member.name in digests or not member.isreg() or member.issparse():
                raise UntrustedFile(f"it holds {member.name[:80]!r}")
            source = archive.extractfile(member)
            assert source is not None  # a plain file has content
            is_text = member.name in ("manifest.json", "records.json")
            if is_text and member.size > _LARGEST_JSON_BYTES:
                raise UntrustedFile(f"{member.name} has {member.size} bytes")
            digests[member.name], content = _digest(source, keep=is_text)
            if is_text:
                texts[member.name] = json.loads(content, parse_constant=_refuse)
    if not isinstance(texts.get("records.json"), dict):
        raise UntrustedFile("it has no records.json")
    try:
        manifest = _Manifest.model_validate(texts.get("manifest.json"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UntrustedFile(f"its manifest.json: {first['loc']}: {first['msg']}") from error
    _require_same("model", manifest.model.sha256, job.model_id)
    _require_same("target", manifest.target.name, job.target)
    _require_same("outcome", manifest.outcome, outcome)
    _require_same("seed", manifest.seed, job.seed)
    _require_digests(manifest.files, digests)


def _require_digests(files: Mapping[str, _File], found: Mapping[str, str]) -> None:
    if files.keys() != found.keys() - {"manifest.json"}:
        raise UntrustedFile("its manifest names other files than it has")
    for name, file in files.items():
        _require_same(f"SHA-256 of {name}", file.sha256, found[name])


def _require_same(what: str, said: object, known: object) -> None:
    if said != known:
        raise UntrustedFile(f"its {what} is {str(said)[:80]!r}, not {str(known)[:80]!r}")


def _digest(source: IO[bytes], *, keep: bool) -> tuple[str, bytes]:
    digest, kept = hashlib.sha256(), []
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        if keep:
            kept.append(chunk)
    return digest.hexdigest(), b"".join(kept)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


class _Bounded:
    """A file that is read in pieces, and to a position at most: what an archive says of its sizes is not trusted."""

    def __init__(self, file: gzip.GzipFile, most_bytes: int) -> None:
        self._file = file
        self._most_bytes = 4 * most_bytes  # unpacked

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_READ_BYTES:
            raise UntrustedFile(f"it wants {size} bytes to be read at once")
        self._require(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence != 0:
            raise UntrustedFile("it wants to be read from its end")
        self._require(offset)
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def _require(self, position: int) -> None:
        if position > self._most_bytes:
            raise UntrustedFile(f"it has more than {self._most_bytes} bytes unpacked")
