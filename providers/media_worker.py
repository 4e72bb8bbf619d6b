"""The child's side of decoding: reads orders on stdin, opens the clips, answers on stdout.

Started as `python -m providers.media_worker LIMITS`, with a `DecodingLimits` in JSON. One order is one line of JSON:
`call`, `path` and the call's own words. An answer is lines of JSON, each with one key that says what it is; after a
`picture` line follow its pixels, height × width × 3 bytes. The last line of an answer is `done`, `error` (one of our
own), `out_of_memory` or `stumbled`. Nothing is pickled: this process has read bytes that anybody may have made.
It ends when stdin closes, wherever the decoder is, so it does not outlive its parent.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import av

from domain.errors import NotConfigured, OnModelError
from providers import media_frames, media_probe
from providers.media_harvest import harvest_clip
from providers.media_limits import DecodingLimits, allow_processor_seconds, bind_this_process
from providers.ports import RgbImage

Order = dict[str, Any]


class Answers:
    """Where the answers go. Libraries that print find only /dev/null on stdout."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)

    def say(self, **words: object) -> None:
        """One line. JSON in ASCII, so that a file name that is no Unicode passes too."""
        self._out.write(json.dumps(words).encode() + b"\n")
        self._out.flush()

    def show(self, image: RgbImage, **measures: object) -> None:
        """A picture with its measures."""
        self._out.write(json.dumps({"picture": list(image.shape), **measures}).encode() + b"\n")
        self._out.write(image.data)
        self._out.flush()


def main() -> NoReturn:
    """Serve orders until stdin closes."""
    answers = Answers()
    limits = DecodingLimits.model_validate_json(sys.argv[1]) if len(sys.argv) > 1 else DecodingLimits()
    # A module imported later would be written to its cache under a limit on files: cut off, and broken for everybody.
    sys.dont_write_bytecode = True
    bind_this_process(limits)
    orders: queue.Queue[Order] = queue.Queue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    answers.say(ready=os.getpid())
    while True:
        _carry_out(orders.get(), limits, answers)


def _read_orders(orders: queue.Queue[Order]) -> None:
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os._exit(0)  # the parent is gone or done with us, wherever the decoder is


def _carry_out(order: Order, limits: DecodingLimits, answers: Answers) -> None:
    try:
        allow_processor_seconds(limits.seconds_for(order["size_bytes"]))
        _CALLS[order["call"]](order, limits, answers)
    except OnModelError as error:
        answers.say(error=type(error).__name__, message=error.message)
    except MemoryError:
        answers.say(out_of_memory=True)
    except OSError as error:
        if isinstance(error, av.FFmpegError) or "folder" not in order or error.errno == errno.EFBIG:
            answers.say(stumbled=type(error).__name__, trace=traceback.format_exc())
        else:  # the disk's fault, not the clip's
            told = (
                f"{order['folder']} cannot be written ({error.strerror}); free some space there, or see to its rights."
            )
            answers.say(error=NotConfigured.__name__, message=told)
    except Exception as error:  # noqa: BLE001 - whatever a hostile clip brings to light ends here, in words
        answers.say(stumbled=type(error).__name__, trace=traceback.format_exc())
    else:
        answers.say(done=True)
    finally:
        media_probe.free_decoders()


def _tell_work(order: Order, limits: DecodingLimits, answers: Answers) -> Path:
    """Count the clip's frames and say so, for both clocks, before any is decoded (38,000 a second); the clip's path."""
    path = Path(order["path"])
    with media_probe.open_clip(path) as container:
        stream = media_probe.video_stream(container, path)
        frames = media_probe.scan_packets(container, stream, path).frame_count
        megapixels = stream.codec_context.width * stream.codec_context.height / 1e6
    answers.say(frames=frames, megapixels=megapixels)
    allow_processor_seconds(limits.seconds_for(order["size_bytes"], frames, megapixels))
    return path


def _probe_clip(order: Order, _limits: DecodingLimits, answers: Answers) -> None:
    answers.say(facts=media_probe.probe_clip(Path(order["path"])).model_dump(mode="json"))


def _frames_at(order: Order, limits: DecodingLimits, answers: Answers) -> None:
    for image in media_frames.frames_at(_tell_work(order, limits, answers), order["times"]):
        answers.show(image)


def _harvest(order: Order, limits: DecodingLimits, answers: Answers) -> None:
    path = _tell_work(order, limits, answers)
    answers.say(harvest=harvest_clip(path, Path(order["folder"]), order["wanted"]).model_dump(mode="json"))


_CALLS: dict[str, Callable[[Order, DecodingLimits, Answers], None]] = {
    "probe_clip": _probe_clip,
    "frames_at": _frames_at,
    "harvest": _harvest,
}

if __name__ == "__main__":
    main()
