"""What is well and what is sick in an installation: the checks of ``tessera doctor``. Only `clean` changes anything."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version

import psutil
from sqlalchemy import and_, func, select

from service.access.scopes import AccessScope
from service.access.start_up import require_access
from service.access.tokens import list_tokens
from service.blobs import open_blobs
from service.database import Database
from service.database.base import now
from service.database.tables import Job, RecordCount, Workload
from service.database.upgrade import read_revisions
from service.disk_guard import shortage
from service.engine.processes import is_alive
from service.errors import Conflict, ServiceError, StorageFull
from service.jobs.states import ACTIVE_STATES, JobState
from service.ownership import is_owned, owner_url
from service.queries.projects import list_projects
from service.references import delete_unreferenced, missing, named, unreferenced
from service.settings import Settings
from service.signing import known_key
from tuner.disk_space import free_bytes
from tuner.errors import SandboxUnavailable, TesseraError
from tuner.sandbox.strength import strength
from tuner.targets import host_target, tvm_version

_ENOUGH_BYTES = 2 * 1024**3
_SHOWN = 3
# Longer than a heartbeat is late on a busy machine.
_HEARTBEATS = timedelta(seconds=60)
# A token that was given to somebody is tried within a week.
_SOON_USED = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: what was found, and what to do about it where it is not well."""

    name: str
    ok: bool = True
    detail: str
    hint: str = ""


def check_up(settings: Settings) -> Iterator[Check]:
    """All checks, the machine first, then what is kept. Reads only."""
    yield from _packages()
    yield Check(name="host", detail=host_target().description)
    yield _enough("free memory", psutil.virtual_memory().available, hint="Close other programs before a large job.")
    yield _disk(settings)
    yield _sandbox(settings)
    if settings.engine == "ray":
        yield _ray(settings)
    owned = is_owned(settings)
    yield Check(name="server", detail=(owner_url(settings) or "starting") if owned else "none")
    yield Check(name="data directory", detail=str(settings.data_dir))
    key = known_key(settings)
    yield Check(name="signing key", detail=key.text if key else "made with the first bundle")
    if not settings.data_dir.exists():
        yield Check(name="database", detail="made by the first start")
        return
    yield from _kept(settings, owned=owned)


def clean(settings: Settings) -> int:
    """Delete the blobs that no row names; how many.

    Raises `Conflict` (``database_empty``) where the database names no blob at all: it is hardly the one of these blobs.
    """
    database = Database(settings.sqlalchemy_url)
    try:
        if not read_revisions(database).at_head or not named(database):
            raise Conflict(
                "The database names no blobs, so all of them would be deleted.",
                code="database_empty",
                hint="Choose the right one: --data-dir, TESSERA_DATABASE_URL. An old one needs: tessera db upgrade",
            )
        blobs = open_blobs(settings)
        return delete_unreferenced(database, blobs, [blob.sha256 for blob in unreferenced(database, blobs)])
    finally:
        database.close()


def _packages() -> Iterator[Check]:
    yield Check(name="python", detail=platform.python_version())
    ranker = "xgboost-cpu" if sys.platform == "linux" else "xgboost"
    for package in ("apache-tvm", "onnx", "onnxruntime", ranker, "ziglang"):
        try:
            yield Check(name=package, detail=version(package))
        except PackageNotFoundError:
            hint = "Install it with: pip install 'tessera[server]'"
            yield Check(name=package, ok=False, detail="not installed", hint=hint)


def _enough(name: str, size_bytes: int, *, hint: str) -> Check:
    ok = size_bytes >= _ENOUGH_BYTES
    return Check(name=name, ok=ok, detail=f"{size_bytes / 1024**3:.1f} GiB", hint="" if ok else hint)


def _disk(settings: Settings) -> Check:
    if (short := shortage(settings)) is not None:
        detail = f"{short}: no job starts, and uploads are refused"
        return Check(name="free disk", ok=False, detail=detail, hint=StorageFull.hint)
    return _enough("free disk", free_bytes(settings.data_dir), hint="See what a server keeps on its page Settings.")


def _sandbox(settings: Settings) -> Check:
    found = strength()
    ok = settings.sandbox == "auto" or (settings.sandbox == "required" and found.is_enough)
    hint = "" if ok and found.is_enough else SandboxUnavailable.hint
    return Check(name="sandbox", ok=ok, detail=found.describe(settings.sandbox), hint=hint)


def _ray(settings: Settings) -> Check:
    from service.engine.ray_cluster import Unreachable, look_at_cluster

    try:
        return Check(name="Ray", detail=f"{settings.ray_address}: {look_at_cluster(settings)}")
    except Unreachable as error:
        hint = "Start its head: ray start --head. Jobs wait for it. RAY_AUTH_TOKEN has to be the cluster's."
        return Check(name="Ray", ok=False, detail=f"{settings.ray_address}: {error}", hint=hint)
    except TesseraError as error:
        return Check(name="Ray", ok=False, detail=error.message, hint=error.hint)


