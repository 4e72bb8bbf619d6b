"""Datasets: a training set as the zip a trainer takes, the same bytes for the same set.

Layout of fal's trainers (fal.md 2.1): images with same-stem `.txt` captions at the top level. Images are STORED (they
do not compress; DEFLATE takes fifteen times as long for nothing, embedded_parts.md section 5), dates and modes are
fixed.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domain.training_sets import TrainingImage

if TYPE_CHECKING:
    from providers.wiring import Ports

_CHUNK_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644 << 16


def pack_training_zip(ports: Ports, images: Sequence[TrainingImage]) -> str:
    """Write the zip, streamed with flat memory, into the store; returns its SHA-256. Safe to repeat."""
    with tempfile.NamedTemporaryFile(dir=ports.scratch(), suffix=".zip") as temp:
        with zipfile.ZipFile(temp, "w", zipfile.ZIP_STORED) as archive:
            for image in images:
                with (
                    ports.blobs.open(image.sha256) as source,
                    archive.open(_entry(image.file_name), "w", force_zip64=False) as target,
                ):
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
                archive.writestr(_entry(str(Path(image.file_name).with_suffix(".txt"))), image.caption)
        temp.flush()
        return ports.blobs.put_file(Path(temp.name), "application/zip")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = _FILE_MODE
    entry.create_system = 3
    return entry
