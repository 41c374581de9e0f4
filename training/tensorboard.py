"""Figures of a run as TensorBoard reads them, written without TensorBoard: `tensorboard --logdir RUN` shows them.

An event file is a row of records: length, its checksum, a protobuf message, its checksum. Only scalars are written;
stats.jsonl has the same figures and stays the record. Standard library only.
Source: tensorflow/core/util/event.proto and framework/summary.proto.
"""

import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from training.files import tell_full_disk


@cache
def _table() -> tuple[int, ...]:
    """CRC-32C, one entry a byte."""
    entries = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)


def crc32c(data: bytes) -> int:
    """Give the CRC-32C (Castagnoli) of some bytes."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def mask_crc(crc: int) -> int:
    """Turn and shift a checksum, as records keep it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(data: bytes) -> bytes:
    """Put a message into a record."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", mask_crc(crc32c(length))), data, struct.pack("<I", mask_crc(crc32c(data))))
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def encode_event(wall_time_s: float, step: int, figures: Mapping[str, float]) -> bytes:
    """Give an Event message with one scalar a figure."""
    values = b"".join(
        _field(1, _field(1, name.encode()) + b"\x15" + struct.pack("<f", value)) for name, value in figures.items()
    )
    return b"\x09" + struct.pack("<d", wall_time_s) + b"\x10" + _varint(step) + _field(5, values)


class EventFile:
    """Appends figures to a new event file in a folder."""

    def __init__(self, folder: Path) -> None:
        with tell_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            now = time.time()
            self.path = folder / f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
            version = b"\x09" + struct.pack("<d", now) + _field(3, b"brain.Event:2")
            self.path.write_bytes(frame_record(version))

    def add(self, record: Mapping[str, float]) -> None:
        """Add a record of stats.jsonl; its `step` is the step.

        Raises: DiskFullError.
        """
        figures = {name: value for name, value in record.items() if name != "step" and math.isfinite(value)}
        with tell_full_disk(self.path), self.path.open("ab") as file:
            file.write(frame_record(encode_event(time.time(), int(record["step"]), figures)))
