"""Exporting a dataset: its files unpacked into a folder with the manifest beside them, for a trainer of one's own."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from domain.errors import BadInput
from tasks.whole_files import whole_file

if TYPE_CHECKING:
    from providers.wiring import Ports

_CHUNK_BYTES = 1 << 20


def export_dataset(ports: Ports, dataset_id: int, folder: Path) -> tuple[Path, ...]:
    """Write the dataset's files and its manifest.json into `folder`; returns their paths, in order.

    Safe to repeat: files that are there with the same bytes stay. `BadInput` before anything is written when a file of
    another content has one of the names, when a link stands in the way, or when a name would lead out of the folder.
    Flat memory. Free.
    """
    dataset = ports.datasets.get(dataset_id)
    root = folder.absolute()
    with zipfile.ZipFile(ports.blobs.local_path(dataset.zip_sha256)) as archive:
        wanted = [(entry, _target(root, entry.filename)) for entry in archive.infolist() if not entry.is_dir()]
        manifest = root / "manifest.json"
        is_beside = all(path != manifest for _, path in wanted)
        for entry, path in wanted:
            with archive.open(entry) as source:
                _check_free(root, path, source)
        if is_beside:
            with ports.blobs.open(dataset.manifest_sha256) as source:
                _check_free(root, manifest, source)
        for entry, path in wanted:
            with archive.open(entry) as source:
                _write(source, path)
    if is_beside:
        with ports.blobs.open(dataset.manifest_sha256) as source:
            _write(source, manifest)
    return tuple(sorted({path for _, path in wanted} | {manifest}))


def _target(root: Path, name: str) -> Path:
    """Where an entry goes; its name is not trusted, though the zip is our own."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or any(part in ("..", ".") for part in parts):
        raise BadInput(f"The dataset's file {name!r} would lie outside {root}; it is not written: build it anew.")
    return root.joinpath(*parts)


def _check_free(root: Path, path: Path, source: IO[bytes]) -> None:
    """Nothing of somebody else's is at this path, and no link leads out of the folder on the way to it."""
    for place in (path, *path.parents):
        if place == root:
            break
        if place.is_symlink():
            raise BadInput(f"{place} is a link; remove it or export into an empty folder.")
    if not path.exists():
        return
    if not path.is_file() or _digest(path.open("rb")) != _digest(source):
        raise BadInput(f"{path} is there already with other content; export into an empty folder.")


def _digest(source: IO[bytes]) -> str:
    with source:
        digest = hashlib.sha256()
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
        return digest.hexdigest()


def _write(source: IO[bytes], path: Path) -> None:
    """Whole or not at all."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
