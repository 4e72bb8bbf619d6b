"""LoRA files on the ComfyUI server's disk: core ComfyUI has no way to upload them (replicate_comfyui.md 3.5).

They are copied into a folder that the server reads, or handed to a command that brings them there, under a name that
changes with their bytes: a file replaced under its old name is not noticed (3.5).
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from domain.errors import NotConfigured, Rejected, Unavailable
from domain.jobs import BlobRef
from providers.comfyui.client import ComfyUiClient
from providers.lora_files import check_lora_file
from providers.lora_layouts import serves

FOLDER = "onmodel"
SYNC_SECONDS = 1800.0
"""A LoRA of 2 GB at 10 Mbit/s takes 27 minutes."""
SHOWN_SECONDS = 60.0
"""How long a file may take to show in the server's list, as over a mounted bucket. Ours."""
LOOK_EVERY_SECONDS = 0.25
PLACED = re.compile(r"onmodel/(?P<layout>[a-z0-9.-]+)/[0-9a-f]{12}/[^/]+\.safetensors")


class LoraPlace(Protocol):
    """A way to bring a LoRA file to where the server finds it."""

    def bring(self, path: Path, name: str) -> None:
        """Put the file there under `name`, which may have folders in it. Safe to repeat; `Unavailable` when it failed,
        `NotConfigured` when it never can."""
        ...


class LoraFolder:
    """A folder that the server lists as one of its `loras` folders: on the same machine, or a mounted share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bring(self, path: Path, name: str) -> None:
        """As `LoraPlace`: copied beside its place first, so that the server never reads half a file. Safe from many."""
        if not self._folder.is_dir():
            raise NotConfigured(
                f"ONMODEL_COMFYUI_LORAS is {str(self._folder)!r}, which is no folder: name ComfyUI's models/loras."
            )
        target = self._folder / name
        if target.is_file() and target.stat().st_size == path.stat().st_size:
            return
        draft = target.with_name(f".{secrets.token_hex(4)}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, draft)
            draft.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise Unavailable(
                f"The LoRA could not be copied to {str(self._folder)!r} ({error.strerror}): free room there or let it "
                "be written to."
            ) from error


class LoraSync:
    """A command that brings a file to the server: `rsync -t {file} gpu:ComfyUI/models/loras/{name}`, `aws s3 cp …`.

    `{file}` is the file here, `{name}` where it belongs below the server's `loras` folder. No shell reads it: the words
    are split once, then filled, so that no name can become an option of its own or a second command.
    """

    def __init__(self, command: str, *, seconds: float = SYNC_SECONDS) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise NotConfigured(f"ONMODEL_COMFYUI_LORA_SYNC cannot be read ({error}): check its quotes.") from error
        if not words or not any("{file}" in word for word in words) or not any("{name}" in word for word in words):
            raise NotConfigured(
                "ONMODEL_COMFYUI_LORA_SYNC needs {file} and {name}: write for example rsync -t --mkpath {file} "
                "gpu:ComfyUI/models/loras/{name}."
            )
        self._words = words
        self._seconds = seconds

    def bring(self, path: Path, name: str) -> None:
        """As `LoraPlace`."""
        filled = {"{file}": str(path), "{name}": name}
        words = [re.sub(r"\{(file|name)\}", lambda found: filled[found[0]], word) for word in self._words]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{words[0]!r} had not brought the LoRA after {self._seconds:g} s; try again.") from error
        except OSError as error:
            raise NotConfigured(
                f"ONMODEL_COMFYUI_LORA_SYNC cannot run {words[0]!r} ({error.strerror}): install it or correct it."
            ) from error
        if done.returncode != 0:
            said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
            raise Unavailable(
                f"{words[0]!r} did not bring the LoRA ({done.returncode}: {said}); it can be tried again."
            )


def lora_place(folder: Path | None, sync: str | None) -> LoraPlace | None:
    """What the settings say: a folder, else a command, else None."""
    if folder is not None:
        return LoraFolder(folder)
    return LoraSync(sync) if sync else None


def placed_name(path: Path, ref: BlobRef) -> str:
    """Where a LoRA belongs below the server's folder: `onmodel/<base>/<12 digits of its digest>/<its name>`.

    The base is what the file's own module names say (`unknown` where they say nothing), so that a person sees the LoRAs
    by base, and so that it can be judged later without the file. `Rejected` when the file is no LoRA at all.
    """
    report = check_lora_file(path, expected_base="")
    if not report.module_count:
        raise Rejected(f"{ref.file_name!r} is no LoRA ({'; '.join(report.reasons)}): give a .safetensors file of one.")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(ref.file_name.replace("\\", "/")).stem).strip("._")[:80]
    return f"{FOLDER}/{report.architecture or 'unknown'}/{ref.sha256[:12]}/{stem or 'lora'}.safetensors"


def check_base(name: str, base: str) -> None:
    """`Rejected` when a LoRA placed by us is of another base: ComfyUI would draw as if there were none (0.4, run).

    A LoRA whose base cannot be told, or that a person put there, passes: nothing is known against it.
    """
    match = PLACED.fullmatch(name.replace("\\", "/"))
    if match is None or match["layout"] == "unknown" or serves(match["layout"], base):
        return
    raise Rejected(
        f"The LoRA {name!r} is of {match['layout']} and the workflow loads LoRAs of {base}: ComfyUI would ignore it "
        "without a word; choose a LoRA or a workflow of the same base."
    )


def wait_until_listed(
    client: ComfyUiClient,
    name: str,
    *,
    seconds: float = SHOWN_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The name under which the server lists the LoRA, spelled its own way; `Unavailable` when it does not in time."""
    began = clock()
    while True:
        for listed in _listed(client):
            if listed.replace("\\", "/") == name:
                return listed
        if clock() - began >= seconds:
            raise Unavailable(
                f"{client.place} does not list the LoRA {name!r} after {seconds:g} s: ONMODEL_COMFYUI_LORAS, or what "
                "ONMODEL_COMFYUI_LORA_SYNC writes to, must be one of its loras folders."
            )
        sleep(LOOK_EVERY_SECONDS)


def _listed(client: ComfyUiClient) -> Iterator[str]:
    answer = client.look("/models/loras")
    if not isinstance(answer, list):
        raise Unavailable(f"{client.place} showed a list of LoRAs that cannot be read; it can be asked again.")
    return (name for name in answer if isinstance(name, str))
