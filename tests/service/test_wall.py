"""The wall between projects: whatever a statement says, it finds, changes and adds its own project's rows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, func, insert, inspect, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from service.database import ProjectDatabase
from service.database.base import Base
from service.database.tables import (
    Artifact,
    CostModel,
    IdempotencyKey,
    Job,
    JobEvent,
    Model,
    RecordCount,
    Samples,
    Target,
    Task,
    TrialRecord,
    Webhook,
    WebhookDelivery,
    Workload,
)
from service.database.wall import OF_ALL_PROJECTS, Breach
from service.stores import DatabaseRecordStore
from service.stores.adding import insert_records
from service.stores.packing import to_row
from tests.service.tuning import add_job, record, workload

# What is of no project: who may do what, what they did, and what the whole server is set to.
NOBODYS = {"tokens", "sessions", "audit_entries", "preferences"}
TABLES = sorted((mapper.class_ for mapper in Base.registry.mappers), key=lambda table: table.__name__)
BEHIND = [table for table in TABLES if table.__tablename__ not in NOBODYS]
PROJECTS = ("ours", "theirs")


@pytest.fixture
def two(database: ProjectDatabase) -> tuple[ProjectDatabase, ProjectDatabase]:
    """Two projects that have one row of everything, alike but for ids that name one thing only."""
    ours, theirs = (database.whole.of_project(name) for name in PROJECTS)
    for project in (ours, theirs):
        job_id = add_job(project, project.project)
        store = DatabaseRecordStore(project, job_id)
        store.add_workload(workload(1))
        store.add([record(1)])
        with project.write() as session:
            session.add(Task(job_id=job_id, key="t", name="t", workload="workload-1", flops=1.0))
            session.add(
                Artifact(
                    id=job_id,
                    job_id=job_id,
                    kind="bundle",
                    filename="b",
                    content_type="x",
                    size_bytes=1,
                    sha256="0" * 64,
                )
            )
            session.add(JobEvent(job_id=job_id, kind="log", data={}))
            session.add(IdempotencyKey(key="k", request_sha256="0" * 64, job_id=job_id))
            session.add(Samples(id="1" * 64, filename="s", size_bytes=1))
            session.add(Target(name="mine", spec={}))
            session.add(
                CostModel(
                    target_fingerprint="f",
                    version=1,
                    features_version=1,
                    model_sha256="2" * 64,
                    samples_sha256="3" * 64,
                    size_bytes=1,
                    sample_count=1,
                    training_set_sha256="4" * 64,
                )
            )
            session.add(Webhook(id=job_id, url="https://x.example", secret="s"))
            session.flush()
            session.add(WebhookDelivery(webhook_id=job_id, job_id=job_id, event="test"))
    return ours, theirs


def keys(database: ProjectDatabase, table: type[Any]) -> list[tuple[Any, ...]]:
    with database.whole.read() as session:
        return [tuple(inspect(row).identity) for row in session.scalars(select(table))]


def test_every_table_is_behind_the_wall_or_nobodys() -> None:
    assert {table.__tablename__ for table in TABLES} >= NOBODYS
    assert len(BEHIND) == 14


@pytest.mark.parametrize("table", BEHIND, ids=lambda table: table.__tablename__)
def test_a_project_finds_its_own_row_whatever_is_asked(
    two: tuple[ProjectDatabase, ProjectDatabase], table: type[Any]
) -> None:
    assert len(keys(two[0], table)) == 2
    found = []
    other = aliased(table)
    for database in (*two, *two):  # again: the statements are compiled now
        with database.read() as session:
            (row,) = session.scalars(select(table)).all()
            assert session.scalars(select(other)).all() == [row]
            assert session.scalars(select(table).where(or_(True, table.__mapper__.primary_key[0].is_(None)))).all() == [
                row
            ]
            assert session.scalar(select(func.count()).select_from(table)) == 1
            assert session.scalar(select(func.count()).select_from(select(table).subquery())) == 1
            assert session.scalar(select(select(table).exists())) is True
            of_both = [session.get(table, key, populate_existing=True) for key in keys(database, table)]
            assert [each for each in of_both if each is not None] == [row]
            found.append(tuple(inspect(row).identity))
    assert found == [found[0], found[1]] * 2
    assert found[0] != found[1]


@pytest.mark.parametrize("table", BEHIND, ids=lambda table: table.__tablename__)
def test_a_project_changes_and_deletes_its_own_row_only(
    two: tuple[ProjectDatabase, ProjectDatabase], table: type[Any]
) -> None:
    ours, theirs = two
    column = next(each for each in inspect(table).columns if not each.primary_key and not each.foreign_keys)
    with ours.write() as session:
        changed = session.execute(update(table).values({column.key: column}))
        assert changed.rowcount == 1
    with ours.write() as session:
        for referring in {Workload: (TrialRecord, RecordCount), Model: (Job,)}.get(table, ()):
            session.execute(delete(referring))
        assert session.execute(delete(table)).rowcount == 1
    with ours.read() as session:
        assert session.scalar(select(func.count()).select_from(table)) == 0
    with theirs.read() as session:
        assert session.scalar(select(func.count()).select_from(table)) == 1


def test_joins_and_subqueries_stay_inside(two: tuple[ProjectDatabase, ProjectDatabase]) -> None:
    for database in two:
        with database.read() as session:
            joined = select(Job.id, Model.id).join(Model, Model.id == Job.model_id)
            assert [row[0] for row in session.execute(joined)] == [database.project]
            outer = select(Model.id, Job.id).outerjoin(Job, Job.model_id == Model.id)
            assert [row[1] for row in session.execute(outer)] == [database.project]
            jobs = select(func.count()).select_from(Job).where(Job.model_id == Model.id).scalar_subquery()
            assert session.execute(select(Model.id, jobs)).all() == [("0" * 64, 1)]
            events = select(JobEvent.id).where(JobEvent.job_id.in_(select(Job.id)))
            assert len(session.scalars(events).all()) == 1
            both = select(Artifact.id, Job.id).join(Job, Job.id == Artifact.job_id)
            assert session.execute(both).all() == [(database.project, database.project)]


@pytest.mark.parametrize(
    "statement",
    [
        text("SELECT count(*) FROM jobs"),
        select(Job.__table__.c.id),
        select(func.count()).select_from(Job.__table__),
        select(Task.__table__.c.key),
        select(Job.__table__.c.id).where(Job.__table__.c.project == "theirs"),
        select(Job.__table__.c.id, Model.__table__.c.id).where(
            Job.__table__.c.model_id == Model.__table__.c.id, Job.__table__.c.project == "ours"
        ),
        select(Model.__table__.c.id).join(Job.__table__, Job.__table__.c.model_id == Model.__table__.c.id),
        select(Model.id).where(select(Job.__table__.c.id).exists()),
    ],
    ids=str,
)
def test_a_statement_without_its_condition_is_not_sent(
    two: tuple[ProjectDatabase, ProjectDatabase], statement: Any
) -> None:
    with pytest.raises(Breach), two[0].read() as session:
        session.execute(statement)
    with two[0].whole.read() as session:
        session.execute(statement)


def test_nothing_is_added_to_another_project(two: tuple[ProjectDatabase, ProjectDatabase]) -> None:
    ours, theirs = two
    with pytest.raises(Breach), ours.write() as session:
        session.add(Model(project="theirs", id="5" * 64, name="m", filename="m", size_bytes=1))
    with pytest.raises(Breach), ours.whole.write() as session:
        insert_records(session, [to_row(record(2), job_id=None, number=None, task="")])
    with theirs.write() as session:
        session.add(Model(id="5" * 64, name="m", filename="m", size_bytes=1))
    with pytest.raises(IntegrityError), ours.write() as session:  # of their model
        session.add(Job(id="j", model_id="5" * 64, target="host", target_fingerprint="f", target_spec={}))
    with pytest.raises(IntegrityError), ours.whole.write() as session:  # of nobody
        session.execute(insert(Webhook).values(id="w", url="https://x.example", secret="s"))


def test_a_count_may_look_over_the_wall(two: tuple[ProjectDatabase, ProjectDatabase]) -> None:
    with two[0].read() as session:
        count = select(func.count()).select_from(Job)
        assert session.scalar(count, execution_options=OF_ALL_PROJECTS) == 2
        assert session.scalar(count) == 1
