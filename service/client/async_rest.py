"""`Client` for asyncio and trio: the same methods, each of which waits in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from anyio.to_thread import run_sync

from service.client.rest import Client

P = ParamSpec("P")
T = TypeVar("T")
_END = object()


def _awaited(method: Callable[Concatenate[Client, P], T]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @wraps(method)
    async def call(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> T:
        return await run_sync(partial(method, self.sync, *args, **options))

    return call


def _streamed(
    method: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    @wraps(method)
    async def stream(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        items = method(self.sync, *args, **options)
        while (item := await run_sync(partial(next, items, _END), abandon_on_cancel=True)) is not _END:
            yield item

    return stream


class AsyncClient:
    """``sync`` is the client itself, and is closed by whoever made it."""

    def __init__(self, sync: Client) -> None:
        self.sync = sync

    upload_model = _awaited(Client.upload_model)
    upload_samples = _awaited(Client.upload_samples)
    models = _awaited(Client.models)
    model = _awaited(Client.model)
    download_model = _awaited(Client.download_model)
    delete_model = _awaited(Client.delete_model)
    check = _awaited(Client.check)
    create_job = _awaited(Client.create_job)
    jobs = _awaited(Client.jobs)
    job = _awaited(Client.job)
    cancel = _awaited(Client.cancel)
    delete_job = _awaited(Client.delete_job)
    tasks = _awaited(Client.tasks)
    trials = _awaited(Client.trials)
    log = _awaited(Client.log)
    log_text = _awaited(Client.log_text)
    events = _streamed(Client.events)
    artifacts = _awaited(Client.artifacts)
    front = _awaited(Client.front)
    artifact = _awaited(Client.artifact)
    download = _awaited(Client.download)
    signing_key = _awaited(Client.signing_key)
    targets = _awaited(Client.targets)
    target = _awaited(Client.target)
    create_target = _awaited(Client.create_target)
    devices = _awaited(Client.devices)
    export_records = _streamed(Client.export_records)
    import_records = _awaited(Client.import_records)
    cost_models = _awaited(Client.cost_models)
    cost_model = _awaited(Client.cost_model)
    restore_cost_model = _awaited(Client.restore_cost_model)
    create_webhook = _awaited(Client.create_webhook)
    webhooks = _awaited(Client.webhooks)
    delete_webhook = _awaited(Client.delete_webhook)
    try_webhook = _awaited(Client.try_webhook)
    deliveries = _awaited(Client.deliveries)
    storage = _awaited(Client.storage)
    set_retention = _awaited(Client.set_retention)
    clean_up = _awaited(Client.clean_up)
    create_token = _awaited(Client.create_token)
    tokens = _awaited(Client.tokens)
    revoke_token = _awaited(Client.revoke_token)
    create_sign_in_link = _awaited(Client.create_sign_in_link)
    audit = _awaited(Client.audit)
