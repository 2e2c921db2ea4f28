"""The wall between projects: what a session of one project finds, changes and adds.

Two things hold it. Every statement on tables that belong to a project (`OfProject`), or whose rows refer to such a row,
gets the condition by itself, so that a query cannot forget it. And the text of every statement is read before it is
sent: one that reads such a table without the condition is a mistake of ours, and ends there (`Breach`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, ForeignKey, Table, event, exists
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, Session, UOWTransaction, with_loader_criteria

from service.database.base import Base
from service.database.tables import OfProject

_OPTION = "tessera_project"
_OF_ALL = "tessera_of_all_projects"
OF_ALL_PROJECTS = {_OF_ALL: True}
"""Execution options of a statement that looks over the wall: a count, of which nobody is told more."""
_OWNER = "owner"


class Breach(RuntimeError):
    """A statement would have read, or added, something of another project."""


class ProjectSession(Session):
    """A session that is in one project: other rows are not there for it, and what it adds is the project's."""

    def __init__(self, connection: Connection, project: str) -> None:
        super().__init__(connection.execution_options(**{_OPTION: project}), expire_on_commit=False)
        self.project = project


def project_of(session: Session) -> str:
    """The project that the session is in, for what is inserted without objects."""
    if not isinstance(session, ProjectSession):
        raise Breach("rows of a project are added outside of any")
    return session.project


@event.listens_for(ProjectSession, "do_orm_execute")
def _stay_inside(state: ORMExecuteState) -> None:
    session = state.session
    assert isinstance(session, ProjectSession)
    if state.execution_options.get(_OF_ALL):
        return
    if state.is_orm_statement and (state.is_select or state.is_update or state.is_delete):
        state.statement = state.statement.options(*_conditions(session.project))


@event.listens_for(ProjectSession, "before_flush")
def _add_inside(session: ProjectSession, _context: UOWTransaction, _instances: object) -> None:
    for row in session.new:
        if isinstance(row, OfProject):
            if row.project not in (None, session.project):
                raise Breach(f"a row of {type(row).__name__} is another project's")
            row.project = session.project


@lru_cache(maxsize=1000)
def _conditions(project: str) -> tuple[LoaderCriteriaOption, ...]:
    """What is added to every statement."""
    own = with_loader_criteria(OfProject, lambda table: table.project == project, include_aliases=True)
    below = []
    for mapper in Base.registry.mappers:
        if (key := _leads_to_owner(mapper.local_table)) is not None:
            owner = key.column.table.alias(_OWNER)
            refers = exists().where(owner.c[key.column.name] == key.parent, owner.c.project == project)
            below.append(with_loader_criteria(mapper.class_, refers.correlate_except(owner), include_aliases=True))
    return own, *below


def _leads_to_owner(table: Any) -> ForeignKey | None:
    """The reference of a table without a project to a row that has one; None where there is none."""
    if "project" in table.columns:
        return None
    keys = (key for key in table.foreign_keys if not key.parent.nullable)
    return next((key for key in keys if key.column.table in _owned_tables()), None)


@cache
def _owned_tables() -> frozenset[Table]:
    return frozenset(
        mapper.local_table
        for mapper in Base.registry.mappers
        if issubclass(mapper.class_, OfProject) and isinstance(mapper.local_table, Table)
    )


def watch(engine: Engine) -> None:
    """Read what sessions of projects send to this engine."""

    @event.listens_for(engine, "before_cursor_execute")
    def _look(
        connection: Connection, _cursor: object, statement: str, parameters: Any, context: Any, _many: bool
    ) -> None:
        project = connection.get_execution_options().get(_OPTION)
        if project is None or context.execution_options.get(_OF_ALL):
            return
        for conditions in _conditions_in(statement):
            by_name = isinstance(parameters, dict)
            values = [parameters[name] for name in conditions.names] if by_name else parameters
            if sum(value == project for value in values) < conditions.times:
                raise Breach("a statement has the condition of another project")


@dataclass(frozen=True)
class _Conditions:
    """How often a statement reads a table, and the parameters by which it says of which project ("" without a name)."""

    times: int
    names: tuple[str, ...]


@lru_cache(maxsize=5000)
def _conditions_in(statement: str) -> tuple[_Conditions, ...]:
    """Raises `Breach` where a statement reads a table and does not say of which project."""
    conditions, reads = _patterns()
    wanted: Counter[tuple[str, str]] = Counter()
    for found in reads.finditer(statement):
        table, name = found[1], found[2] or found[1]
        wanted[table, conditions[table].format(name=name)] += 1
    owned = {table.name for table in _owned_tables()}
    found_conditions = []
    for (table, condition), times in wanted.items():
        names = re.findall(condition, statement)
        if len(names) < times:
            raise Breach(f"a statement reads {table} of all projects")
        if table in owned:  # else it is the owner's, which is among the others
            found_conditions.append(_Conditions(times, tuple(names)))
    return tuple(found_conditions)


@cache
def _patterns() -> tuple[dict[str, str], re.Pattern[str]]:
    """By table what has to be in a statement's text where it is read under a name, and where tables are read in it.

    A row that the session has loaded is deleted by its key alone: it was found inside.
    """
    given = r"\.project = (?:\?|%\((\w+)\)s)"
    conditions = {table.name: rf"\b{{name}}{given}" for table in _owned_tables()}
    for table in Base.metadata.tables.values():
        if (key := _leads_to_owner(table)) is not None:
            refers = rf"\b{_OWNER}\.{key.column.name} = {{name}}\.{key.parent.name}"
            conditions[table.name] = rf"{refers} AND {_OWNER}{given}"
    reads = rf"(?:(?<!DELETE )\bFROM|\bJOIN|,)\s+({'|'.join(conditions)})\b(?!\.)(?:\s+AS\s+(\w+))?"
    return conditions, re.compile(reads)