def _kept(settings: Settings, *, owned: bool) -> Iterator[Check]:
    try:
        database = Database(settings.sqlalchemy_url)
        revisions = read_revisions(database)
    except TesseraError as error:
        yield Check(name="database", ok=False, detail=error.message, hint=error.hint)
        return
    try:
        if revisions.current is None:
            yield Check(name="database", detail="empty: the first start fills it")
        elif not revisions.at_head:
            detail = f"revision {revisions.current}; the newest is {revisions.head}"
            yield Check(name="database", ok=False, detail=detail, hint="Upgrade it with: tessera db upgrade")
        else:
            yield Check(name="database", detail=f"{database.describe()}, revision {revisions.current}")
            yield from _blobs(database, settings)
            yield from _projects(database)
            yield _jobs(database, owned=owned)
            yield _records(database)
            yield _access(settings, database)
    finally:
        database.close()


def _blobs(database: Database, settings: Settings) -> Iterator[Check]:
    try:
        blobs = open_blobs(settings)
        lost, left = missing(database, blobs), unreferenced(database, blobs)
    except TesseraError as error:
        yield Check(name="blobs", ok=False, detail=error.message, hint=error.hint)
        return
    if lost:
        shown = ", ".join(sha256[:12] for sha256 in lost[:_SHOWN])
        hint = "Bring them back from a backup of the blobs; without them their models and bundles are lost."
        yield Check(name="blobs", ok=False, detail=f"{len(lost)} are missing: {shown}", hint=hint)
    else:
        yield Check(name="blobs", detail=f"all there, in {blobs.describe()}")
    if left:
        size_mib = sum(blob.size_bytes for blob in left) / 1024**2
        detail = f"{len(left)} blobs of {size_mib:.1f} MiB that nothing names"
        yield Check(name="left over", detail=detail, hint="Delete them with: tessera doctor --clean")


def _projects(database: Database) -> Iterator[Check]:
    """Where there is more than one."""
    names = list_projects(database)
    if len(names) > 1:
        yield Check(name="projects", detail=", ".join(names))


def _jobs(database: Database, *, owned: bool) -> Check:
    running = select(Job.pid, Job.pid_started_at, Job.heartbeat_at)
    with database.read() as session:
        active = session.execute(running.where(Job.state.in_([state.value for state in ACTIVE_STATES]))).all()
        queued = session.scalar(select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED.value)) or 0
    alive = sum(_lives(*row) for row in active)
    detail = f"{alive} running, {len(active) - alive} interrupted, {queued} queued"
    if not owned and (queued or len(active) > alive):
        return Check(name="jobs", detail=detail, hint="They go on when a server runs: tessera serve")
    return Check(name="jobs", detail=detail)


def _lives(pid: int | None, started_at: float | None, heartbeat_at: datetime | None) -> bool:
    """A process of this machine is looked at; one of another says that it lives."""
    if pid is not None and started_at is not None:
        return is_alive(pid, started_at)
    return heartbeat_at is not None and now() - heartbeat_at < _HEARTBEATS


def _records(database: Database) -> Check:
    current = tvm_version()
    records = func.sum(RecordCount.measured + RecordCount.failed)
    same = and_(RecordCount.project == Workload.project, RecordCount.workload == Workload.key)
    query = select(Workload.tvm_version, records).join(RecordCount, same)
    with database.read() as session:
        counts = {row[0]: row[1] for row in session.execute(query.group_by(Workload.tvm_version))}
    usable = counts.pop(current, 0)
    detail = f"{usable} of TVM {current}"
    if not counts:
        return Check(name="records", detail=detail)
    others = ", ".join(f"{count} of TVM {other}" for other, count in sorted(counts.items()))
    hint = (
        "Those of another TVM are kept, and never replayed: its schedules may mean something else now. "
        "Tune again what matters: tessera tune MODEL"
    )
    return Check(name="records", detail=f"{detail}; {others}", hint=hint)


def _access(settings: Settings, database: Database) -> Check:
    """Who can do something here: tokens of others, and those among them that nobody seems to need."""
    try:
        require_access(settings, database)
    except ServiceError as error:
        return Check(name="access", ok=False, detail=error.message, hint=error.hint)
    moment = now()
    given = [token for token in list_tokens(database) if token.kind != "local" and token.revoked_at is None]
    live = [token for token in given if token.expires_at is None or token.expires_at > moment]
    unused = [token for token in live if token.last_used_at is None]
    scopes = Counter(token.scope for token in live)
    told = ", ".join(f"{scopes[scope]} {scope.value}" for scope in AccessScope if scopes[scope])
    plural = "" if len(live) == 1 else "s"
    parts = [f"{len(live)} token{plural} beside this machine's: {told}" if live else "this machine's token only"]
    parts += [f"{len(unused)} never used"] if unused else []
    parts += [f"{len(given) - len(live)} expired"] if len(given) > len(live) else []
    forgotten = [token.name for token in unused if moment - token.created_at > _SOON_USED]
    hint = f"Nobody has used {', '.join(forgotten[:_SHOWN])}: tessera token revoke NAME" if forgotten else ""
    return Check(name="access", detail="; ".join(parts), hint=hint)
