"""Files that a command wrote into a person's folder: replaced and taken away only while they are as it left them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from domain.errors import BadInput
from domain.records import Record
from tasks.whole_files import whole_file

_WORKBENCH = ".onmodel-work"
Memory = TypeVar("Memory", bound=Record)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def memory_in(folder: Path, file_name: str, kind: type[Memory], command: str) -> Memory | None:
    """What a command wrote of the folder when it was here before, None in an empty or new one.

    `BadInput` where the folder holds other things, or the file is not the command's own.
    """
    path = folder / file_name
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        if is_empty(folder):
            return None
        raise BadInput(
            f"{folder} holds files that {command} did not write: give an empty or a new folder with --out."
        ) from None
    except (ValidationError, IsADirectoryError) as error:
        raise BadInput(
            f"{path} was not written by this version of {command}, or was changed since: give another folder with "
            f"--out."
        ) from error


def save_memory(folder: Path, file_name: str, memory: Record) -> None:
    """Write what `memory_in` reads, whole or not at all."""
    with whole_file(folder / file_name) as stream:
        stream.write(memory.model_dump_json(indent=1).encode() + b"\n")


def replace_files(
    folder: Path, ours: Mapping[str, str], wanted: Mapping[str, Path], remember: Callable[[], None]
) -> None:
    """Bring files into the folder in place of those it wrote before. Names are paths within it, with slashes.

    `ours` gives the SHA-256 of each file written before, `wanted` where each new one lies now, on the same disk; they
    are moved from there. `remember` writes down what will be there, before the first new file is: so it may be broken
    off at any point and repeated. `BadInput` where a foreign or changed file, or a link, is in the way: then nothing
    was touched.
    """
    for name, source in wanted.items():
        place = folder / name
        if not _stays_within(folder, name):
            raise BadInput(f"{place} leads out of the folder, or over a link: give another folder with --out.")
        if (place.exists() or place.is_symlink()) and _digest_or_none(place) not in (ours.get(name), digest_of(source)):
            raise BadInput(
                f"{place} is in the way: it was not written by this command, or was changed since. Move it elsewhere, "
                f"or give another folder with --out."
            )
    for name, sha256 in ours.items():
        if name not in wanted and _stays_within(folder, name) and _digest_or_none(folder / name) == sha256:
            (folder / name).unlink()
            if (folder / name).parent != folder and not any((folder / name).parent.iterdir()):
                (folder / name).parent.rmdir()
    remember()
    for name, source in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        source.replace(folder / name)


@contextmanager
def workbench(folder: Path) -> Iterator[Path]:
    """A hidden folder within the folder to prepare files in; what a killed command left there goes first.

    `BadInput` while another command works there.
    """
    bench = folder / _WORKBENCH
    if bench.is_symlink() or (bench.exists() and not bench.is_dir()):
        raise BadInput(f"{bench} is in the way: remove it, or give another folder with --out.")
    bench.mkdir(exist_ok=True)
    handle = os.open(bench, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(
                f"Another command is at work in {folder}: wait until it ends, or give another folder with --out."
            ) from None
        for left_over in bench.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() and not left_over.is_symlink() else left_over.unlink()
        try:
            yield bench
        finally:
            shutil.rmtree(bench)
    finally:
        os.close(handle)


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in the folder, or no folder; hidden files, as file managers leave them, do not count."""
    return not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir())


def _stays_within(folder: Path, name: str) -> bool:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name or "\\" in name:
        return False
    return not any((folder.joinpath(*parts[:depth])).is_symlink() for depth in range(1, len(parts)))


def _digest_or_none(path: Path) -> str | None:
    return digest_of(path) if path.is_file() and not path.is_symlink() else None
