"""A hand-written ComfyUI on loopback: takes prompts, walks them through queue and history, and fails where told.

It listens on a real socket, so that adapters in other processes can use its `url`. Time never passes in it: a job moves
on by one place each time GET /queue has shown it.
"""

from __future__ import annotations

import email
import io
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from tests.media_samples import drawn_frame

BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
FAULTS = ("429", "500", "502", "404", "malformed", "drop", "stall", "late", "truncate")
FATES = ("done", "error", "interrupted", "unknown", "cached", "endless", "vanish")
"""How a job ends: "unknown" in a word nobody knows, "cached" without a file, "endless" never; "vanish" is nowhere."""


@dataclass
class Fault:
    """What goes wrong at the `nth` request (from 1; None is every one) to a route such as "POST /prompt".

    `accepts`: the request is carried out before that, as when only its answer is lost. "stall" says nothing until
    `release()`, then hangs up; "late" carries the request out after `release()`; "truncate" promises a whole file,
    sends half and hangs up.
    """

    route: str
    fault: str
    nth: int | None = 1
    accepts: bool = False
    retry_after: float | None = None

    def __post_init__(self) -> None:
        assert self.fault in FAULTS, self.fault


@dataclass
class Seen:
    """One request as it arrived."""

    route: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Job:
    """A prompt that was taken: where it is ("pending", "running", "over", "gone") and how it is to end."""

    prompt_id: str
    number: int
    prompt: dict[str, Any]
    fate: str
    file_name: str
    place: str = "pending"

    @property
    def at_last(self) -> str:
        return "running" if self.fate == "endless" else "over"

    def item(self) -> list[Any]:
        return [self.number, self.prompt_id, self.prompt, {}, ["9"]]


