"""One decoding process and the pipe to it: started with a bare environment, read with a clock, killed when it must be.

What it says is not believed: lines have a longest length, pictures a largest size, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from domain.errors import NotConfigured
from providers.media_limits import DecodingLimits
from providers.media_probe import MAX_SIDE_PIXELS
from providers.ports import RgbImage

WORKER = (sys.executable, "-P", "-X", "utf8", "-m", "providers.media_worker")

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""All that a child sees of our environment, and PYTHONPATH: no key, no address, no name of a person."""

_START_SECONDS = 60.0
_LONGEST_LINE_BYTES = 64 << 20
_READ_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20


class Part:
    """A piece of a child's answer: what it says, and its pixels where it is a picture."""

    def __init__(self, words: dict[str, Any], image: RgbImage | None = None) -> None:
        self.words = words
        self.image = image


class ChildLost(Exception):
    """The child ended in the middle of an answer."""


class ChildConfused(Exception):
    """The child said something that is no answer."""


class ChildTooSlow(Exception):
    """The child did not answer within its time."""


class Child:
    """One decoding process. `is_idle` is true between the end of one answer and the next order."""

    def __init__(self, worker: Sequence[str], limits: DecodingLimits, closings: int) -> None:
        self.closings = closings
        self.orders = 0
        self.is_idle = False
        self.seconds_left = _START_SECONDS
        self._held = bytearray()
        self.process = subprocess.Popen(
            [*worker, limits.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where ffmpeg's libraries talk to themselves
            bufsize=0,
            cwd="/",
            env=child_environment(os.environ),
            start_new_session=True,  # a Ctrl-C is for the parent; the child follows when its stdin closes
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        try:
            is_ready = "ready" in self.read().words
        except (ChildLost, ChildConfused, ChildTooSlow):
            is_ready = False
        except BaseException:
            self.end()
            raise
        if not is_ready:
            self.end()
            raise NotConfigured(
                f"The process that decodes clips did not start (exit code {self.process.returncode}); run "
                f"{sys.executable} -m providers.media_worker to see why, and install OnModel anew."
            )
        self.is_idle = True

    def send(self, order: dict[str, Any]) -> None:
        """Write an order. A child that is gone shows when its answer is read."""
        self.is_idle = False
        self.orders += 1
        with contextlib.suppress(BrokenPipeError):
            line = memoryview(json.dumps(order).encode() + b"\n")
            while line:
                line = line[self._in.write(line) or 0 :]

    def read(self) -> Part:
        """The next piece of the answer. Only the time spent waiting for it counts.

        `ChildLost`, `ChildConfused`, or `ChildTooSlow` once `seconds_left` are spent.
        """
        try:
            words = json.loads(self._line())
        except (ValueError, RecursionError):
            raise ChildConfused from None
        if not isinstance(words, dict):
            raise ChildConfused
        if "picture" in words:
            return Part(words, self._pixels(words["picture"]))
        if words.keys() & {"done", "error", "stumbled"}:
            self.is_idle = not self._held  # whoever goes on talking after the end is not asked again
        return Part(words)

    def exit_code(self) -> int | None:
        """How it ended; None when it did not, which leaves it to `end`."""
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            return None

    def resting_bytes(self) -> int:
        """Memory it holds in RAM now; 0 where the system does not tell (macOS) and when it is gone."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def end(self) -> None:
        """Kill it, wherever it is. Repeatable."""
        self.process.kill()
        self._in.close()
        self._out.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)

    def forget(self) -> None:
        """Let go of what a fork inherited, without touching the process: it is not ours."""
        self._in.close()
        self._out.close()
        self.process.returncode = 0

    def _line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > _LONGEST_LINE_BYTES:
                raise ChildConfused
            self._wait()
            piece = os.read(self._out.fileno(), _READ_BYTES)
            if not piece:
                raise ChildLost
            self._held += piece
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def _pixels(self, shape: object) -> RgbImage:
        match shape:
            case [int(height), int(width), 3] if 0 < height <= MAX_SIDE_PIXELS and 0 < width <= MAX_SIDE_PIXELS:
                image: RgbImage = np.empty((height, width, 3), np.uint8)
            case _:
                raise ChildConfused
        left = image.data.cast("B")
        held = min(len(self._held), len(left))
        left[:held] = self._held[:held]
        del self._held[:held]
        left = left[held:]
        while left:
            self._wait()
            count = os.readv(self._out.fileno(), [left])
            if not count:
                raise ChildLost
            left = left[count:]
        return image

    def _wait(self) -> None:
        started = time.monotonic()
        is_there = self._poll.poll(max(0.0, self.seconds_left) * 1000)
        self.seconds_left -= time.monotonic() - started
        if not is_there:
            raise ChildTooSlow


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child sees: where programs and packages lie, and nothing that was told to us in confidence."""
    packages = [str(_PACKAGE_ROOT), *filter(None, [environ.get("PYTHONPATH")])]
    kept = {name: environ[name] for name in _KEPT_ENVIRONMENT if name in environ}
    # Address space is limited, so none is wasted (measured): two malloc arenas take a third of what one for each thread
    # does, at the same speed; OpenBLAS, which decoding has no use for, reserves 40 MB for each core it may use.
    thrift = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
    return {**kept, **thrift, "PYTHONPATH": os.pathsep.join(packages)}
