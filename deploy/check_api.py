"""Health check of the API's container: ``/readyz`` must say that database, queue and store answer.

Standard library only: it runs every few seconds.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Return 0 when the API is ready, 1 with the reason otherwise."""
    url = f"http://127.0.0.1:{os.environ.get('ANIMATO_PORT', '8000')}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"{url}: {error.code} {error.read(2000).decode(errors='replace')}\n")
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