class ComfyUiStandin(ThreadingHTTPServer):
    """A running stand-in, as a context manager. Set `plan`, `fate`, `places` and `on_request` at any time.

    `accepted` are the prompt ids it took, one per POST that was carried out: what a vendor would charge. `on_request`
    is called in this process with (route, phase): "before" anything is done, when the request was "accepted", and when
    it is "answered" in full.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, output: bytes | None = None, *, suffix: str = ".png", is_new: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.output = png_bytes() if output is None else output
        self.suffix = suffix
        self.is_new = is_new  # newer servers take canonical UUIDs only
        self.plan: list[Fault] = []
        self.fate = "done"  # of the jobs to come
        self.places = ["pending", "running"]  # what GET /queue shows of a job, look by look
        self.honours_range = True
        self.accepted: list[str] = []
        self.cancelled: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.seen: list[Seen] = []
        self.on_request: Callable[[str, str], None] = lambda route, phase: None
        self.jobs: list[Job] = []
        self.lock = threading.RLock()
        self.count: Counter[str] = Counter()
        self.released = threading.Event()

    def __enter__(self) -> ComfyUiStandin:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.002}).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the play."""

    def release(self) -> None:
        """Let every stalled answer go, now and from now on."""
        self.released.set()

    def restart(self) -> None:
        """As a restarted ComfyUI: queue and history are gone, output files and what was accepted are not."""
        for job in self.jobs:
            job.place = "gone"

    def asked(self, route: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.route == route]

    def fault_of(self, route: str) -> Fault | None:
        with self.lock:
            self.count[route] += 1
            nth = self.count[route]
            return next((rule for rule in self.plan if rule.route == route and rule.nth in (None, nth)), None)

    # --- what ComfyUI does ---

    def reply(self, seen: Seen) -> tuple[int, Any]:
        """Carry a request out: status, and JSON, or bytes as they are."""
        with self.lock:
            match seen.route:
                case "POST /prompt":
                    return self._take(json.loads(seen.body))
                case "GET /queue":
                    return 200, self._queue()
                case "GET /history":
                    prompt_id = seen.path.rpartition("/")[2]
                    over = [job for job in self.jobs if job.prompt_id == prompt_id and job.place == "over"]
                    return 200, {job.prompt_id: self._entry(job) for job in over}
                case "POST /queue":
                    return self._stop(json.loads(seen.body)["delete"], "pending", "gone")
                case "POST /interrupt":
                    return self._stop([json.loads(seen.body)["prompt_id"]], "running", "over")
                case "POST /upload/image":
                    return self._upload(seen)
                case "GET /view":
                    names = {job.file_name for job in self.jobs if job.fate == "done"}
                    return (200, self.output) if seen.query["filename"] in names else (404, b"")
                case "GET /system_stats":
                    return 200, {"system": {"comfyui_version": "0.36.0" if self.is_new else "0.3.64"}, "devices": []}
        return 404, b"404: Not Found"

    def _take(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt_id = body.get("prompt_id") or str(uuid.uuid4())
        if self.is_new and str(uuid.UUID(prompt_id)) != prompt_id:
            return 400, {"error": {"type": "invalid_prompt_id", "message": "prompt_id must be a valid UUID"}}
        wrong = {
            node_id: {"errors": [{"type": "value_not_in_list", "message": "Value not in list", "details": "x"}]}
            | {"class_type": node["class_type"], "dependent_outputs": ["9"]}
            for node_id, node in body["prompt"].items()
            if node["class_type"].startswith("Broken")
        }
        if wrong and len(wrong) == len(body["prompt"]):
            error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
            return 400, {"error": error, "node_errors": wrong}
        job = Job(prompt_id, len(self.jobs), body["prompt"], self.fate, f"made_{len(self.jobs):05}_{self.suffix}")
        job.place = "gone" if job.fate == "vanish" else next(iter(self.places), job.at_last)
        self.jobs.append(job)
        self.accepted.append(prompt_id)
        return 200, {"prompt_id": prompt_id, "number": job.number, "node_errors": wrong}

    def _queue(self) -> dict[str, Any]:
        places = {place: [job for job in self.jobs if job.place == place] for place in ("running", "pending")}
        shown = {f"queue_{place}": [job.item() for job in jobs][::-1] for place, jobs in places.items()}
        for job in (*places["running"], *places["pending"]):
            later = self.places[self.places.index(job.place) + 1 :] if job.place in self.places else []
            job.place = next(iter(later), job.at_last)
        return shown

    def _stop(self, prompt_ids: list[str], place: str, then: str) -> tuple[int, bytes]:
        for job in self.jobs:
            if job.prompt_id in prompt_ids and job.place == place:
                job.place, job.fate = then, "interrupted"
                self.cancelled.append(job.prompt_id)
        return 200, b""

    def _entry(self, job: Job) -> dict[str, Any]:
        word = {"done": "success", "cached": "success", "unknown": "melted"}.get(job.fate, "error")
        about = {"prompt_id": job.prompt_id, "node_id": "3", "node_type": "KSampler"}
        cached = sorted(job.prompt) if job.fate == "cached" else []
        fault = about | {"exception_type": "torch.OutOfMemoryError", "exception_message": "no memory\nleft"}
        end = {"error": ["execution_error", fault], "interrupted": ["execution_interrupted", about]}
        messages = [["execution_cached", {"nodes": cached}], end.get(job.fate, ["execution_success", about])]
        files = [{"filename": job.file_name, "subfolder": "", "type": "output"}]
        moving = {} if self.suffix == ".png" else {"animated": [True]}
        outputs = {"9": {"images": files} | moving} if job.fate == "done" else {}
        status = {"status_str": word, "completed": word == "success", "messages": messages}
        return {"prompt": job.item(), "outputs": outputs, "status": status, "meta": {}}

    def _upload(self, seen: Seen) -> tuple[int, Any]:
        head = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode()
        parts: Any = email.message_from_bytes(head + seen.body).get_payload()
        sent = {part.get_param("name", header="content-disposition"): part for part in parts}
        name, content = sent["image"].get_filename(), sent["image"].get_payload(decode=True)
        subfolder = sent["subfolder"].get_payload()
        if self.uploaded.setdefault(f"{subfolder}/{name}", content) != content:
            name = f"{Path(name).stem} (1){Path(name).suffix}"
            self.uploaded[f"{subfolder}/{name}"] = content
        return 200, {"name": name, "subfolder": subfolder, "type": "input"}


class _Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement
    server: ComfyUiStandin

    def _play(self) -> None:
        comfy, url = self.server, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = "/history" if url.path.startswith("/history/") else url.path
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(f"{self.command} {path}", url.path, query, headers, body)
        comfy.seen.append(seen)
        fault = comfy.fault_of(seen.route)
        name = fault.fault if fault else ""
        comfy.on_request(seen.route, "before")
        if name == "late":
            comfy.released.wait(30)
        code: int = 200
        answer: Any = b""
        if fault is None or fault.accepts or name in ("truncate", "late"):
            code, answer = comfy.reply(seen)
            comfy.on_request(seen.route, "accepted")
        if name == "stall":
            comfy.released.wait(30)
        match name:
            case "drop" | "stall":
                self.close_connection = True
                return
            case "429":
                asked = {} if fault is None or fault.retry_after is None else {"retry_after": fault.retry_after}
                code, answer = 429, {"detail": "Request was throttled."} | asked
            case "500" | "404":
                code, answer = int(name), b"Server got itself in trouble"
            case "502":
                code, answer = 502, BAD_GATEWAY
            case "malformed":
                code, answer = 200, b'{"prompt_id": "12'
        self._answer(code, answer, headers, is_cut=name == "truncate")
        comfy.on_request(seen.route, "answered")

    def _answer(self, code: int, answer: Any, headers: dict[str, str], *, is_cut: bool) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        begin = int(headers.get("range", "bytes=0-")[6:-1]) if self.server.honours_range else 0
        self.send_response(206 if begin and code == 200 else code)
        if begin and code == 200:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            data = data[begin:]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if is_cut else data)
        self.wfile.flush()
        self.close_connection = is_cut

    do_GET = do_POST = _play

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@cache
def png_bytes() -> bytes:
    """A real small picture."""
    file = io.BytesIO()
    Image.fromarray(drawn_frame(3)).save(file, "PNG")
    return file.getvalue()
