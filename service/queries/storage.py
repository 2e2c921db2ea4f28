"""What a service keeps, and how much room that takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from service.database.tables import Artifact, CostModel, Job, Model, RecordCount, Samples
from service.services import ProjectServices
from tuner.disk_space import free_bytes


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One kind of what is kept: how many, and their bytes; None where they lie in the database with everything else."""

    name: str
    count: int
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """All kinds, of one project; the whole database's bytes, and what is free on the disk of the data directory."""

    kept: tuple[Kept, ...]
    database_bytes: int
    free_bytes: int
    data_dir: Path


def storage_use(services: ProjectServices) -> StorageUse:
    records = select(func.sum(RecordCount.measured + RecordCount.failed)).select_from(RecordCount)
    with services.database.read() as session:

        def counted(name: str, table: type[Model] | type[Samples] | type[Artifact] | type[CostModel]) -> Kept:
            stored = select(func.count(), func.sum(table.size_bytes)).select_from(table)
            count, size_bytes = session.execute(stored).one()
            return Kept(name=name, count=count, size_bytes=int(size_bytes or 0))

        kept = (
            counted("Models", Model),
            counted("Samples", Samples),
            counted("Bundles and what else jobs produced", Artifact),
            counted("Cost model versions", CostModel),
            Kept(name="Jobs", count=session.scalar(select(func.count()).select_from(Job)) or 0),
            Kept(name="Records", count=session.scalar(records) or 0),
        )
    folder = services.settings.data_dir
    return StorageUse(
        kept=kept,
        database_bytes=services.database.size_bytes(),
        free_bytes=free_bytes(folder),
        data_dir=folder,
    )
