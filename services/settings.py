"""Every setting of the service, read from the environment (prefix ``ANIMATO_``).

Only the composition roots call ``load_settings``: ``services/api/app.py``, ``worker/app.py``, ``services/launcher.py``
and ``cli``. Everything else is handed a ``Settings`` or plain values. The defaults are the embedded service: SQLite, a
local folder of objects, a queue server on loopback. This room imports no database, no queue and no model.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.errors import PermanentError

PREFIX = "ANIMATO_"
# What can run a graph, best first; ``model.runtime`` has the same names and knows how.
PROVIDERS = ("tensorrt", "cuda", "openvino", "ncnn", "cpu")


_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\*")
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:_-]+|\*")


class Settings(BaseSettings):
    """The settings of one process. Fields that may carry a password are left out of the repr."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path(".animato"), description="Folder of the embedded database and objects.")
    database_url: str = Field("", repr=False, description="Empty: SQLite in data_dir; or postgresql+psycopg://…")
    storage_url: str = Field("", description="Empty: a folder in data_dir; or s3://bucket.")
    s3_endpoint: str = Field("", description="URL of an S3-compatible store; empty: AWS.")
    s3_public_endpoint: str = Field("", description="The same store as clients reach it; empty: results are streamed.")
    s3_access_key_id: str = Field("", repr=False)
    s3_secret_access_key: SecretStr = SecretStr("")
    s3_region: str = "us-east-1"
    redis_url: str = Field("redis://127.0.0.1:6379/0", repr=False)
    bundles_dir: Path = Path("bundles")
    samples_dir: Path = Field(Path("samples"), description="Still faces that the page offers.")

    providers: Annotated[tuple[str, ...], NoDecode] = PROVIDERS
    threads: int = Field(0, ge=0, description="Inference threads; 0: as many as the container may really use.")
    precision: Literal["full", "half"] = Field("full", description="half: float16 or bfloat16 where a provider can.")
    cuda_graphs: bool = Field(False, description="Replay the synthesis on CUDA as a recorded graph.")
    cache_dir: str = Field("", description="Prepared weights and compiled engines; empty: in data_dir; off: nowhere.")

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    auth: Literal["auto", "on", "off"] = Field("auto", description="API keys; auto: asked for unless on loopback.")
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field((), description="Names that requests may call it by.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Sites whose pages may call it; * is all."
    )
    key_rate_limit: int = Field(600, ge=0, description="Posts a minute with one key; 0: no limit.")
    address_rate_limit: int = Field(
        60_000, ge=0, description="Posts a minute of one address without keys; 0: no limit."
    )
    owner_queue_limit: int = Field(1000, ge=0, description="Queued jobs of one owner of keys; 0: no limit.")

    lease_s: float = Field(30.0, gt=0)
    heartbeat_s: float = Field(10.0, gt=0)
    sweep_s: float = Field(5.0, gt=0)
    max_crashes: int = Field(3, ge=1)
    max_retries: int = Field(8, ge=0)
    job_timeout_s: float = Field(900.0, gt=0)
    grace_s: float = Field(30.0, gt=0, description="Time between SIGTERM and SIGKILL.")
    worker_metrics_port: int = Field(0, ge=0, le=65_535, description="0: off.")

    queue_limit: int = Field(10_000, ge=1)
    commit_batch: int = Field(64, ge=1, description="SQLite: writers that share a commit at most; 1: none do.")
    min_free_bytes: int = Field(256 * 1024 * 1024, ge=0, description="Free disk below which nothing is accepted.")
    max_body_bytes: int = Field(20 * 1024 * 1024, ge=1024)
    max_pixels: int = Field(16_000_000, ge=1)
    min_side_px: int = Field(32, ge=1)
    result_ttl_s: int = Field(7 * 86_400, ge=60)
    job_ttl_s: int = Field(30 * 86_400, ge=86_400, description="Keep a job's record after its result was removed.")
    orphan_age_s: int = Field(86_400, ge=3_600, description="Remove stored objects of this age that no job names.")
    presign_s: int = Field(900, ge=1, le=900)
    max_connections: int = Field(1000, ge=16, description="Connections of clients that are open at once.")
    outbound_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts, host:port and networks that image_url and webhooks may call beside the public internet."
    )
    fetch_timeout_s: float = Field(10.0, gt=0, le=60, description="Longest time of fetching one image_url.")
    webhook_concurrency: int = Field(16, ge=0, le=256, description="Calls under way at once in a process; 0: none.")
    webhook_timeout_s: float = Field(10.0, gt=0, le=60, description="Longest time of one call of a webhook.")
    webhook_delays_s: Annotated[tuple[float, ...], NoDecode] = Field(
        (2, 10, 60, 300, 1800, 7200, 21_600, 54_000), max_length=20, description="Pauses between the tries of an event."
    )

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("providers", "outbound_allow", "trusted_hosts", "cors_origins", "webhook_delays_s", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        """Accept ``"cuda, cpu"`` as it stands in an environment variable."""
        if isinstance(value, str):
            return tuple(part for part in (piece.strip().lower() for piece in value.split(",")) if part)
        return value

    @field_validator("providers")
    @classmethod
    def _know_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(PROVIDERS))
        if unknown or not value:
            raise ValueError(f"choose from {', '.join(PROVIDERS)}; not {', '.join(unknown) or 'an empty list'}")
        return value

    @field_validator("webhook_delays_s")
    @classmethod
    def _know_delays(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= delay_s <= 7 * 86_400 for delay_s in value):
            raise ValueError("each pause is a number of seconds between 0 and a week")
        return value

    @field_validator("trusted_hosts")
    @classmethod
    def _know_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in value if not _HOST.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no host name; write names alone, e.g. faces.example.org, *.example.org")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _know_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [origin for origin in value if not _ORIGIN.fullmatch(origin)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no origin; write scheme and host alone, e.g. https://example.org, or *")
        return value

    @field_validator("log_level", "log_format", "auth", "precision", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("data_dir", "bundles_dir", "samples_dir")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        """Child processes may stand in another folder."""
        return value.expanduser().absolute()

    @field_validator("heartbeat_s")
    @classmethod
    def _beat_inside_lease(cls, value: float, info: object) -> float:
        lease_s = getattr(info, "data", {}).get("lease_s")
        if lease_s is not None and value >= lease_s:
            raise ValueError("must be shorter than lease_s, or every lease lapses between two heartbeats")
        return value

    @property
    def keys_needed(self) -> bool:
        """Whether clients must send an API key: as asked for, and with ``auto`` wherever others reach the service."""
        return self.auth == "on" or (self.auth == "auto" and not is_loopback(self.host))

    @property
    def resolved_database_url(self) -> str:
        """The database's URL, with the embedded default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'jobs.sqlite3'}"

    @property
    def resolved_cache_dir(self) -> Path | None:
        """The folder of prepared weights and compiled engines, None where nothing is to be kept."""
        if self.cache_dir.lower() == "off":
            return None
        return Path(self.cache_dir).expanduser().absolute() if self.cache_dir else self.data_dir / "cache"

    @property
    def resolved_storage_url(self) -> str:
        """The object store's URL, with the embedded default filled in."""
        return self.storage_url or (self.data_dir / "objects").as_uri()


def is_loopback(host: str) -> bool:
    """Return whether an address to bind is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings() -> Settings:
    """Read the settings of this process from its environment.

    Raises: PermanentError("settings-invalid") with the variables' names and what is wrong with each.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise PermanentError(
            "settings-invalid", f"The settings can't be used: {faults}.", "Correct the environment variables named."
        ) from None
