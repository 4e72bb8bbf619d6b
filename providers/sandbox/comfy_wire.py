"""ComfyUI's server as a stand-in: prompts judged, queued, done by the workshop, told over the web socket, kept.

Wire: replicate_comfyui.md 3.1-3.4 (0.3.64, run; newer servers read). Other than the real one it runs as many prompts at
once as the workshop has runners, keeps its history over a restart, and refuses inputs and fields that nobody knows,
which the real one ignores: here a mistake of ours must show.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from providers.sandbox.comfy_answers import fault_answer, refused
from providers.sandbox.comfy_files import ComfyFiles
from providers.sandbox.comfy_graph import Wish, wish_of
from providers.sandbox.comfy_nodes import judge, node_book, object_info
from providers.sandbox.comfy_prompts import Prompt, Telling
from providers.sandbox.faults import parse_faults
from providers.sandbox.journal import Outcome, Phase
from providers.sandbox.lora_marks import bases_of
from providers.sandbox.parts import Stage
from providers.sandbox.wire import Reply, Request

HOST = "comfyui.sandbox"
VERSION = "0.36.0"
KEEP_SECONDS = 7 * 86400.0
"""As long as the sandbox keeps its files; swept when it starts."""

PROMPT_FIELDS = frozenset(
    {"prompt", "prompt_id", "client_id", "extra_data", "front", "number", "partial_execution_targets"}
)
MODEL_FOLDERS = ("checkpoints", "diffusion_models", "text_encoders", "vae", "loras")
SPOILT = ("drop_after_accept", "stall_after_accept", "malformed")


class ComfyPart:
    """Answers for comfyui.sandbox."""

    hosts = frozenset({HOST})

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        root = stage.folder / "comfyui"
        self._files = ComfyFiles(root, stage.shelf)
        self._kept = root / "prompts"
        self._kept.mkdir(exist_ok=True, mode=0o700)
        self._book = node_book()
        self._lock = threading.RLock()
        self._prompts: dict[str, Prompt] = {}
        self._telling = Telling(self._remaining)
        self._done_before: dict[str, str] = {}
        self._posts: Counter[str] = Counter()
        self._strange: str | None = None

    def posts(self) -> dict[str, int]:
        with self._lock:
            return {f"comfyui/{kind}": count for kind, count in self._posts.items()}

    def start(self) -> None:
        self._files.sweep(KEEP_SECONDS)
        for path in self._kept.glob("*.json"):
            if time.time() - path.stat().st_mtime > KEEP_SECONDS:
                path.unlink()
        found = [Prompt(**json.loads(path.read_text())) for path in self._kept.glob("*.json")]
        for prompt in sorted(found, key=lambda one: one.number):
            self._prompts[prompt.prompt_id] = prompt
            if prompt.outputs is None and prompt.error is None:
                self._watch(prompt)

    def stop(self) -> None:
        self._telling.close()

    def answer(self, request: Request) -> Reply:
        origin = request.header("Origin")
        if origin is not None and HOST not in origin:
            return Reply(403)
        path = request.path.removeprefix("/api") if request.path.startswith("/api/") else request.path
        parts = [part for part in path.split("/") if part]
        match request.method, parts:
            case "GET", ["ws"]:
                return self._telling.open(request)
            case "POST", ["prompt"]:
                return self._take(request)
            case "GET", ["prompt"]:
                return Reply.of(200, {"exec_info": {"queue_remaining": len(self._places(Phase.IN_QUEUE))}})
            case "GET", ["queue"]:
                return self._queue()
            case "POST", ["queue"]:
                return self._delete(request)
            case "POST", ["interrupt"]:
                return self._interrupt(request)
            case "POST", ["free"]:
                self._done_before.clear()
                return Reply(200)
            case "GET", ["history"]:
                return Reply.of(200, {one: self._entry(self._prompts[one]) for one in self._over()})
            case "GET", ["history", prompt_id]:
                return self._history(prompt_id)
            case "GET", ["object_info", *rest]:
                return self._object_info(rest)
            case "GET", ["models"]:
                return Reply.of(200, list(MODEL_FOLDERS))
            case "GET", ["models", folder] if folder in MODEL_FOLDERS:
                return Reply.of(200, self._lists()[folder])
            case "GET", ["system_stats"]:
                return Reply.of(200, {"system": {"os": "posix", "comfyui_version": VERSION}, "devices": []})
            case "GET", ["features"]:
                return Reply.of(200, {"supports_preview_metadata": False, "max_upload_size": 100 * 1024**2})
            case "POST", ["upload", "image"]:
                fault = self._stage.faults.pick("upload", "comfyui/upload")
                return self._files.upload(request) if fault is None else fault_answer(fault)
            case "GET", ["view"]:
                return self._view(request)
        return Reply(404, {"Content-Type": "text/plain; charset=utf-8"}, b"404: Not Found")

    # --- taking a prompt ---

    def _take(self, request: Request) -> Reply:
        raw = request.body.read()
        try:
            body = json.loads(raw)
        except ValueError:
            return Reply(500, {"Content-Type": "text/plain"}, b"500 Internal Server Error")
        body = body if isinstance(body, dict) else {}
        if unknown := sorted(set(body) - PROMPT_FIELDS):
            return refused("unknown_field", f"Unknown fields: {', '.join(unknown)}")
        graph = body.get("prompt")
        verdict = judge(graph, self._lists(), self._book)
        kind = self._kind_of(graph, verdict.outputs)
        with self._lock:
            self._posts[kind] += 1
        fault = self._stage.faults.pick("submit", f"comfyui/{kind}")
        if fault is not None and fault.kind not in SPOILT:
            return fault_answer(fault)
        prompt_id = body.get("prompt_id", str(uuid.uuid4()))
        if not _is_canonical(prompt_id):
            return refused("invalid_prompt_id", "prompt_id must be a valid UUID")
        if verdict.error is not None or not isinstance(graph, dict):
            return Reply.of(400, {"error": verdict.error, "node_errors": verdict.node_errors or {}})
        prompt = self._accept(prompt_id, graph, str(body.get("client_id", "")), list(verdict.outputs), kind)
        if fault is not None:
            return fault_answer(fault)
        return Reply.of(
            200, {"prompt_id": prompt_id, "number": prompt.number, "node_errors": verdict.node_errors or {}}
        )

    def _accept(self, prompt_id: str, graph: dict[str, Any], client_id: str, targets: list[str], kind: str) -> Prompt:
        """Queue it; the same id twice is taken twice, as 0.3.64 does (3.1)."""
        cache_key = json.dumps(graph, sort_keys=True)
        with self._lock:
            prompt = Prompt(prompt_id, len(self._prompts), graph, client_id, targets, kind, request_id=None)
            self._prompts[prompt_id] = prompt
            before = self._prompts.get(self._done_before.get(cache_key, ""))
            if before is not None and before.outputs:
                # Every node is in the cache: nothing runs, nothing is written, the old names are shown (3.4).
                prompt.cached, prompt.outputs = list(graph), before.outputs
                self._keep(prompt)
                self._telling.start(prompt)
                self._telling.end(prompt)
                return prompt
            drawn = tuple(rule.text for rule in self._stage.faults.pick_all("job", f"comfyui/{kind}"))
            prompt.is_cut = any(rule.kind == "truncate" for text in drawn for rule in parse_faults(text))
            self._begin(prompt, drawn)
            self._keep(prompt)
        self._watch(prompt)
        return prompt

    def _begin(self, prompt: Prompt, faults: tuple[str, ...]) -> None:
        """Hand the work to the workshop; a graph that it cannot do ends in an error, as one that a node cannot."""
        try:
            wish = wish_of(prompt.graph, prompt.targets[0], self._book)
            given = wish.neutral(self._lora_entries(wish), self._first_frame(wish))
        except (ValueError, KeyError, OSError) as problem:
            prompt.error = self._failure(prompt, "ValueError", f"The sandbox cannot do this workflow: {problem}")
            return
        job = self._stage.journal.accept(
            "neutral/still" if wish.kind == "image" else "neutral/video", given, faults=faults
        )
        prompt.request_id = job.request_id
        self._stage.workshop.add(job)

    def _lora_entries(self, wish: Wish) -> list[dict[str, Any]]:
        """The LoRAs that fit their model; one of another base adds nothing and nobody says so (0.4)."""
        entries: list[dict[str, Any]] = []
        for load in wish.loras:
            path = self._files.lora(load.name)
            if load.strength and load.base in bases_of(path):
                entry: dict[str, Any] = {"path": self._files.address(path), "scale": load.strength}
                entries.append(entry | ({"transformer": load.expert} if load.expert else {}))
        return entries

    def _first_frame(self, wish: Wish) -> str | None:
        return None if wish.first_frame is None else self._files.address(self._files.input(wish.first_frame))

    def _kind_of(self, graph: Any, outputs: tuple[str, ...]) -> str:
        return "video" if any(graph[one]["class_type"] != "SaveImage" for one in outputs) else "image"

    # --- the end of one ---

    def _watch(self, prompt: Prompt) -> None:
        if prompt.error is not None:
            self._telling.start(prompt)
            self._telling.end(prompt)
            return
        threading.Thread(target=self._follow, args=(prompt,), daemon=True).start()

    def _follow(self, prompt: Prompt) -> None:
        is_told = False

        def look() -> bool:
            nonlocal is_told
            job = self._stage.journal.find(prompt.request_id or "")
            if not is_told and job is not None and job.phase is not Phase.IN_QUEUE:
                is_told = True
                self._telling.start(prompt)
                self._telling.work(prompt, 1)
            return self._stage.is_stopping()

        job = self._stage.workshop.wait(prompt.request_id or "", look)
        if job is None or job.outcome is None:
            return  # the server stops, or the prompt was deleted
        with self._lock:
            if self._prompts.get(prompt.prompt_id) is not prompt:
                return  # it was deleted, or another has its id
        if not is_told:
            self._telling.start(prompt)
        self._conclude(prompt, job.outcome)

    def _conclude(self, prompt: Prompt, outcome: Outcome) -> None:
        if outcome.status == 200:
            self._telling.work(prompt, None)
            outputs = self._outputs(prompt, outcome.body)
            with self._lock:
                prompt.outputs = outputs
                self._done_before[json.dumps(prompt.graph, sort_keys=True)] = prompt.prompt_id
        elif outcome.status == 499:
            prompt.is_interrupted = True
            prompt.error = self._failure(prompt, "", "")
        else:
            prompt.error = self._failure(prompt, "RuntimeError", str(outcome.error))
        with self._lock:
            self._keep(prompt)
        self._telling.end(prompt)

    def _outputs(self, prompt: Prompt, body: Any) -> dict[str, Any]:
        """What the history shows of the output nodes; nothing where the job made no file."""
        made = body.get("images") or ([body["video"]] if body.get("video") else [])
        shown: dict[str, Any] = {}
        for target in prompt.targets[:1]:
            prefix = str(prompt.graph[target]["inputs"]["filename_prefix"])
            items = [self._files.keep_output(one["url"], prefix) for one in made]
            if items:
                shown[target] = {"images": items} | ({"animated": [True]} if prompt.kind == "video" else {})
        return shown

    def _failure(self, prompt: Prompt, kind: str, message: str) -> dict[str, Any]:
        """The data of the event that ended it: an error of a node, or an interrupt."""
        node_id = next((one for one in prompt.graph if "Sampler" in prompt.graph[one]["class_type"]), prompt.targets[0])
        about: dict[str, Any] = {"prompt_id": prompt.prompt_id, "node_id": node_id}
        about |= {"node_type": prompt.graph[node_id]["class_type"], "executed": []}
        return about | ({"exception_type": kind, "exception_message": message, "traceback": []} if kind else {})

    # --- looking and stopping ---

    def _queue(self) -> Reply:
        fault = self._stage.faults.pick("status", "comfyui/queue")
        if fault is not None and fault.kind not in ("unknown_word", "vanish"):
            return fault_answer(fault)
        with self._lock:
            if fault is not None:
                # The queue has no words for a job: it is not there, and the next look at the history is a strange one.
                self._strange = "" if fault.kind == "vanish" else fault.argument or "paused"
                return Reply.of(200, {"queue_running": [], "queue_pending": []})
            running, waiting = self._places(Phase.IN_PROGRESS), self._places(Phase.IN_QUEUE)
            return Reply.of(
                200,
                {
                    "queue_running": [prompt.item() for prompt in running],
                    "queue_pending": [prompt.item() for prompt in reversed(waiting)],
                },
            )

    def _remaining(self) -> int:
        with self._lock:
            return len(self._places(Phase.IN_QUEUE)) + len(self._places(Phase.IN_PROGRESS))

    def _places(self, phase: Phase) -> list[Prompt]:
        """The prompts that wait or run; one whose files are still being written runs."""
        found = []
        for prompt in self._prompts.values():
            job = self._stage.journal.find(prompt.request_id) if prompt.request_id else None
            is_open = prompt.outputs is None and prompt.error is None
            if is_open and job is not None:
                at = Phase.IN_QUEUE if job.phase is Phase.IN_QUEUE else Phase.IN_PROGRESS
                found += [prompt] if at is phase else []
        return found

    def _over(self) -> list[str]:
        return [one.prompt_id for one in self._prompts.values() if one.outputs is not None or one.error is not None]

    def _history(self, prompt_id: str) -> Reply:
        prompt = self._prompts.get(prompt_id)
        strange, self._strange = self._strange, None
        if strange is not None:
            status = {"status_str": strange, "completed": False, "messages": []}
            return Reply.of(200, {prompt_id: {"outputs": {}, "status": status}} if strange else {})
        is_over = prompt is not None and prompt_id in self._over()
        fault = self._stage.faults.pick("result", f"comfyui/{prompt.kind}") if prompt is not None and is_over else None
        if fault is not None and fault.kind != "vanish":
            return fault_answer(fault)
        if prompt is None or not is_over or fault is not None:
            return Reply.of(200, {})
        return Reply.of(200, {prompt_id: self._entry(prompt)})

    def _entry(self, prompt: Prompt) -> dict[str, Any]:
        about: dict[str, Any] = {"prompt_id": prompt.prompt_id}
        messages: list[Any] = [["execution_start", about], ["execution_cached", about | {"nodes": prompt.cached}]]
        if prompt.error is not None:
            kind = "execution_interrupted" if prompt.is_interrupted else "execution_error"
            messages.append([kind, prompt.error])
        else:
            messages.append(["execution_success", about])
        word = "success" if prompt.error is None else "error"
        status = {"status_str": word, "completed": prompt.error is None, "messages": messages}
        return {"prompt": prompt.item(), "outputs": prompt.outputs or {}, "status": status, "meta": {}}

    def _delete(self, request: Request) -> Reply:
        body = json.loads(request.body.read() or b"{}")
        fault = self._stage.faults.pick("cancel", "comfyui/queue")
        if fault is not None:
            return Reply(200) if fault.kind == "ignore" else fault_answer(fault)
        with self._lock:
            waiting = {prompt.prompt_id: prompt for prompt in self._places(Phase.IN_QUEUE)}
            wanted = list(waiting) if body.get("clear") else body.get("delete", [])
            for prompt_id in wanted:
                if prompt_id in waiting:
                    del self._prompts[prompt_id]
                    (self._kept / f"{prompt_id}.json").unlink(missing_ok=True)
                    self._stage.workshop.cancel(waiting[prompt_id].request_id or "")
        return Reply(200)

    def _interrupt(self, request: Request) -> Reply:
        raw = request.body.read()
        wanted = json.loads(raw).get("prompt_id") if raw else None
        fault = self._stage.faults.pick("cancel", "comfyui/interrupt")
        if fault is not None:
            return Reply(200) if fault.kind == "ignore" else fault_answer(fault)
        with self._lock:
            running = self._places(Phase.IN_PROGRESS)
        for prompt in running:
            if wanted in (None, prompt.prompt_id):
                self._stage.workshop.cancel(prompt.request_id or "")
        return Reply(200)

    def _view(self, request: Request) -> Reply:
        kind = "video" if request.query.get("filename", "").endswith(".mp4") else "image"
        fault = self._stage.faults.pick("file", f"comfyui/{kind}")
        if fault is not None and fault.kind != "truncate":
            return Reply(404) if fault.kind.startswith("expire") else fault_answer(fault)
        name = request.query.get("filename")
        with self._lock:
            cut = any(
                item["filename"] == name
                for prompt in self._prompts.values()
                if prompt.is_cut
                for shown in (prompt.outputs or {}).values()
                for item in shown["images"]
            )
        return self._files.view(request, is_cut=cut or fault is not None)

    def _object_info(self, rest: list[str]) -> Reply:
        lists = self._lists()
        wanted = self._book.classes if not rest else {name: self._book.classes.get(name) for name in rest[:1]}
        return Reply.of(200, {name: object_info(one, lists) for name, one in wanted.items() if one is not None})

    def _lists(self) -> dict[str, list[str]]:
        return {**self._book.lists, **self._files.lists()}

    def _keep(self, prompt: Prompt) -> None:
        draft: Path = self._kept / f".{prompt.prompt_id}.tmp"
        draft.write_text(json.dumps(asdict(prompt)))
        draft.rename(self._kept / f"{prompt.prompt_id}.json")


def _is_canonical(prompt_id: Any) -> bool:
    """Newer servers take canonical lower-case UUIDs and nothing else (3.1)."""
    try:
        return isinstance(prompt_id, str) and str(uuid.UUID(prompt_id)) == prompt_id
    except ValueError:
        return False
