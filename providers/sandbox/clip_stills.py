"""A zip of training clips made into a zip of stills, which is what the engine trains on: a few moments of each clip.

Names and bytes are a stranger's: nothing is unpacked under a name from the zip, and what is unpacked is bounded.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from domain.errors import BadTrainingSet

CLIP_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv"})
"""What fal's trainers take (reference 2.3)."""

MOMENTS = 4
"""Stills of each clip, evenly over its length; the engine wants four pictures, so one clip alone will do."""
LARGEST_CLIP_BYTES = 512 * 1024**2
MOST_CLIPS = 500
LONGEST_FRAMES = 4000


def stills_of_clips(archive: Path, folder: Path) -> Path:
    """A new zip in `folder`: PNGs and, beside each, the caption of its clip. `BadTrainingSet` names a clip that does
    not decode."""
    made = folder / "stills-of-clips.zip"
    with zipfile.ZipFile(archive) as given, zipfile.ZipFile(made, "w") as stills:
        names = {
            info.filename: info for info in given.infolist() if not info.is_dir() and "__MACOSX" not in info.filename
        }
        clips = sorted(name for name in names if PurePosixPath(name).suffix.lower() in CLIP_SUFFIXES)
        if len(clips) > MOST_CLIPS:
            raise BadTrainingSet(f"The training zip holds {len(clips)} clips and at most {MOST_CLIPS} are taken.")
        for number, name in enumerate(clips):
            if names[name].file_size > LARGEST_CLIP_BYTES:
                raise BadTrainingSet(f"The training clip {name} is larger than {LARGEST_CLIP_BYTES} bytes: shorten it.")
            clip = folder / "clip"
            with given.open(name) as packed, clip.open("wb") as file:
                shutil.copyfileobj(packed, file)
            caption = names.get(str(PurePosixPath(name).with_suffix(".txt")))
            for moment, picture in enumerate(_moments(clip, name)):
                stem = f"clip-{number:03d}-{moment}"
                png = io.BytesIO()
                picture.save(png, "PNG", compress_level=1)
                stills.writestr(f"{stem}.png", png.getvalue())
                if caption is not None:
                    stills.writestr(f"{stem}.txt", given.read(caption)[:10_000])
    return made


def _moments(clip: Path, name: str) -> list[Any]:
    """Pillow pictures at the middle of each of `MOMENTS` equal parts; one frame stands for several in a short clip."""
    import av  # late: most jobs never open a clip
    from PIL import Image

    unreadable = BadTrainingSet(f"The training clip {name} cannot be decoded: give an MP4 that plays.")
    try:
        with av.open(str(clip)) as container:
            count = 0
            for _ in container.decode(video=0):
                count += 1
                if count >= LONGEST_FRAMES:
                    break
        if count == 0:
            raise unreadable
        wanted = [int(count * (2 * part + 1) / (2 * MOMENTS)) for part in range(MOMENTS)]
        found: dict[int, Any] = {}
        with av.open(str(clip)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = Image.fromarray(frame.to_ndarray(format="rgb24"))
                if number >= wanted[-1]:
                    break
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise unreadable from error
    return [found[number] for number in wanted if number in found]
