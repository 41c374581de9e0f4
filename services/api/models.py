"""``GET /v1/models``: the bundles that the workers run, as their manifests describe them. Opens no graph."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.bundle.manifest import Manifest
from model.bundle.reader import list_bundles
from services.errors import RequestError, TemporaryError

RELOAD_S = 2.0


class Catalogue:
    """The manifests in the bundles' folder, read again at most every two seconds. Thread-safe."""

    def __init__(self, bundles_dir: Path) -> None:
        self._bundles_dir = bundles_dir
        self._lock = threading.Lock()
        self._manifests: Sequence[Manifest] = ()
        self._read_at_s = float("-inf")

    def list_models(self) -> Sequence[Manifest]:
        """Return all usable manifests; the first one is the default model."""
        with self._lock:
            if time.monotonic() - self._read_at_s > RELOAD_S:
                self._manifests = tuple(list_bundles(self._bundles_dir))
                self._read_at_s = time.monotonic()
            return self._manifests

    def choose(self, model_id: str | None) -> Manifest:
        """Return the manifest of a model, the default one for None.

        Raises:
            RequestError: model-unknown, with the list of the models in its hint.
            TemporaryError: not-ready when there is no model at all.
        """
        manifests = self.list_models()
        if not manifests:
            raise TemporaryError(
                "not-ready",
                "This service has no model.",
                "Put a bundle into the folder of ANIMATO_BUNDLES_DIR.",
                delay_s=30.0,
            )
        if model_id is None:
            return manifests[0]
        found = next((manifest for manifest in manifests if manifest.id == model_id), None)
        if found is None:
            raise RequestError(
                "model-unknown",
                "There is no model with this id.",
                f"Choose one of: {', '.join(manifest.id for manifest in manifests)}.",
                errors=[{"pointer": "#/model", "detail": "There is no model with this id."}],
            )
        return found


def describe_model(manifest: Manifest, workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one model as the API shows it.

    Args:
        manifest: the bundle's manifest.
        workers: the facts that live workers told; their providers of this very bundle are gathered.
    """
    running = [facts for facts in (_facts_of(worker, manifest) for worker in workers) if facts is not None]
    providers = sorted({str(name) for facts in running for name in _providers(facts)})
    fallbacks = sorted({str(words) for facts in running for words in _list_of(facts, "fallbacks")})
    return {
        "id": manifest.id,
        "object": "model",
        "version": manifest.version,
        "domain": manifest.domain,
        "kind": manifest.kind,
        "sha256": manifest.sha256,
        "resolution": manifest.resolution,
        "fps": manifest.fps,
        "expressions": list(manifest.expressions),
        "presets": list(manifest.presets),
        "finds_faces": manifest.detector is not None,
        "license": manifest.license,
        "providers": providers,
        "fallbacks": fallbacks,
        "warm": any(bool(facts.get("warm")) for facts in running),
    }


def is_warm(facts: Mapping[str, Any]) -> bool:
    """Return whether a worker has told of a model that is loaded and warm."""
    models = facts.get("models")
    return isinstance(models, Mapping) and any(isinstance(m, Mapping) and m.get("warm") for m in models.values())


def _facts_of(worker: Mapping[str, Any], manifest: Manifest) -> Mapping[str, Any] | None:
    models = worker.get("models")
    facts = models.get(manifest.id) if isinstance(models, Mapping) else None
    if not isinstance(facts, Mapping) or facts.get("sha256") != manifest.sha256:
        return None
    return facts


def _providers(facts: Mapping[str, Any]) -> Sequence[str]:
    providers = facts.get("providers")
    if isinstance(providers, Mapping):
        return [str(name) for name in providers.values()]
    return _list_of(facts, "providers")


def _list_of(facts: Mapping[str, Any], name: str) -> Sequence[str]:
    told = facts.get(name)
    return [str(word) for word in told] if isinstance(told, list | tuple) else []
