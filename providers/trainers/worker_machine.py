"""What the worker does to its machine: looks at the GPU, ends what it started, and gives a rented pod back.

Standard library alone: this text travels with worker.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from providers.trainers.worker_web import BROKEN, Web

DEADLINE_MARGIN_SECONDS = 300.0
"""How much earlier than `deadline`, which is the reaper's, the worker stops: the in-pod limit is the shorter one
(runpod_trainers.md 5.4), and what was logged has still to be uploaded."""
RUNPOD_URL = "https://api.runpod.io/v2"


def gpu_use() -> dict[str, Any]:
    """How busy the first GPU is; nothing where there is no nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, IndexError, subprocess.SubprocessError):
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        percent, used = (float(word) for word in said.splitlines()[0].split(","))
        return {"gpu_percent": percent, "gpu_memory_mb": used}
    return {}


def end_group(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to all that the program started, and SIGKILL to what is left after a while."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
        for _ in range(50):
            if child.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(child.pid, signal.SIGKILL)


def remove_machine(web: Web, environ: dict[str, str]) -> str:
    """Ask RunPod to delete this pod, else to stop it, which costs nothing without a mount (runpod_trainers.md 5.4).

    Whether the pod's own key may delete is not known: either answer is survived. What it came to, in a word.
    """
    base, pod = environ.get("ONMODEL_RUNPOD_URL") or RUNPOD_URL, environ.get("RUNPOD_POD_ID", "")
    headers = {"Authorization": f"Bearer {environ.get('RUNPOD_API_KEY', '')}", "Content-Type": "application/json"}
    stop = json.dumps({"action": "stop"}).encode()
    for method, path, body in (("DELETE", f"/pods/{pod}", None), ("POST", f"/pods/{pod}/action", stop)):
        request = urllib.request.Request(f"{base}{path}", data=body, headers=headers, method=method)  # noqa: S310
        try:
            web.open(request).close()
            return "deleted" if method == "DELETE" else "stopped"
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return "gone"
        except BROKEN:
            continue
    return "refused"


def leave_for_good(web: Web, environ: dict[str, str]) -> None:
    """Remove the machine, and never return: asked again each minute, because somebody pays for this one."""
    while True:
        sys.stderr.write(f"[onmodel] removing this pod: {remove_machine(web, environ)}\n")
        sys.stderr.flush()
        time.sleep(60)


def guard(job: dict[str, Any], web: Web, environ: dict[str, str]) -> None:
    """Whatever hangs, the machine ends itself in time: between this program's own stop and the reaper's."""
    limit = job["deadline"]
    if limit is not None:
        while web.now() < limit - DEADLINE_MARGIN_SECONDS / 2:
            time.sleep(min(30.0, max(1.0, limit - web.now())))
        leave_for_good(web, environ)
