"""The tuner's protocols on our database: records, cost models, events."""

from service.stores.cost_models import DatabaseCostModelStore
from service.stores.records import DatabaseRecordStore
from service.stores.reporter import JobReporter

__all__ = ["DatabaseCostModelStore", "DatabaseRecordStore", "JobReporter"]
