"""Pictures in files: JPEG, PNG and WebP read with suspicion, PNG and JPEG written whole or not at all."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from domain.errors import BadInput
from providers.media_first_bytes import why
from providers.ports import ImageFacts, RgbImage

MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""What a person may give (issue; also Kling's own limit, fal.md 2.5)."""

MAX_LOADED_BYTES = 100 * 1024 * 1024
"""What a vendor may return: a large PNG that was paid for is not refused for its size."""

MAX_IMAGE_PIXELS = 50_000_000
"""Declared pixels above which a picture is not even begun: 150 MB once decoded."""

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, OverflowError)
"""What Pillow raises on damaged files, besides its own error class (an OSError)."""


def probe_image(path: Path) -> ImageFacts:
    """What a picture is, as shown; it is decoded once to be sure that it is whole.

    Errors as `load_image`, and `BadInput` already over 10 MB.
    """
    kind, data = _read_picture(path, MAX_IMAGE_BYTES)
    height, width, _ = _decode(kind, data, path).shape
    return ImageFacts(format=kind, width=width, height=height, size_bytes=len(data))


def load_image(path: Path) -> RgbImage:
    """The picture the right way up, in sRGB, transparency laid on white; height × width × 3, 8 bits.

    `BadInput` with one sentence for what is no JPEG, PNG or WebP, is over 100 MB, declares more than 50
    million pixels (told from the header, nothing is decoded), or is damaged. Of an animation the first picture.
    """
    kind, data = _read_picture(path, MAX_LOADED_BYTES)
    return _decode(kind, data, path)


def png_bytes(image: RgbImage) -> bytes:
    """A lossless PNG; equal pictures give equal bytes. Level 4: half the time of 6, files 5 % larger (demo frames)."""
    return _encoded(image, "PNG", compress_level=4)


def jpeg_bytes(image: RgbImage, quality: int = 92, *, is_optimized: bool = True) -> bytes:
    """A JPEG without chroma subsampling from quality 90 up; equal pictures give equal bytes.

    Optimised means a second pass for a smaller file.
    """
    subsampling = 0 if quality >= 90 else 2
    try:
        return _encoded(image, "JPEG", quality=quality, subsampling=subsampling, optimize=is_optimized)
    except OSError:
        # Pillow 13.0 optimises in one buffer of a byte per pixel, which a picture like noise does not fit in.
        return _encoded(image, "JPEG", quality=quality, subsampling=subsampling, optimize=False)


def encode_png(image: RgbImage, path: Path) -> None:
    """Write a PNG file in one step: readers see the old file or the whole new one."""
    _write_whole(path, png_bytes(image))


def encode_jpeg(image: RgbImage, path: Path, quality: int = 92) -> None:
    """Write a JPEG file in one step: readers see the old file or the whole new one."""
    _write_whole(path, jpeg_bytes(image, quality))


def _read_picture(path: Path, most_bytes: int) -> tuple[str, bytes]:
    """The format and the bytes of a file that is small enough, of a known kind and of sane size."""
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; give the path of one picture (JPEG, PNG or WebP).")
        if not path.exists():
            raise BadInput(f"{path} is not there; check the path.")
        if not path.is_file():
            raise BadInput(f"{path} is not an ordinary file; give the path of one picture (JPEG, PNG or WebP).")
        size_bytes = path.stat().st_size
        if size_bytes > most_bytes:
            raise BadInput(
                f"{path} is {size_bytes / 1024 / 1024:.1f} MB; pictures may have at most {most_bytes >> 20} MB: "
                f"save it smaller."
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({why(error)}); check the path and its permissions.") from error
    if not data:
        raise BadInput(f"{path} is empty (0 bytes); download or export it again.")
    kind = _kind(data)
    if kind not in ("JPEG", "PNG", "WEBP"):
        raise BadInput(f"Format not supported: {kind} ({path}); save it as JPEG, PNG or WebP.")
    width, height = _declared_size(kind, data, path)
    if width * height > MAX_IMAGE_PIXELS:
        raise BadInput(
            f"{path} says it is {width:,}×{height:,} pixels, more than the {MAX_IMAGE_PIXELS // 1_000_000} million "
            "allowed; scale it down."
        )
    return kind, data


def _kind(data: bytes) -> str:
    """The picture's format by its first bytes, never by its name."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}
        return brands.get(data[8:12], "a video")
    magics = {
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"II*\x00": "TIFF",
        b"MM\x00*": "TIFF",
        b"%PDF": "PDF",
        b"8BPS": "Photoshop",
        b"<svg": "SVG",
        b"\x1aE\xdf\xa3": "a video",
    }
    return next((name for magic, name in magics.items() if data.startswith(magic)), "unknown")


def _declared_size(kind: str, data: bytes, path: Path) -> tuple[int, int]:
    """Width and height as the header says, before any decoder sees the file."""
    try:
        match kind:
            case "PNG":
                width, height = struct.unpack(">II", data[16:24])
            case "WEBP":
                width, height = _webp_size(data)
            case _:
                width, height = _jpeg_size(data)
    except (struct.error, IndexError) as error:
        raise _damaged(path) from error
    if width < 1 or height < 1:
        raise _damaged(path)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """RFC 9649: the canvas of an extended file, or the frame header of a plain one."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """ITU-T T.81: walk the segments to the first start-of-frame."""
    at = 2
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise IndexError(at)
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        at += 2 + max(2, length)


def _decode(kind: str, data: bytes, path: Path) -> RgbImage:
    # The format's own class, not Image.open: that one warns about large pictures through a global switch,
    # and would try other formats. The size was checked already.
    file = io.BytesIO(data)
    try:
        picture: ImageFile
        match kind:
            case "PNG":
                picture = PngImageFile(file)
            case "WEBP":
                picture = WebPImageFile(file)
            case _:
                picture = JpegImageFile(file)
        with picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise _damaged(path)
            picture.load()
            flat = _on_white(picture)
            turn = _TURNS.get(_orientation(picture))
            return np.ascontiguousarray(flat if turn is None else flat.transpose(turn), dtype=np.uint8)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise _damaged(path) from error


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit grey: plain conversion would clip it to white
        deep = np.asarray(picture, dtype=np.float64)
        scale = 257 if picture.mode != "F" else 1
        return Image.fromarray(np.clip(deep / scale, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        white.alpha_composite(layer)
        return _in_srgb(white.convert("RGB"), picture)
    return _in_srgb(picture if picture.mode == "RGB" else picture.convert("RGB"), picture)


def _in_srgb(flat: Image.Image, picture: Image.Image) -> Image.Image:
    """Phones save Display P3: without this a red scarf would be learned too pale. A bad profile is ignored."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "RGBA"):
        return flat
    try:
        stored = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(flat, stored, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return flat
    return flat if converted is None else converted


def _orientation(picture: ImageFile) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except _DAMAGE:
        return 1  # damaged EXIF beside a sound picture


def _damaged(path: Path) -> BadInput:
    return BadInput(f"{path} is cut short or damaged, it cannot be decoded whole; download or export it again.")


def _encoded(image: RgbImage, kind: str, **options: int | bool) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
