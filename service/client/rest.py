"""A thin typed client: a method for every operation of the REST interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.client.transport import Transport
from service.schemas.access import AuditEntrySchema, SignInLink, TokenCreate, TokenCreated, TokenSchema
from service.schemas.artifacts import ArtifactSchema, Front, SigningKeySchema
from service.schemas.cost_models import CostModelDetail, CostModelSchema, RecordsImported
from service.schemas.events import LogLine
from service.schemas.jobs import JobCreate, JobSchema
from service.schemas.models import CheckReport, ModelSchema, SamplesSchema
from service.schemas.storage import CleanUp, CleanUpReport, Retention, StorageSchema
from service.schemas.targets import DeviceSchema, TargetCreate, TargetSchema
from service.schemas.tasks import TaskSchema, TrialSchema
from service.schemas.webhooks import WebhookCreate, WebhookCreated, WebhookDeliverySchema, WebhookSchema


class Client(Transport):
    """One server, by its URL. Methods raise `ServerUnreachable` and `RequestFailed`; lists give their first page."""

    def upload_model(self, path: Path) -> ModelSchema:
        return ModelSchema.model_validate(self._upload("/models", path))

    def upload_samples(self, path: Path) -> SamplesSchema:
        return SamplesSchema.model_validate(self._upload("/samples", path))

    def models(self, *, limit: int = 50) -> list[ModelSchema]:
        return self._page("/models", ModelSchema, limit=limit)

    def model(self, model_id: str) -> ModelSchema:
        return ModelSchema.model_validate(self._json("GET", f"/models/{model_id}"))

    def download_model(self, model: ModelSchema, folder: Path) -> Path:
        """Write the file into the folder; it appears there whole or not at all."""
        return self._save(f"/models/{model.id}/content", folder / Path(model.filename).name)

    def delete_model(self, model_id: str) -> None:
        self._checked("DELETE", f"/models/{model_id}")

    def check(
        self, model_id: str, *, target: str = "host", input_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> CheckReport:
        shapes = {name: list(shape) for name, shape in (input_shapes or {}).items()}
        body = {"target": target, "input_shapes": shapes}
        return CheckReport.model_validate(self._json("POST", f"/models/{model_id}/check", json=body))

    def create_job(self, request: JobCreate, *, idempotency_key: str | None = None) -> JobSchema:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = request.model_dump(mode="json")
        return JobSchema.model_validate(self._json("POST", "/jobs", json=body, headers=headers))

    def jobs(self, *, limit: int = 50) -> list[JobSchema]:
        return self._page("/jobs", JobSchema, limit=limit)

    def job(self, job_id: str) -> JobSchema:
        return JobSchema.model_validate(self._json("GET", f"/jobs/{job_id}"))

    def cancel(self, job_id: str) -> JobSchema:
        return JobSchema.model_validate(self._json("POST", f"/jobs/{job_id}/cancel"))

    def delete_job(self, job_id: str) -> None:
        self._checked("DELETE", f"/jobs/{job_id}")

    def tasks(self, job_id: str) -> list[TaskSchema]:
        return self._page(f"/jobs/{job_id}/tasks", TaskSchema)

    def trials(self, job_id: str, *, limit: int = 1000) -> list[TrialSchema]:
        return self._page(f"/jobs/{job_id}/trials", TrialSchema, limit=limit)

    def log(self, job_id: str, *, limit: int = 1000) -> list[LogLine]:
        return self._page(f"/jobs/{job_id}/log", LogLine, limit=limit)

    def log_text(self, job_id: str) -> str:
        """Everything that the job's process wrote."""
        return self._checked("GET", f"/jobs/{job_id}/log", params={"format": "text"}).text

    def events(self, job_id: str, *, after: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
        """``(kind, data)`` of every event as it happens, until the job has ended; a broken stream is resumed."""
        yield from self._events(f"/jobs/{job_id}/events", after=after)

    def artifacts(self, job_id: str) -> list[ArtifactSchema]:
        return self._page(f"/jobs/{job_id}/artifacts", ArtifactSchema)

    def front(self, job_id: str) -> Front:
        return Front.model_validate(self._json("GET", f"/jobs/{job_id}/front"))

    def artifact(self, artifact_id: str) -> ArtifactSchema:
        return ArtifactSchema.model_validate(self._json("GET", f"/artifacts/{artifact_id}"))

    def download(self, artifact: ArtifactSchema, folder: Path) -> Path:
        """Write the artifact into the folder; it appears there whole or not at all."""
        return self._save(f"/artifacts/{artifact.id}/download", folder / Path(artifact.filename).name)

    def signing_key(self) -> SigningKeySchema:
        return SigningKeySchema.model_validate(self._json("GET", "/signing-key"))

    def targets(self) -> list[TargetSchema]:
        return self._page("/targets", TargetSchema)

    def target(self, name: str) -> TargetSchema:
        return TargetSchema.model_validate(self._json("GET", f"/targets/{name}"))

    def create_target(self, request: TargetCreate) -> TargetSchema:
        return TargetSchema.model_validate(self._json("POST", "/targets", json=request.model_dump(mode="json")))

    def devices(self) -> list[DeviceSchema]:
        return self._page("/devices", DeviceSchema)

    def export_records(self, *, target: str = "host") -> Iterator[bytes]:
        """NDJSON, in pieces as they arrive."""
        yield from self._stream("/records", params={"target": target})

    def import_records(self, path: Path, *, target: str | None = None) -> RecordsImported:
        params = {"target": target} if target else {}
        headers = {"Content-Type": "application/x-ndjson"}
        answer = self._json("POST", "/records", content=path.read_bytes(), params=params, headers=headers)
        return RecordsImported.model_validate(answer)

    def cost_models(self) -> list[CostModelSchema]:
        return self._page("/cost-models", CostModelSchema)

    def cost_model(self, target: str) -> CostModelDetail:
        return CostModelDetail.model_validate(self._json("GET", f"/cost-models/{target}"))

    def restore_cost_model(self, target: str, version: int) -> CostModelDetail:
        answer = self._json("POST", f"/cost-models/{target}/versions/{version}/restore")
        return CostModelDetail.model_validate(answer)

    def create_webhook(self, url: str) -> WebhookCreated:
        """Its ``secret`` is in this answer only."""
        body = WebhookCreate(url=url).model_dump(mode="json")
        return WebhookCreated.model_validate(self._json("POST", "/webhooks", json=body))

    def webhooks(self) -> list[WebhookSchema]:
        return self._page("/webhooks", WebhookSchema)

    def delete_webhook(self, webhook_id: str) -> None:
        self._checked("DELETE", f"/webhooks/{webhook_id}")

    def try_webhook(self, webhook_id: str) -> WebhookDeliverySchema:
        return WebhookDeliverySchema.model_validate(self._json("POST", f"/webhooks/{webhook_id}/test"))

    def deliveries(self, webhook_id: str, *, limit: int = 50) -> list[WebhookDeliverySchema]:
        return self._page(f"/webhooks/{webhook_id}/deliveries", WebhookDeliverySchema, limit=limit)

    def storage(self) -> StorageSchema:
        return StorageSchema.model_validate(self._json("GET", "/storage"))

    def set_retention(self, days: int | None) -> StorageSchema:
        """None keeps everything."""
        body = Retention(days=days).model_dump(mode="json")
        return StorageSchema.model_validate(self._json("PUT", "/storage/retention", json=body))

    def clean_up(self, *, days: int, dry_run: bool = False) -> CleanUpReport:
        body = CleanUp(days=days, dry_run=dry_run).model_dump(mode="json")
        return CleanUpReport.model_validate(self._json("POST", "/storage/clean-up", json=body))

    def create_token(self, request: TokenCreate) -> TokenCreated:
        """Its ``token`` is in this answer only."""
        body = request.model_dump(mode="json")
        return TokenCreated.model_validate(self._json("POST", "/tokens", json=body))

    def tokens(self) -> list[TokenSchema]:
        return self._page("/tokens", TokenSchema)

    def revoke_token(self, token_id: str) -> None:
        self._checked("DELETE", f"/tokens/{token_id}")

    def create_sign_in_link(self) -> SignInLink:
        """Signs one browser in with this client's token, once."""
        return SignInLink.model_validate(self._json("POST", "/sign-in-links"))

    def audit(self, *, limit: int = 50) -> list[AuditEntrySchema]:
        return self._page("/audit", AuditEntrySchema, limit=limit)
