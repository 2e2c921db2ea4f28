"""The client: `Tessera` for scripts and notebooks, `Client` for every operation of the REST interface."""

from __future__ import annotations

from service.client.rest import Client, RequestFailed, ServerUnreachable
from service.client.tessera import AsyncJob, AsyncTessera, ExporterNotInstalled, Job, JobCancelled, JobFailed, Tessera

__all__ = [
    "AsyncJob",
    "AsyncTessera",
    "Client",
    "ExporterNotInstalled",
    "Job",
    "JobCancelled",
    "JobFailed",
    "RequestFailed",
    "ServerUnreachable",
    "Tessera",
]
