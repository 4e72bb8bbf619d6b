"""The one LoRA file inside what a Replicate trainer hands back: a tar or a zip made by a stranger, or the file itself.

A FLUX trainer's tar and the Qwen trainer's zip each hold one `.safetensors` beside configurations (replicate/
flux-fine-tuner 3dd14e3, train.py; replicate/qwen-image-lora-trainer 09386ee, train.py). Nothing is unpacked by name:
the bytes of that one member are copied, and no path in the archive is ever used.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from domain.errors import JobFailed

MOST_BYTES = 4 * 1024**3
"""A LoRA larger than this is none: FLUX at rank 128 has under 2 GB."""

MOST_MEMBERS = 1000
CHUNK_BYTES = 1024 * 1024
WEIGHTS_SUFFIX = ".safetensors"


def copy_weights(archive: Path, into: BinaryIO, what: str) -> None:
    """Copy the weights to where `into` stands; `JobFailed` when the file holds none, or two, or more than is sane."""
    try:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, into, what)
        elif tarfile.is_tarfile(archive):
            _from_tar(archive, into, what)
        else:
            with archive.open("rb") as plain:
                _copy(plain, into, what)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise JobFailed(
            f"The weights of {what} cannot be unpacked ({type(error).__name__}: {error}): they are damaged."
        ) from error


def _from_tar(archive: Path, into: BinaryIO, what: str) -> None:
    # As a stream, which never seeks: a crafted index cannot lead it around.
    found = total_bytes = 0
    with tarfile.open(archive, "r|*") as tar:
        for count, member in enumerate(tar):
            total_bytes += max(0, member.size)
            if count >= MOST_MEMBERS or total_bytes > 2 * MOST_BYTES:
                raise JobFailed(
                    f"The weights of {what} hold more files or bytes than a LoRA's archive has: unpack none."
                )
            if not member.isreg() or not _is_weights(member.name):
                continue
            found += 1
            if found > 1:
                break
            stream = tar.extractfile(member)
            assert stream is not None, "a regular file has bytes"
            _copy(stream, into, what)
    _check_one(found, what)


def _from_zip(archive: Path, into: BinaryIO, what: str) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [member for member in packed.infolist() if not member.is_dir() and _is_weights(member.filename)]
        _check_one(len(members), what)
        with packed.open(members[0]) as stream:
            _copy(stream, into, what)


def _is_weights(name: str) -> bool:
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return last.endswith(WEIGHTS_SUFFIX) and not last.startswith("._")


def _check_one(found: int, what: str) -> None:
    if found != 1:
        seen = "no" if found == 0 else "more than one"
        raise JobFailed(f"The weights of {what} hold {seen} {WEIGHTS_SUFFIX} file: which is the LoRA cannot be told.")


def _copy(stream: IO[bytes], into: BinaryIO, what: str) -> None:
    left = MOST_BYTES
    while data := stream.read(CHUNK_BYTES):
        left -= len(data)
        if left < 0:
            raise JobFailed(f"The weights of {what} are larger than {MOST_BYTES // 1024**3} GiB: that is no LoRA.")
        into.write(data)
