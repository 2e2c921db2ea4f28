"""The client: `Tessera` for scripts and notebooks, `Client` for every operation of the REST interface, and both for
asyncio and trio."""

from __future__ import annotations

from service.client.async_rest import AsyncClient
from service.client.rest import Client
from service.client.tessera import AsyncJob, AsyncTessera, ExporterNotInstalled, Job, JobCancelled, JobFailed, Tessera
from service.client.transport import RequestFailed, ServerUnreachable

__all__ = [
    "AsyncClient",
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
