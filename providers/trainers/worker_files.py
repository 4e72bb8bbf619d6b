"""The files the worker handles: unpacking the data, and whether what a trainer left is whole.

Standard library alone: this text travels with worker.py. Nothing in a zip or a header is trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
import zipfile
from pathlib import Path

LARGEST_UNPACKED_BYTES = 32 * 1024**3
MOST_FILES = 20_000


class BadData(Exception):
    """The data cannot be used; the text is one sentence."""


def unpack(archive: Path, folder: Path) -> None:
    """The files of a zip, none outside the folder; `BadData` for what is no zip, climbs out or is too much."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    root = folder.resolve()
    try:
        with zipfile.ZipFile(archive) as zipped:
            entries = zipped.infolist()
            if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > LARGEST_UNPACKED_BYTES:
                raise BadData("The data unpacks to more than a training set may hold.")
            for entry in entries:
                target = (root / entry.filename).resolve()
                if not target.is_relative_to(root) or "\\" in entry.filename:
                    raise BadData(f"The data holds a file outside its folder: {entry.filename[:200]!r}.")
                zipped.extract(entry, root)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise BadData(f"The data could not be unpacked ({type(error).__name__}: {str(error)[:200]}).") from None


def safetensors_problem(path: Path) -> str | None:
    """Why this is no whole safetensors file; None when its header and its length agree (runpod_trainers.md 4.6)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(size - 8, 100_000_000):
                return f"its header claims {length} bytes"
            tensors = [entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"]
        end = max(int(entry["data_offsets"][1]) for entry in tensors)
        return None if 8 + length + end == size else f"it has {size} bytes and its header speaks of {8 + length + end}"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        return f"its header cannot be read ({type(error).__name__})"


def steps_in(path: Path) -> int | None:
    """The steps a file says it was trained: ai-toolkit's `training_info`, kohya's `ss_steps` (4.4)."""
    if path.suffix != ".safetensors":
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, struct.error), path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        said = json.loads(file.read(length)).get("__metadata__") or {}
        return int(said.get("ss_steps") or json.loads(said["training_info"])["step"]) if said else None
    return None


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1024 * 1024):
            digest.update(block)
    return digest.hexdigest()
