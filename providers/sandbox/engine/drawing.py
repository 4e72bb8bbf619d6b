"""Drawing stills: the character as far as the LoRA holds it, in the place and the shot that the prompt asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from domain.errors import Rejected
from providers.sandbox.engine.layout import LoraFile, read_lora
from providers.sandbox.engine.picture import Floats
from providers.sandbox.engine.scenes import Words, paint_scene
from providers.sandbox.engine.stage import Actor, Stage, compose, framing, label
from providers.sandbox.engine.words import answer_to, split_words, word_direction

_FULL_AT = 0.75  # strength × scale from which a subject is drawn without a trace of the base model's own person
_EXIF_SOFTWARE = 0x0131


def draw_still(
    *,
    prompt: str,
    seed: int,
    width: int,
    height: int,
    loras: Sequence[tuple[Path, float]],
    out: Path,
    image_format: str = "jpeg",
) -> None:
    """Draw `width`×`height` px into `out` as jpeg or png. `loras` are FLUX.1 files with their scales.

    Equal arguments give equal bytes; repeating overwrites. `Rejected` when a LoRA cannot be used, with the reason.
    """
    save_still(stage_for(prompt, seed, width, height, loras, base="flux-1-dev").flat(), out, image_format)


def save_still(picture: Image.Image, out: Path, image_format: str) -> None:
    """Label the picture, in sight and in its metadata, and write it."""
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = "OnModel sandbox"
    match image_format:
        case "jpeg" | "jpg":
            label(picture).save(out, "JPEG", quality=93, subsampling=0, exif=exif)
        case "png":
            label(picture).save(out, "PNG", compress_level=3, exif=exif)
        case _:
            raise Rejected(f"The sandbox cannot write pictures as {image_format!r}: ask for jpeg or png.")


def stage_for(
    prompt: str, seed: int, width: int, height: int, loras: Sequence[tuple[Path, float]], *, base: str
) -> Stage:
    """The picture that the prompt asks for, in layers. Errors as `draw_still`."""
    words = frozenset(split_words(prompt))
    mixed = mix_seed(prompt, seed)
    actors = []
    for number, (path, scale) in enumerate(loras):
        actor = _actor(read_lora(path, base), scale, prompt, words, mixed + number)
        if actor is not None:
            actors.append(actor)
    cast = [a.colour[::9, ::9][a.matte[::9, ::9] > 0.95] * np.float32(255) for a in actors]
    scene = paint_scene(words, mixed, width, height, np.concatenate(cast) if cast else None)
    return compose(words, mixed, scene, actors)


def mix_seed(prompt: str, seed: int) -> int:
    """One number of 32 bits from both, so that another prompt is another picture for the same seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt}".encode()).digest()[:4], "big")


def _actor(lora: LoraFile, scale: float, prompt: str, words: Words, seed: int) -> Actor | None:
    """The subject as the LoRA holds it, or None when it holds none, is not called or is switched off."""
    is_used = lora.strengths > 1e-3
    if scale <= 0 or not is_used.any():
        return None
    called = answer_to(prompt, lora.codes[is_used].mean(axis=0))
    if called <= 0:
        return None
    subject = lora.subject(_choose(lora, words, seed))
    opacity = min(1.0, subject.strength * called * scale / _FULL_AT)
    colour = subject.colour
    if scale > 1.4:
        colour = _overcook(colour, subject.matte, scale)
    return Actor(colour, subject.matte, subject.aspect, subject.is_cut_below, opacity)


def _choose(lora: LoraFile, words: Words, seed: int) -> int:
    """The atom that answers the prompt best; the seed decides among those that answer alike."""
    directions = [word_direction(word, lora.codes.shape[1]) for word in sorted(words)]
    answers = lora.codes @ np.sum(directions, axis=0) if directions else np.zeros(len(lora.codes), np.float32)
    shot = framing(words)
    fits = np.zeros(len(lora.codes), dtype=np.float32)
    for atom, (aspect, is_cut) in enumerate(zip(lora.aspects, lora.is_cut_below, strict=True)):
        is_whole = not is_cut and aspect < 0.72
        match shot:
            case "close":
                fits[atom] = 1.0 if is_cut and aspect > 0.6 else 0.4 if is_cut else 0.0
            case "full" | "wide":
                fits[atom] = 1.2 if is_whole else 0.4 if aspect < 0.8 else 0.0
            case "medium":
                fits[atom] = 1.0 if is_cut else 0.4
            case _:
                fits[atom] = 0.6
    noise = np.random.default_rng([seed, 3]).normal(0, 0.1, len(fits))
    scores = answers + 0.4 * fits + 1.8 * lora.merit + noise - 10.0 * (lora.strengths <= 1e-3)
    return int(scores.argmax())


def _overcook(colour: Floats, matte: Floats, scale: float) -> Floats:
    """A LoRA turned up too far burns: contrast and colour run over, as with the real thing."""
    grey = colour.mean(axis=-1, keepdims=True)
    gain = np.float32(1 + 0.6 * (scale - 1.4))
    burnt: Floats = np.clip(grey + (colour - grey) * gain + (grey - 0.5 * matte[..., None]) * (gain - 1), 0, 1)
    return burnt
