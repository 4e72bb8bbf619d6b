"""A decoder that does what the clip's name says, and nothing good: started by the tests in the real worker's place.

Speaks the worker's protocol (providers/media_worker.py) without importing anything of ours, so it starts at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

FACTS = {
    "duration_seconds": 1.0,
    "width": 4,
    "height": 2,
    "frames_per_second": 25.0,
    "video_codec": "h264",
    "has_audio": False,
    "size_bytes": 1,
}


def say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def misbehave(name: str) -> None:
    match name:
        case "hangs":
            time.sleep(600)
        case "works for long":
            say(frames=1_000_000_000, megapixels=1e9)
            time.sleep(600)
        case "ends":
            sys.exit(3)
        case "ends in peace":
            sys.exit(0)
        case "babbles":
            sys.stdout.write("Segmentation violation\n" * 3)
        case "answers with a list":
            say_list = json.dumps([1, 2, 3])
            sys.stdout.write(say_list + "\n")
        case "lies about the facts":
            say(facts={**FACTS, "width": "wide"})
            say(done=True)
        case "shows a giant":
            say(picture=[100_000, 100_000, 3])
        case "shows half a picture":
            say(picture=[4, 4, 3])
            sys.stdout.write("x" * 10)
            sys.stdout.flush()
            sys.exit(1)
        case "shows too many":
            for _ in range(3):
                say(picture=[1, 1, 3])
                sys.stdout.write("xyz")
            say(done=True)
        case "raises what is not ours":
            say(error="SystemExit", message="bye")
        case "refuses":
            say(error="BadTrainingSet", message="No.")
        case "has no memory":
            say(out_of_memory=True)
        case "stumbles":
            say(stumbled="ZeroDivisionError", trace="Traceback: many lines")
        case "looks around":
            say(facts={**FACTS, "video_codec": json.dumps([dict(os.environ), str(Path.cwd())])})
            say(done=True)
        case _ if name.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, name))
        case _:
            say(facts=FACTS)
            say(done=True)
    sys.stdout.flush()


if __name__ == "__main__":
    if "does not start" in sys.argv:
        sys.exit(1)
    say(ready=os.getpid())
    for line in sys.stdin:
        misbehave(Path(json.loads(line)["path"]).stem)
