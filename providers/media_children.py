"""The decoding processes of this process: kept warm, shared by its threads, and replaced when a clip ends one.

A clip can hang a decoder, crash it or eat all memory. Here that costs one process: the caller gets `BadInput` with one
sentence, and the next clip a fresh process. Starting one takes about 0.25 s (its imports), so they are used again.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from domain import errors
from domain.errors import BadInput, OnModelError
from providers.media_child import WORKER, Child, ChildConfused, ChildLost, ChildTooSlow, Part
from providers.media_limits import DecodingLimits

log = logging.getLogger("onmodel.media")

_AT_MOST = 2
"""Children at once: each decodes on all cores, so more would only take memory."""

_ORDERS_PER_CHILD = 500
_LARGEST_RESTING_BYTES = 256 << 20
"""A child that holds more between two clips is replaced. Measured at rest: 98 MB after 1080p H.264, 258 MB after 4K
with 16 reference frames (glibc gives such pieces back late or never)."""

_ERRORS: dict[str, type[OnModelError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, OnModelError) and kind is not OnModelError
}
"""The only classes a child's word can raise here."""

_CONVERT = "convert it to H.264 in an MP4 or leave it out"


class MediaChildren:
    """The decoding processes of this process, two at most; its threads share them and wait for their turn.

    Safe from any thread, and after a fork the new process has children of its own. Close it when done.
    """

    def __init__(
        self,
        limits: DecodingLimits | None = None,
        *,
        worker: Sequence[str] = WORKER,
        at_most: int = _AT_MOST,
        orders_per_child: int = _ORDERS_PER_CHILD,
    ) -> None:
        self._limits = limits or DecodingLimits()
        self._worker = tuple(worker)
        self._at_most = at_most
        self._orders_per_child = orders_per_child
        self._start_over()

    def ask(self, call: str, path: Path, **words: Any) -> Iterator[Part]:
        """Have a child carry out a call of `providers.media_worker` on a clip; its answer piece by piece.

        `BadInput` (and any other of our errors) as raised in the child, and `BadInput` with one sentence when the clip
        passed a limit or ended the child. The child is not free for others before the last piece; dropping the
        iterator earlier ends it. Safe to repeat. `NotConfigured` when no child can be started.
        """
        if self._owner != os.getpid():
            self._forget_children()
        turns = self._turns
        with turns:
            child = self._take()
            try:
                yield from self._answer(child, call, path, words)
            finally:
                self._give_back(child)

    def process_ids(self) -> list[int]:
        """The children that wait for a clip now."""
        with self._lock:
            return [child.process.pid for child in self._waiting]

    def close(self) -> None:
        """End the children that wait for work; those at work end with it. A later call starts new ones. Repeatable."""
        if self._owner != os.getpid():
            self._forget_children()
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
            self._closings += 1
        for child in waiting:
            child.end()

    def _start_over(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(self._at_most)
        self._waiting: list[Child] = []
        self._closings = 0

    def _forget_children(self) -> None:
        """After a fork: the children are our parent's, and so are the locks."""
        for child in self._waiting:
            child.forget()
        self._start_over()

    def _take(self) -> Child:
        with self._lock:
            closings = self._closings
            while self._waiting:
                child = self._waiting.pop()
                if child.process.poll() is None:
                    return child
                child.end()
        return Child(self._worker, self._limits, closings)

    def _give_back(self, child: Child) -> None:
        is_worn = child.orders >= self._orders_per_child or child.resting_bytes() > _LARGEST_RESTING_BYTES
        with self._lock:
            is_wanted = child.is_idle and not is_worn and child.closings == self._closings
            if is_wanted:
                self._waiting.append(child)
        if not is_wanted:
            child.end()

    def _answer(self, child: Child, call: str, path: Path, words: dict[str, Any]) -> Iterator[Part]:
        absolute = path.absolute()
        size_bytes = _size_bytes(absolute)
        child.send({"call": call, "path": _plain(absolute), "size_bytes": size_bytes, **words})
        child.seconds_left = allowed = self._limits.seconds_for(size_bytes)
        try:
            while True:
                part = child.read()
                match part.words:
                    case {"done": True}:
                        return
                    case {"frames": int(frames), "megapixels": int() | float() as megapixels}:
                        more = self._limits.seconds_for(size_bytes, frames, megapixels)
                        child.seconds_left += more - allowed
                        allowed = more
                    case {"error": _} | {"out_of_memory": _} | {"stumbled": _}:
                        raise self._refusal(path, absolute, part.words)
                    case _:
                        yield part
        except ChildTooSlow:
            raise BadInput(
                f"{path} took longer than {allowed:.0f} s to decode and was given up; cut it shorter, or {_CONVERT}."
            ) from None
        except ChildConfused:
            raise nonsense(path) from None
        except ChildLost:
            raise BadInput(_how_it_ended(path, child.exit_code())) from None

    def _refusal(self, path: Path, absolute: Path, words: dict[str, Any]) -> OnModelError:
        """The error for an answer that ends in one."""
        match words:
            case {"error": str(kind), "message": str(message)} if kind in _ERRORS:
                return _ERRORS[kind](message.replace(_plain(absolute), str(path)))
            case {"out_of_memory": True}:
                most = f"{self._limits.memory_bytes / 1e9:.1f} GB of memory"
                return BadInput(f"{path} needs more than {most} to decode; scale it down, or {_CONVERT}.")
            case {"stumbled": str(kind), "trace": str(trace)} if kind.isidentifier():
                log.debug("Decoding %s ended in\n%s", path, trace)
                return BadInput(f"{path} cannot be decoded (it led to {kind[:80]}); {_CONVERT}.")
            case _:
                return nonsense(path)


def nonsense(path: Path) -> BadInput:
    """The error for an answer that a sound decoder does not give."""
    return BadInput(f"{path} made the decoder answer nonsense; {_CONVERT}.")


@cache
def shared_children() -> MediaChildren:
    """The children of this process, ended with it. Starts none before the first clip."""
    children = MediaChildren()
    atexit.register(children.close)
    return children


def _how_it_ended(path: Path, code: int | None) -> str:
    """The sentence for a clip whose child did not come back with an answer."""
    match code:
        case None:
            return f"{path} made the decoder stop answering; {_CONVERT}."
        case _ if code == -signal.SIGXCPU:
            return f"{path} took more processor time than a clip of its size may; cut it shorter, or {_CONVERT}."
        case _ if code == -signal.SIGKILL:
            return (
                f"{path} was being decoded when the system ended the decoder (SIGKILL), as it does when memory runs "
                f"out; free some memory and try again, or {_CONVERT}."
            )
        case _ if code < 0:
            name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
            return f"{path} made the decoder crash ({name}); {_CONVERT}."
        case _:
            return f"{path} made the decoder end (exit code {code}); {_CONVERT}."


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _plain(path: Path) -> str:
    """A path as the child will hold it: our bytes for it, read as UTF-8 (the child runs with -X utf8)."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")
