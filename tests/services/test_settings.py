"""Settings come from the environment alone, and a bad one is told by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.errors import PermanentError
from services.settings import PROVIDERS, Settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("ANIMATO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_the_embedded_service(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/.animato/jobs.sqlite3"
    assert settings.resolved_storage_url == (tmp_path / ".animato" / "objects").as_uri()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.providers == ("tensorrt", "cuda", "openvino", "ncnn", "cpu")
    assert (settings.precision, settings.cuda_graphs) == ("full", False)
    assert settings.resolved_cache_dir == tmp_path / ".animato" / "cache"
    assert settings.bundles_dir == tmp_path / "bundles"
    assert (settings.lease_s, settings.heartbeat_s, settings.sweep_s) == (30, 10, 5)
    assert "redis_url" not in settings.model_fields_set


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATO_PROVIDERS", " CUDA, cpu ,")
    monkeypatch.setenv("ANIMATO_REDIS_URL", "redis://h:1/2")
    monkeypatch.setenv("ANIMATO_DATABASE_URL", "postgresql+psycopg://u@h/d")
    monkeypatch.setenv("ANIMATO_STORAGE_URL", "s3://bucket")
    monkeypatch.setenv("ANIMATO_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("ANIMATO_S3_ENDPOINT", "")
    settings = load_settings()
    assert settings.providers == ("cuda", "cpu")
    assert settings.resolved_database_url == "postgresql+psycopg://u@h/d"
    assert settings.resolved_storage_url == "s3://bucket"
    assert settings.log_level == "debug"
    assert "redis_url" in settings.model_fields_set
    assert "s3_endpoint" not in settings.model_fields_set


def test_names_of_providers_are_those_of_the_model() -> None:
    from model.runtime import tuning

    assert tuning.PROVIDERS == PROVIDERS


def test_caches_can_be_elsewhere_or_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANIMATO_CACHE_DIR", "warm")
    assert load_settings().resolved_cache_dir == tmp_path / "warm"
    monkeypatch.setenv("ANIMATO_CACHE_DIR", "Off")
    assert load_settings().resolved_cache_dir is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANIMATO_PORT", "http"),
        ("ANIMATO_PROVIDERS", "cpu,rocm"),
        ("ANIMATO_PROVIDERS", ","),
        ("ANIMATO_PRECISION", "int8"),
        ("ANIMATO_LEASE_S", "0"),
        ("ANIMATO_HEARTBEAT_S", "30"),
        ("ANIMATO_PRESIGN_S", "901"),
        ("ANIMATO_MAX_CRASHES", "0"),
        ("ANIMATO_LOG_FORMAT", "xml"),
    ],
)
def test_bad_setting_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PermanentError) as refusal:
        load_settings()
    assert refusal.value.code == "settings-invalid"
    assert name in refusal.value.message


def test_passwords_are_in_no_repr() -> None:
    settings = Settings(
        database_url="postgresql://u:canary@h/d",
        redis_url="redis://:canary@h/0",
        s3_access_key_id="canary",
        s3_secret_access_key="canary",
    )
    assert "canary" not in repr(settings) + str(settings)
