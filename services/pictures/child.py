"""The decoding child: ``python -m services.pictures.child DESCRIPTOR PARENT_PID MEMORY_BYTES``.

It loads Pillow, locks itself in, says which fences hold, then decodes one picture after another until the connection
ends. A picture that makes it crash, swell or spin ends this process and nothing else. It speaks in plain structs, so
that the parent parses nothing that a picture could have made.

::

    ORDER   format (index into FORMATS), CPU milliseconds, most pixels, length · the picture's bytes
    ANSWER  1 if decoded, width, height · width × height × 3 bytes of RGB
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from typing import BinaryIO, cast

from services.parentage import die_with_parent
from services.pictures.decoding import FORMATS, UndecodableError, decode, rehearse
from services.pictures.sandbox import lock_down

ORDER = struct.Struct("!BIQQ")
ANSWER = struct.Struct("!BII")
READY = struct.Struct("!B")


def main(arguments: list[str]) -> int:
    """Serve the parent at the other end of the inherited socket."""
    descriptor, parent_pid, memory_bytes = map(int, arguments)
    die_with_parent(parent_pid)
    # Ctrl-C reaches the whole terminal group, but when to stop is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rehearse()
    # Plain reads and writes: a filter that knows no socket call at all is a short one.
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        connection = cast(BinaryIO, stream)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stderr.fileno())
        os.close(silence)
        fences = lock_down(memory_bytes)
        try:
            write_all(connection, READY.pack(fences))
            while True:
                _take(connection)
        except (EOFError, ConnectionError):
            return 0


def _take(connection: BinaryIO) -> None:
    kind, cpu_ms, max_pixels, length = ORDER.unpack(read_exactly(connection, ORDER.size))
    data = read_exactly(connection, length)
    # Counts what the processor spends on us, so a machine that is busy elsewhere costs nobody his picture; its signal
    # ends the process.
    signal.setitimer(signal.ITIMER_PROF, cpu_ms / 1000)
    try:
        pixels = decode(data, FORMATS[kind], max_pixels)
    except UndecodableError:
        write_all(connection, ANSWER.pack(0, 0, 0))
    else:
        write_all(connection, ANSWER.pack(1, pixels.width, pixels.height))
        write_all(connection, pixels.rgb)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def read_exactly(connection: BinaryIO, length: int) -> bytearray:
    """Return the next ``length`` bytes. Raises: EOFError when the other end is closed."""
    buffer = bytearray(length)
    view, filled = memoryview(buffer), 0
    while filled < length:
        got = connection.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        filled += got
    return buffer


def write_all(connection: BinaryIO, data: bytes) -> None:
    """Write all bytes, however many calls it takes. Raises: ConnectionError."""
    view = memoryview(data)
    while view:
        view = view[connection.write(view) :]


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
