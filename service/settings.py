"""Settings, read from the environment: every name is ``TESSERA_`` and the field in capitals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.access.rights import parse_rights
from service.listening import is_loopback
from service.webhooks.addresses import parse_networks
from tuner.measure.tracker import Tracker
from tuner.sandbox import Mode

GIB = 1024**3


class Settings(BaseSettings):
    """The settings of one server or of the embedded engine. Paths below ``data_dir`` are derived."""

    model_config = SettingsConfigDict(env_prefix="TESSERA_", extra="ignore")

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("tessera"), description="Database, blobs and the files of jobs."
    )
    database_url: str | None = Field(
        default=None, description="postgresql://…; SQLite in data_dir when unset.", repr=False
    )
    blobs_url: str | None = Field(default=None, description="s3://BUCKET/PREFIX; files in data_dir when unset.")
    blob_cache_bytes: int = Field(
        default=20 * GIB, ge=0, description="Copies of blobs of a bucket that are kept on local disk."
    )
    engine: Literal["local", "ray"] = Field(default="local", description="Where jobs run: this machine, or Ray.")
    ray_address: str | None = Field(
        default=None, description="ray://HEAD:10001 of the Ray cluster, for the engine ray."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8765, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_upload_bytes: int = Field(default=2 * GIB, ge=1, description="Largest upload accepted.")
    max_parallel_jobs: int = Field(
        default=1, ge=0, description="Jobs run at once; 0 starts none (the queue waits for another engine)."
    )
    max_queued_jobs: int = Field(default=1000, ge=1, description="Jobs that may wait in the queue; more are refused.")
    max_jobs_per_user: int | None = Field(
        default=None, ge=1, description="Unfinished jobs that one token may have; no limit of its own when unset."
    )
    max_project_bytes: int | None = Field(
        default=None, ge=1, description="Models and samples that one project may store; no limit when unset."
    )
    min_free_disk_bytes: int = Field(
        default=GIB, ge=0, description="With less free where data_dir lies jobs wait and uploads are refused; 0: never."
    )
    job_niceness: int = Field(
        default=5, ge=0, le=19, description="Priority that jobs yield to the server and to others on the machine."
    )
    max_opset: int = Field(default=28, description="Newest ONNX opset accepted at upload.")
    check_timeout_s: float = Field(default=180.0, gt=0, description="Longest preflight of POST /models/{id}/check.")
    check_memory_bytes: int = Field(default=16 * GIB, ge=GIB, description="Address space of one preflight process.")
    max_attempts_without_record: int = Field(
        default=5, ge=1, description="Attempts of a job that dies without a new record before it fails."
    )
    heartbeat_timeout_s: float = Field(
        default=900.0, gt=0, description="A job process that is alive but silent for this long is ended and resumed."
    )
    signing_key: SecretStr | None = Field(
        default=None, description="PEM of the private key that signs bundles; signing.key in data_dir when unset."
    )
    tracker: str | None = Field(
        default=None, description="HOST:PORT of TVM's RPC tracker that boards have joined; unset: none."
    )
    sandbox: Mode = Field(
        default="auto",
        description="How what imports, compiles and runs models is confined: required, as far as possible, or off.",
    )
    job_memory_bytes: int | None = Field(
        default=None,
        ge=GIB // 4,
        description="Private memory of one process of a job; what the machine has when unset.",
    )
    job_disk_bytes: int = Field(default=64 * GIB, ge=GIB // 16, description="Files of a job, while it runs.")
    job_timeout_s: float = Field(
        default=7 * 24 * 3600.0, gt=0, description="An attempt of a job that takes longer is ended, and the job fails."
    )
    shutdown_grace_s: int = Field(default=3, ge=0, description="How long open streams may delay a stop.")
    authentication: Literal["tokens", "proxy"] = Field(
        default="tokens", description="Who asks is said by a token of ours, or was asked by a proxy in front."
    )
    bootstrap_token: SecretStr | None = Field(
        default=None, description="A token with the scope admin, given by the environment: tss_ and 43 characters."
    )
    allowed_hosts: str | None = Field(
        default=None, description="Names under which this server is asked, with commas: tessera.example.com, *.x.org"
    )
    trusted_proxies: str | None = Field(
        default=None, description="Addresses of proxies whose X-Forwarded-For and -Proto are believed, with commas."
    )
    session_lifetime_s: float = Field(
        default=604_800.0, gt=0, description="How long a browser stays signed in, with a token that lives as long."
    )
    token_requests_per_s: float = Field(
        default=200.0, ge=0, description="Requests with one token (five seconds' worth at once); 0: no limit."
    )
    address_requests_per_s: float = Field(
        default=400.0, ge=0, description="Requests from one address (five seconds' worth at once); 0: no limit."
    )
    failed_sign_ins_per_min: int = Field(
        default=10, ge=1, description="Wrong tokens from one address; then only those that were right before are taken."
    )
    webhook_networks: str | None = Field(
        default=None,
        description="Networks beside the internet that webhooks may reach, with commas: 192.168.1.0/24, 127.0.0.1",
    )

    oidc_issuer: str | None = Field(
        default=None, description="Address of the OpenID Connect provider that people sign in with."
    )
    oidc_client_id: str | None = Field(default=None, description="What this server is called there.")
    oidc_client_secret: SecretStr | None = Field(default=None, description="Its secret there, where it has one.")
    oidc_claim: str = Field(default="groups", description="The claim that says which scope somebody has.")
    oidc_scopes: str | None = Field(
        default=None, description="The claim's values, their scopes and projects: admins=admin, cats=submit@cats."
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        """Job processes are handed this path: it must not depend on where they run."""
        return path.expanduser().absolute()

    @field_validator("tracker")
    @classmethod
    def _address(cls, text: str | None) -> str | None:
        return str(Tracker.parse(text)) if text else None

    @field_validator("webhook_networks")
    @classmethod
    def _networks(cls, text: str | None) -> str | None:
        parse_networks(text or "")
        return text

    @model_validator(mode="after")
    def _provider(self) -> Settings:
        if self.oidc_issuer:
            parts = urlsplit(self.oidc_issuer)
            if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
                raise ValueError("TESSERA_OIDC_ISSUER begins with https://")
            if not self.oidc_client_id:
                raise ValueError("TESSERA_OIDC_ISSUER needs TESSERA_OIDC_CLIENT_ID")
            if not parse_rights(self.oidc_scopes or ""):
                raise ValueError("TESSERA_OIDC_ISSUER needs TESSERA_OIDC_SCOPES, such as admins=admin, *=read")
        return self

    def for_job_process(self) -> dict[str, str]:
        """The environment that makes a process of a job see the same database, blobs and boards."""
        names = (
            *("data_dir", "database_url", "blobs_url", "blob_cache_bytes", "tracker", "job_niceness"),
            *("sandbox", "job_memory_bytes", "job_disk_bytes", "job_timeout_s"),
        )
        return {f"TESSERA_{name.upper()}": str(value) for name in names if (value := getattr(self, name)) is not None}

    @property
    def is_of_one_machine(self) -> bool:
        """Whether only this machine reaches the server, as far as the settings tell: it listens on loopback, and no
        proxy publishes it."""
        is_published = self.allowed_hosts or self.trusted_proxies or self.authentication == "proxy"
        return is_loopback(self.host) and not is_published

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'tessera.sqlite3'}"

    @property
    def lock_path(self) -> Path:
        """Held by the server that owns the data directory."""
        return self.data_dir / "server.lock"

    @property
    def address_path(self) -> Path:
        """Where that server says how it is reached."""
        return self.data_dir / "server.json"

    @property
    def signing_key_path(self) -> Path:
        """The private key that bundles are signed with."""
        return self.data_dir / "signing.key"

    @property
    def token_path(self) -> Path:
        """The token of whoever may read the data directory (service.access.local_token)."""
        return self.data_dir / "token"

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def jobs_dir(self) -> Path:
        """One folder a job: its log and its work directory."""
        return self.data_dir / "jobs"

    def work_dir(self, job_id: str) -> Path:
        """Kept over the attempts of a job, removed with its end."""
        return self.jobs_dir / job_id / "work"

    def job_log(self, job_id: str) -> Path:
        return self.jobs_dir / job_id / "job.log"
