"""The program that trains on a machine of ours: data in, trainer run and watched, results out, and the machine's end.

Standard library alone (Python 3.10 on): `worker_job.worker_source()` makes one text of it and of the four files it
imports, which goes to a rented pod. There the job stands in ONMODEL_JOB (base64 of gzipped JSON, `WorkerJob`), and
when everything is over the pod is deleted and this program never returns: a container whose command returns is started
again, and bills (runpod_trainers.md 0.5). On one's own machine: `python worker.py --no-pod JOB.json`, which returns 0
when it trained, 1 when not, 143 when it was stopped by SIGTERM. Addresses are http(s) links, file:// links or paths.

A restart changes nothing: a final status found at `status_read_url` means straight to the end, `deadline` is absolute.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from providers.trainers.logs import last_words, progress_of, trouble_in
from providers.trainers.worker_files import BadData, safetensors_problem, sha256_of, steps_in, unpack
from providers.trainers.worker_machine import DEADLINE_MARGIN_SECONDS, end_group, gpu_use, guard, leave_for_good
from providers.trainers.worker_web import BROKEN, HTTP_SECONDS, PATIENCE, Web

HEARTBEAT_SECONDS = 30.0
STARTS_ALLOWED = 3
"""A container started more often than this trains no more: each start begins the training anew, and bills."""
SHORT_BY = 0.02
"""By how much of its steps a training may seem to fall short: bars are printed every so often. Ours."""
TAIL_BYTES = 128 * 1024
LOG_BYTES = 20 * 1024 * 1024
LARGEST_DATASET_BYTES = 8 * 1024**3
KEPT_FROM_TRAINERS = ("RUNPOD_API_KEY", "ONMODEL_JOB", "ONMODEL_PLACES")
"""Variables that the trainer, a stranger's program, has no business with: our links and the machine's key."""


class Lost(Exception):
    """The training is over without a result; the text is one sentence, and `state` "failed" or "cancelled"."""

    state = "failed"


class Stopped(Lost):
    """Somebody asked this program to stop, on their own machine."""

    state = "cancelled"


# --- the job ---


def read_job(arguments: list[str], environ: dict[str, str]) -> dict[str, Any]:
    """The job from the file that is named, else from ONMODEL_JOB; with ONMODEL_PLACES its folders are put elsewhere.

    `Lost` when there is none that can be read.
    """
    paths = [argument for argument in arguments if not argument.startswith("--")]
    try:
        if paths:
            text = Path(paths[0]).read_text("utf-8")
        else:
            text = gzip.decompress(base64.b64decode(environ["ONMODEL_JOB"], validate=True)).decode()
        job: dict[str, Any] = json.loads(text)
        for source, target in json.loads(environ.get("ONMODEL_PLACES") or "{}").items():
            job = _moved(job, source, target)
        job["deadline"] = job.get("deadline") or int(environ.get("ONMODEL_DEADLINE") or 0) or None
        return {"commands": [], "results": [], "files": [], "total_steps": None, **job}
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise Lost(f"The job could not be read ({type(error).__name__}: {error}).") from None


def _moved(value: Any, source: str, target: str) -> Any:
    """Every path below `source` put below `target`; for machines that stand for a container and have no such folder."""
    if isinstance(value, dict):
        return {key: _moved(inner, source, target) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, source, target) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(rf"(?<![A-Za-z0-9_./-]){re.escape(source)}(?![A-Za-z0-9_.-])", lambda _: target, value)


# --- one run ---


class Run:
    """One job from its data to its results; `status` is what is told of it."""

    def __init__(self, job: dict[str, Any], web: Web) -> None:
        self.job, self.web = job, web
        self.state, self.phase = "running", "starting"
        self.facts: dict[str, Any] = {"total_steps": job["total_steps"]}
        self.starts = 1
        self.began_at = web.now()
        self.stop_reason: Lost | None = None
        self.over = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._tail = b""
        self._is_training = False
        self._steps_before = 0  # of the trainings that are over: a job may have two
        self.work = Path(job["work_folder"])
        self.work.mkdir(parents=True, exist_ok=True)
        self.log = (self.work / "onmodel-run.log").open("ab")

    # what is told

    def status(self) -> dict[str, Any]:
        return {
            "job": self.job["job"],
            "state": self.state,
            "phase": self.phase,
            "at": self.web.now(),
            "began_at": self.began_at,
            "starts": self.starts,
            **self.facts,
        }

    def tell(self, patience: tuple[float, ...] = ()) -> bool:
        """Put the status where it is read; False when it did not get there."""
        try:
            self.web.put(self.job["status_url"], json.dumps(self.status()).encode(), patience)
            return True
        except BROKEN as error:
            self.note(f"the status could not be told: {error}")
            return False

    def note(self, text: str) -> None:
        with contextlib.suppress(ValueError):  # the log is closed once it is uploaded
            self.log.write(f"[onmodel] {time.strftime('%H:%M:%S', time.gmtime())} {text}\n".encode())
            self.log.flush()

    def beat(self) -> None:
        """The heartbeat, until the run is over; and the deadline."""
        while not self.over.is_set():
            limit = self.job["deadline"]
            if limit is not None and self.web.now() > limit - DEADLINE_MARGIN_SECONDS:
                self.stop(Lost("Its hard stop came before it was done."))
            with self._lock:
                found = progress_of(self._tail.decode("utf-8", "replace")) if self._is_training else None
            if found is not None:
                self._note_progress(found)
            self.facts.update(gpu_use())
            self.tell()
            self.over.wait(self.job.get("heartbeat_seconds") or HEARTBEAT_SECONDS)

    def _note_progress(self, bar: tuple[int, int, float | None, float | None]) -> None:
        step, total, loss, left = bar
        self.facts.update(step=self._steps_before + step, loss=loss, seconds_left=left)
        self.facts["total_steps"] = self.job["total_steps"] or self._steps_before + total

    def stop(self, reason: Lost) -> None:
        """End the trainer; the first reason counts."""
        self.stop_reason = self.stop_reason or reason
        child = self._child
        if child is not None and child.poll() is None:
            end_group(child)

    # what is done

    def carry_out(self) -> None:
        """Everything up to the results' upload; `Lost` says why there are none."""
        if self.starts > STARTS_ALLOWED:
            raise Lost(f"The machine was started {self.starts - 1} times without coming to an end.")
        dataset = self.job["dataset"]
        self._step("fetching the data")
        archive = self.work / "onmodel-dataset.zip"
        try:
            self.web.fetch(dataset["url"], archive, LARGEST_DATASET_BYTES)
        except BROKEN as error:
            raise Lost(f"The data could not be fetched ({type(error).__name__}: {_short(error)}).") from None
        if sha256_of(archive) != dataset["sha256"]:
            raise Lost("The data that arrived is not the data that was ordered: its SHA-256 differs.")
        try:
            unpack(archive, Path(dataset["folder"]))
        except BadData as bad:
            raise Lost(str(bad)) from None
        archive.unlink()
        for file in self.job["files"]:
            target = Path(file["path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file["text"], "utf-8")
        for command in self.job["commands"]:
            self._step(command["name"])
            self._command(command)
        self._step("checking the results")
        results = [(result, path) for result in self.job["results"] if (path := self._result(result)) is not None]
        self._check_steps([path for _, path in results])
        self._step("uploading the results")
        self.facts["files"] = [self._upload(result["role"], path, result["url"]) for result, path in results]

    def _step(self, phase: str) -> None:
        if self.stop_reason is not None:
            raise self.stop_reason
        self.phase = phase
        self.note(phase)

    def _command(self, command: dict[str, Any]) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in KEPT_FROM_TRAINERS}
        try:
            child = subprocess.Popen(
                command["argv"],
                cwd=command.get("folder") or str(self.work),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment, **command.get("env", {})},
            )
        except OSError as error:
            raise Lost(f"{command['name']} could not be started ({_short(error)}).") from None
        self._child = child
        if self.stop_reason is not None:  # it came between the last look and this
            end_group(child)
        seconds = command.get("timeout_seconds")
        late = Lost(f"{command['name']} took longer than {seconds} s.")
        timer = threading.Timer(seconds, self.stop, [late]) if seconds else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            trouble = self._read(child, is_training=command.get("is_training", False))
            code = child.wait()
        finally:
            if timer is not None:
                timer.cancel()
            end_group(child)
            self._child = None
        if self.stop_reason is not None:
            raise self.stop_reason
        if trouble is not None and (code != 0 or command.get("is_training")):
            raise Lost(f"{command['name']}: {trouble}.")
        if code != 0:
            text = self._tail.decode("utf-8", "replace")
            said = last_words(text) or text.strip().rpartition("\n")[2] or "it said nothing"
            raise Lost(f"{command['name']} ended with {code}: {_short(said)}")

    def _read(self, child: subprocess.Popen[bytes], *, is_training: bool) -> str | None:
        """Keep what the program prints, until it ends or is in trouble; the trouble in words."""
        assert child.stdout is not None
        with self._lock:
            self._tail = b""
            self._is_training = is_training
        looked_at = 0.0
        trouble: str | None = None
        while chunk := os.read(child.stdout.fileno(), 65536):
            if self.log.tell() < LOG_BYTES:
                self.log.write(chunk)
            with self._lock:
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
            if trouble is None and time.monotonic() - looked_at > 0.5:
                looked_at = time.monotonic()
                trouble = trouble_in(self._tail.decode("utf-8", "replace"))
                if trouble is not None and is_training:
                    end_group(child)
        child.stdout.close()
        text = self._tail.decode("utf-8", "replace")
        found = progress_of(text) if is_training else None
        self._is_training = False
        if found is not None:
            self._note_progress(found)
            self._steps_before += found[0]
        return trouble or trouble_in(text)

    def _result(self, result: dict[str, Any]) -> Path | None:
        """The newest file a result's pattern names, checked; None where it need not be there."""
        paths = [
            Path(name)
            for name in glob.glob(result["glob"])  # noqa: PTH207 (an absolute pattern)
            if Path(name).is_file()
        ]
        if not paths:
            if result["is_required"]:
                raise Lost(f"The trainer ended well and left no {result['role']} ({Path(result['glob']).name}).")
            return None
        path = max(paths, key=lambda one: one.stat().st_mtime_ns)
        if path.suffix == ".safetensors" and (problem := safetensors_problem(path)):
            raise Lost(f"The {result['role']} that the trainer left is no whole file: {problem}.")
        return path

    def _check_steps(self, paths: list[Path]) -> None:
        wanted = self.job["total_steps"]
        # A trainer that shows no bar may still say in its file how far it came.
        seen = max(self.facts.get("step") or 0, sum(step or 0 for step in map(steps_in, paths)))
        if wanted and seen and seen < wanted - max(1, wanted * SHORT_BY):
            raise Lost(f"The trainer ended well after {seen} of {wanted} steps: it did not train to the end.")

    def _upload(self, role: str, path: Path, url: str) -> dict[str, Any]:
        entry = {"role": role, "name": path.name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        try:
            self.web.put(url, path)
        except BROKEN as error:
            raise Lost(f"The {role} could not be put into the store ({_short(error)}).") from None
        return entry

    def upload_log(self) -> None:
        """The log, without what may not be read in it; best effort."""
        self.log.close()
        path = self.work / "onmodel-run.log"
        data = path.read_bytes()[-LOG_BYTES:]
        for name in ("HF_TOKEN", "RUNPOD_API_KEY"):
            if len(secret := os.environ.get(name, "")) >= 8:
                data = data.replace(secret.encode(), b"**********")
        path.write_bytes(data or b"nothing was logged\n")
        try:
            self.facts.setdefault("files", []).append(self._upload("log", path, self.job["log_url"]))
        except Lost as error:
            self.facts["log_problem"] = str(error)


def work_off(job: dict[str, Any], web: Web, begin: Callable[[Run], None]) -> int:
    """Carry a job out and tell its end; 0 when it trained, 1 when not, 143 when it was stopped.

    `begin` is called with the run before it does anything, by which it can be stopped.
    """
    earlier = _earlier_status(job, web)
    if earlier.get("state") in ("done", "failed", "cancelled"):
        return 0 if earlier["state"] == "done" else 1
    run = Run(job, web)
    starts = earlier.get("starts")
    run.starts += starts if isinstance(starts, int) else 0
    begin(run)
    beats = threading.Thread(target=run.beat, daemon=True)
    beats.start()
    try:
        run.carry_out()
        ends_as, reason = "done", None
    except Lost as lost:
        ends_as, reason = lost.state, str(lost)
    except Exception as error:  # noqa: BLE001 (whatever it is, it must be told and the machine ended)
        ends_as, reason = "failed", f"The worker broke ({type(error).__name__}: {_short(error)})."
    run.note(f"{ends_as}: {reason or 'trained and uploaded'}")
    run.phase = "uploading the log"
    run.upload_log()
    run.over.set()
    beats.join(3 * HTTP_SECONDS)  # so that no heartbeat overtakes the end
    run.state, run.phase = ends_as, "over"
    run.facts.update(reason=reason, finished_at=web.now())
    run.tell(PATIENCE)
    return {"done": 0, "cancelled": 143}.get(ends_as, 1)


def heed_signals(run: Run, *, is_pod: bool) -> None:
    """End the run at SIGTERM and SIGINT. A rented machine that is stopped from outside has failed: its host went away,
    or somebody deletes it."""
    asked = Lost("The machine was stopped from outside.") if is_pod else Stopped("It was stopped.")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=run.stop, args=[asked]).start())


def _earlier_status(job: dict[str, Any], web: Web) -> dict[str, Any]:
    """What an earlier start of this very job told; empty where there was none."""
    try:
        found = json.loads(web.read(job.get("status_read_url") or job["status_url"]) or b"{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("job") == job["job"] else {}


def _short(words: object) -> str:
    return " ".join(str(words).split())[:300]


def main(arguments: list[str] | None = None) -> int:
    """Work a job off. On a pod it never returns; with `--no-pod` it returns an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    environ, web = dict(os.environ), Web()
    is_pod = "--no-pod" not in given
    try:
        job = read_job(given, environ)
        if is_pod:
            threading.Thread(target=guard, args=(job, web, environ), daemon=True).start()
        code = work_off(job, web, lambda run: heed_signals(run, is_pod=is_pod))
    except Exception as error:  # noqa: BLE001 (a machine that cannot even begin must still be given back)
        sys.stderr.write(f"[onmodel] {error}\n")
        code = 1
    if is_pod:
        leave_for_good(web, environ)
    return code


if __name__ == "__main__":
    sys.exit(main())
