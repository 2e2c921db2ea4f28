"""Reading targets and devices: those of this machine, and those that were added."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database import ProjectDatabase
from service.database.tables import Job, Target
from service.errors import NotFound
from service.fleet import FleetView
from service.jobs.states import ACTIVE_STATES, JobState
from service.schemas.targets import DeviceSchema, TargetSchema
from tuner.errors import BuildError, TargetError
from tuner.link import find_linker
from tuner.targets import TargetSpec, checked_on, host_target, list_targets


class Measurers(Protocol):
    """Whatever knows what can be measured now: a service, or a fleet."""

    def waiting_for(self, spec: TargetSpec) -> str | None: ...


def all_targets(database: ProjectDatabase, measurers: Measurers | None = None) -> list[TargetSchema]:
    """Every target: the built-in ones first; measurable by ``measurers``, by default this machine."""
    with database.read() as session:
        return [_schema(spec, measurers, builtin=True) for spec in list_targets()] + [
            _schema(TargetSpec.from_dict(row.spec), measurers, builtin=False)
            for row in session.scalars(select(Target).order_by(Target.name))
        ]


def get_target(database: ProjectDatabase, name: str, measurers: Measurers | None = None) -> TargetSchema:
    """One target; raises `NotFound` (``unknown_target``) with the names that exist."""
    with database.read() as session:
        try:
            spec = find_spec(session, name)
        except TargetError as error:
            raise NotFound(error.message, code=error.code, hint=error.hint) from None
    return _schema(spec, measurers, builtin=name in {known.name for known in list_targets()})


def find_spec(session: Session, name: str) -> TargetSpec:
    """The target's specification; raises `TargetError` (``unknown_target``) with the names that exist."""
    builtin = {spec.name: spec for spec in list_targets()}
    if name in builtin:
        return builtin[name]
    row = session.scalar(select(Target).where(Target.name == name))
    if row is None:
        names = sorted({*builtin, *session.scalars(select(Target.name))})
        raise TargetError(
            f"There is no target named {name!r}.",
            hint=f"Known targets: {', '.join(names)}. Show them with: tessera targets list",
        )
    return TargetSpec.from_dict(row.spec)


def list_devices(database: ProjectDatabase, fleet: FleetView) -> list[DeviceSchema]:
    """The machines that can measure: this one, then the boards of the fleet. They are everybody's; the jobs that are
    told of are the project's."""
    active = select(Job.id).where(Job.state.in_([state.value for state in ACTIVE_STATES])).order_by(Job.id).limit(1)
    with database.whole.read() as session:
        measuring = session.scalar(active) is not None
    with database.read() as session:
        running = session.scalar(active)
        queued = (
            select(Job.target, func.count().label("count"))
            .where(Job.state == JobState.QUEUED.value)
            .group_by(Job.target)
        )
        waiting = {row.target: row.count for row in session.execute(queued)}
    host = host_target()
    return [
        DeviceSchema(
            name=host.name,
            description=host.description,
            target=host.name,
            state="measuring" if measuring else "idle",
            running_job_id=running,
            waiting_jobs=waiting.get(host.name, 0),
        )
    ] + [
        DeviceSchema(
            name=f"{each.board.key} at {each.board.address}",
            description="a board of the fleet",
            target=each.board.key,
            state=each.state,
            address=each.board.address,
            last_seen=each.last_seen,
            waiting_jobs=waiting.get(each.board.key, 0),
        )
        for each in fleet.boards()
    ]


def _schema(spec: TargetSpec, measurers: Measurers | None, *, builtin: bool) -> TargetSchema:
    measurable = (measurers or FleetView(None)).waiting_for(spec) is None
    here = {
        "processor": spec.processor,
        "module": spec.module,
        "linker": _linker(spec),
        "measurable": measurable,
        "checked_on": spec.name if measurable else checked_on(spec).name,
    }
    return TargetSchema.model_validate({**spec.as_dict(), **here, "builtin": builtin})


def _linker(spec: TargetSpec) -> str | None:
    if spec.module == "module.tar":
        return None
    try:
        return find_linker(spec.triple).name
    except BuildError:
        return None
