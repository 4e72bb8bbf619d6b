"""Ctrl-C: said once, in one sentence, and then the command really ends, whatever its threads are waiting for.

Nothing needs to be tidied for the season's sake: the tables say at every line how far it is. What gets a moment is
Prefect, which would otherwise show the run as running.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from studio.telling import complain

INTERRUPTED = 130
GRACE_SECONDS = 2.0
SENTENCE = "Interrupted. Nothing is lost: the same command goes on where it was."


def leave_on_interrupt() -> None:
    """From now on Ctrl-C and SIGTERM end this process with exit code 130 within GRACE_SECONDS, without tracebacks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what signal.signal calls)
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: os._exit(INTERRUPTED))
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K")  # the terminal's own ^C
    complain(SENTENCE)
    _silence()
    end = threading.Timer(GRACE_SECONDS, os._exit, [INTERRUPTED])
    end.daemon = True
    end.start()
    raise KeyboardInterrupt


def _silence() -> None:
    """What libraries say while they are torn down is of no use to anybody."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
