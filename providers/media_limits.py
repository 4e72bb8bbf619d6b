"""What decoding one clip may take: seconds, memory, bytes written, open files; and how a process binds itself to it.

The numbers are generous for honest clips and final for the others: they end a hang, they do not hurry anybody.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time

from domain.records import Record

_MEGABYTE = 1_000_000
_MOST_THREADS = 16
"""ffmpeg's own ceiling for automatic decoding threads."""


class DecodingLimits(Record):
    """The limits of one decoding process and of each clip in it. Seconds are by the clock on the wall."""

    base_seconds: float = 60.0
    """For any clip, however small: opening it, and a machine that is busy with something else."""

    seconds_per_megabyte: float = 2.0
    """Reading packets from a slow disk. A phone's clip is about 2 MB a second (embedded_parts.md section 3)."""

    seconds_per_megapixel: float = 0.05
    """For each decoded frame: H.264 takes about 0.004 of one core (7.8 ms for 1080p, embedded_parts.md section 3)."""

    longest_seconds: float = 7200.0
    """Whatever the clip is: its own numbers may be lies."""

    memory_bytes: int = 4 << 30
    """Address space (RLIMIT_AS). Measured peaks with 16 threads and two malloc arenas: 1080p H.264 0.6 GB, 4K HEVC
    10-bit 1.2 GB, 8K HEVC 10-bit 3.1 GB; without the limit on arenas 8K reserves 4.0 GB and uses 2.7 all the same."""

    file_bytes: int = 100 << 20
    """The largest file it may write (RLIMIT_FSIZE): as large as the largest picture we read."""

    open_files: int = 64

    def seconds_for(self, size_bytes: int, frames: int = 0, megapixels: float = 0.0) -> float:
        """How long a clip of this size may take; with its frames and their size once they are known."""
        wanted = (
            self.base_seconds
            + self.seconds_per_megabyte * size_bytes / _MEGABYTE
            + self.seconds_per_megapixel * frames * megapixels
        )
        return min(self.longest_seconds, wanted)


def bind_this_process(limits: DecodingLimits) -> None:
    """Hold this process to the limits for good, and let it leave no core file.

    macOS accepts the one on memory and does not keep to it; there the clock alone ends a clip that eats memory.
    """
    for which, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    ):
        _, ceiling = resource.getrlimit(which)
        bound = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (bound, bound))


def allow_processor_seconds(seconds: float) -> None:
    """From now on this process may use so many more seconds on each core it decodes on, and is ended by SIGXCPU after.

    The waiting parent's clock strikes first; this one holds where nobody waits any more.
    """
    cores = min(os.cpu_count() or 1, _MOST_THREADS)
    _, ceiling = resource.getrlimit(resource.RLIMIT_CPU)
    bound = int(time.process_time() + seconds * cores) + 1
    bound = bound if ceiling == resource.RLIM_INFINITY else min(bound, ceiling)
    resource.setrlimit(resource.RLIMIT_CPU, (bound, ceiling))
