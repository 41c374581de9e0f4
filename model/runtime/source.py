"""One ONNX file on its way into a runtime. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class GraphSource:
    """A file's checked bytes.

    Args:
        graph: its name in messages; a file of several graphs has that of the first one opened.
        data: the ONNX file.
        shapes: its inputs' shapes as the manifest gives them; letters are sizes that differ from call to call.
    """

    graph: str
    data: bytes
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """What caches are named after."""
        return hashlib.sha256(self.data).hexdigest()
