"""A part of the embedded estate: `python -m streams.dev.child MODULE ARGUMENT…` runs the module as `python -m` would, for as long
as whoever started it lives.

The starter holds the other end of our standard input. Its end, be it by SIGKILL, closes that, and then this process ends in
order: nothing of a demo stays running.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_GRACE_S = 10.0


def main() -> None:
    """Runs the module named by the arguments."""
    threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_starter() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
