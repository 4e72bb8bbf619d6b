"""Pictures for the sample report, drawn with Pillow: four people of clearly different design before many skies."""

from __future__ import annotations

import hashlib
import io
import math

from PIL import Image, ImageDraw

from domain.errors import BadInput

MEI, HOSTILE, ORIN, BRAM = "Mei Kobayashi", "<script>alert(1)</script>", "Orin", "Old Bram"
_COATS = {MEI: (186, 52, 44), HOSTILE: (58, 96, 150), ORIN: (224, 168, 52), BRAM: (92, 116, 84)}
_HAIR = {MEI: (26, 22, 24), HOSTILE: (214, 214, 220), ORIN: (122, 60, 30), BRAM: (180, 174, 162)}
_SKIES = [(38, 52, 84), (204, 138, 96), (128, 164, 178), (64, 44, 72), (226, 206, 170), (30, 74, 82)]


class PictureShelf:
    """Pictures by their SHA-256, drawn when first asked for; `read` is the report's `thumb`."""

    def __init__(self) -> None:
        self._drawings: dict[str, tuple[tuple[str, ...], int, bool]] = {}
        self._jpegs: dict[str, bytes] = {}

    def draw(self, names: tuple[str, ...], scene: int, is_plain: bool = False) -> str:
        sha256 = hashlib.sha256(repr((names, scene, is_plain)).encode()).hexdigest()
        self._drawings[sha256] = (names, scene, is_plain)
        return sha256

    def read(self, sha256: str) -> bytes:
        if sha256 not in self._drawings:
            raise BadInput(f"There is no picture {sha256[:12]} in the store: run the season again.")
        if sha256 not in self._jpegs:
            packed = io.BytesIO()
            _scene(*self._drawings[sha256]).save(packed, "JPEG", quality=82)
            self._jpegs[sha256] = packed.getvalue()
        return self._jpegs[sha256]


def _scene(names: tuple[str, ...], scene: int, is_plain: bool) -> Image.Image:
    width, height = 480, 270
    sky = (226, 221, 210) if is_plain else _SKIES[scene % len(_SKIES)]
    image = Image.new("RGB", (width, height), sky)
    draw = ImageDraw.Draw(image)
    for row in range(height):
        fade = row / height * 46
        draw.line([(0, row), (width, row)], fill=tuple(max(0, int(part - fade)) for part in sky))
    if not is_plain:
        draw.ellipse([340 - scene % 90, 24, 396 - scene % 90, 80], fill=(246, 232, 196))
        for post in range(9):
            left = post * 58 + scene * 13 % 40 - 20
            draw.rectangle([left, 150 - post * 17 % 60, left + 34, 222], fill=tuple(part // 2 for part in sky))
        draw.rectangle([0, 220, width, height], fill=tuple(part // 3 for part in sky))
    for place, name in enumerate(names):
        centre = width * (place + 1) / (len(names) + 1) + 18 * math.sin(scene * 1.7 + place)
        size = 1.0 + 0.25 * math.sin(scene * 0.9 + place)
        foot = 262
        draw.polygon(
            [(centre - 44 * size, foot), (centre + 44 * size, foot), (centre, foot - 150 * size)], fill=_COATS[name]
        )
        head = foot - 168 * size
        draw.ellipse([centre - 31 * size, head - 31 * size, centre + 31 * size, head + 31 * size], fill=_HAIR[name])
        draw.ellipse([centre - 22 * size, head - 16 * size, centre + 22 * size, head + 32 * size], fill=(240, 205, 178))
        for side in (-9, 9):
            draw.ellipse([centre + side * size - 3, head + 4, centre + side * size + 3, head + 10], fill=(30, 26, 24))
    return image
