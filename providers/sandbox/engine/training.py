"""Training: a low-rank factorisation of the pictures in a zip, fitted step by step and written as a LoRA.

B starts at exactly zero and A at random, as in real LoRAs. Each step takes one picture, finds the atom that
serves it and moves that atom (a column of B) and its reader (a row of A) a little towards the picture and its
caption. So more steps fit better, a timid learning rate fits less, and no step at all leaves B at zero.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from domain.errors import BadTrainingSet
from providers.sandbox.engine.bases import Style
from providers.sandbox.engine.layout import Expert, Layout, base_metadata, layout_of, write_lora, write_signal
from providers.sandbox.engine.picture import Bytes, Floats, cut_subject, load_rgb
from providers.sandbox.engine.subjects import find_subjects
from providers.sandbox.engine.words import caption_direction

SMALLEST_SET = 4
"""Pictures; fal's own floor for `flux-lora-fast-training` (shared/reference/fal.md 2.1, read 2026-11)."""
DEFAULT_LEARNING_RATE = 2e-4
"""Default of `wan-22-trainer` (same source); `flux-lora-fast-training` does not say, so the same here."""

_LARGEST_ZIP_BYTES = 2 * 1024**3  # unpacked; fal's cap for training zips (same source)
_LARGEST_FILE_BYTES = 64 * 1024**2
_MOST_FILES = 4000
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LONGEST_SIDE = 1024  # px; larger pictures are brought down to it, as the real trainers do
_STEP_PER_RATE = 500.0  # share of the way to the picture per step = rate × this: 0.1 at the default
_REPORTS = 20
_SAMPLE = 37  # every 37th value is looked at for a report of progress


def ignore(_step: int, _steps: int, _loss: float) -> None:
    """Take a report of progress and do nothing."""


@dataclass(frozen=True)
class _Example:
    name: str
    image: Bytes
    caption: str


def train_lora(
    zip_path: Path,
    *,
    base: str,
    trigger_word: str,
    steps: int,
    learning_rate: float | None,
    rank: int = 16,
    style: Style | None = None,
    expert: Expert | None = None,
    out: Path,
    on_progress: Callable[[int, int, float], None] = ignore,
) -> float:
    """Train on the pictures of a zip, write the LoRA to `out`, return the final loss: 1 untrained … 0 perfect.

    `base` is one of `bases.LAYOUTS`; `style` a trainer's spelling of it, its usual one when none is named. `expert`
    makes one of Wan 2.2's two files: it holds half of the change, and only both together draw the subject fully.

    The loss is half what each picture's own atom still misses of it and half what the mean draw for its caption
    misses of its palette: a set that mixes different characters keeps a high second half. Equal inputs give an
    equal file; repeating overwrites. `on_progress(step, steps, loss)` is called about 20 times, on a sample of the
    values, and once at the end. `BadTrainingSet` names the zip or the file in it that is no good, `Rejected` a base or
    spelling there is not; nothing is written then.
    """
    layout = layout_of(base, style)
    # fal's Wan trainer prepends the trigger word, ai-toolkit adds it where it is missing; the fast FLUX one does not.
    is_prepended = base != "flux-1-dev"
    examples = _read_zip(zip_path, trigger_word, is_prepended)
    findings = find_subjects([example.image for example in examples])
    targets = np.stack(
        [
            write_signal(layout, cut_subject(example.image, finding, layout.width, layout.height))
            for example, finding in zip(examples, findings, strict=True)
        ]
    )
    directions = np.stack([caption_direction(e.caption, trigger_word, layout.code_width) for e in examples])
    rate = DEFAULT_LEARNING_RATE if learning_rate is None else learning_rate
    fit = _Fit(layout, targets, directions, rank, rate)
    fit.run(steps, on_progress)
    loss = fit.loss()
    pair = ""
    if expert is not None:
        fit.atoms *= np.float32(0.5)
        pair = hashlib.sha256(zip_path.read_bytes() + trigger_word.encode()).hexdigest()[:16]
    write_lora(
        out,
        layout,
        fit.atoms,
        fit.codes,
        fit.noise_share,
        seed=_seed(f"{base}/{trigger_word}" + (f"/{expert}" if expert else "")),
        metadata=base_metadata(layout, steps=steps, trigger_word=trigger_word, rank=rank, expert=expert, pair=pair),
    )
    return loss


class _Fit:
    """The factorisation while it is being fitted: `targets` ≈ one-hot codes × `atoms`."""

    def __init__(self, layout: Layout, targets: Floats, directions: Floats, rank: int, rate: float) -> None:
        self.layout, self.targets, self.directions = layout, targets, directions
        self.palettes = _palettes(layout, targets)
        self.sample = np.ascontiguousarray(targets[:, ::_SAMPLE])
        self.atoms = np.zeros((rank, targets.shape[1]), dtype=np.float32)
        # Every A starts at its own noise and takes the same steps, so one sum and one share say where all of them are.
        self.codes = np.zeros((rank, layout.code_width), dtype=np.float32)
        self.noise_share = np.ones(rank, dtype=np.float32)
        self.atom_of = _share_out(targets, rank)
        # Above 1 a step shoots past the picture, above 2 it would run away: a rate far too high fits badly, finitely.
        self.stride = np.float32(min(1.99, rate * _STEP_PER_RATE))

    def run(self, steps: int, on_progress: Callable[[int, int, float], None]) -> None:
        random = np.random.default_rng(len(self.targets))
        order: list[int] = []
        every = max(1, steps // _REPORTS)
        for step in range(1, steps + 1):
            if not order:
                order = random.permutation(len(self.targets)).tolist()
            picture = order.pop()
            atom = self.atom_of[picture]
            self.atoms[atom] += self.stride * (self.targets[picture] - self.atoms[atom])
            self.codes[atom] += self.stride * (self.directions[picture] - self.codes[atom])
            self.noise_share[atom] *= 1 - self.stride
            if step % every == 0 and step < steps:
                on_progress(step, steps, self.loss(is_sampled=True))
        on_progress(steps, steps, self.loss())

    def loss(self, *, is_sampled: bool = False) -> float:
        seen, atoms = (self.sample, self.atoms[:, ::_SAMPLE]) if is_sampled else (self.targets, self.atoms)
        size = (seen**2).sum(axis=1)
        own = ((seen - atoms[self.atom_of]) ** 2).sum(axis=1) / size
        used = np.unique(self.atom_of)
        closeness: Floats = np.float32(8) * np.einsum("pd,ad->pa", self.directions, self.codes[used])
        weights = np.exp(closeness - closeness.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        drawn = np.einsum("pa,ac->pc", weights, _palettes(self.layout, self.atoms[used]))
        mixed = ((self.palettes - drawn) ** 2).sum(axis=1) / (self.palettes**2).sum(axis=1)
        return float(np.mean(0.5 * own + 0.5 * mixed))


def _palettes(layout: Layout, signals: Floats) -> Floats:
    """Each signal's colours, whatever their place and light: an 8×8 histogram of chromaticities, [signals, 64].

    It sums to how far the signal is fitted: an atom still at zero has no colours.
    """
    fitted = signals[:, layout.fitted_at]
    raw = signals[:, : layout.width * layout.height * 3].reshape(len(signals), -1, 3)[:, ::29]
    pixels = raw / np.maximum(np.abs(fitted), np.float32(1e-3))[:, None, None]
    share = pixels / np.maximum(pixels.sum(axis=-1, keepdims=True), 1e-3)
    red_green = np.clip((share[..., 0] - share[..., 1] + 0.5) * 8, 0, 7).astype(np.int64)
    blue_yellow = np.clip((1.5 * share[..., 2] + 0.1) / 1.2 * 8, 0, 7).astype(np.int64)
    palettes = np.zeros((len(signals), 8, 8), dtype=np.float32)
    for number in range(len(signals)):
        is_seen = pixels[number].max(axis=-1) > 0.06
        counts = np.bincount((red_green * 8 + blue_yellow)[number], is_seen.astype(np.float64), minlength=64)
        palettes[number] = counts.reshape(8, 8) * fitted[number] / max(1.0, counts.sum())
    for axis in (1, 2):
        palettes = (0.5 * palettes + 0.25 * (np.roll(palettes, 1, axis) + np.roll(palettes, -1, axis))).astype(
            np.float32
        )
    return palettes.reshape(len(signals), -1)


def _share_out(targets: Floats, rank: int) -> list[int]:
    """Which atom serves which picture: one each while there are enough, else the most alike ones share."""
    groups = [[k] for k in range(len(targets))]
    seen = targets[:, ::53]
    means = seen.astype(np.float64)
    while len(groups) > rank:
        square = (means**2).sum(axis=1)
        apart = square[:, None] + square[None] - 2 * means @ means.T
        sizes = np.array([len(group) for group in groups], dtype=np.float64)
        apart *= sizes[:, None] * sizes[None] / (sizes[:, None] + sizes[None])  # Ward: what the merger would blur
        np.fill_diagonal(apart, np.inf)
        first, second = sorted(int(k) for k in np.unravel_index(int(apart.argmin()), apart.shape))
        groups[first] += groups.pop(second)
        means = np.delete(means, second, axis=0)
        means[first] = seen[groups[first]].mean(axis=0)
    atom_of = [0] * len(targets)
    for atom, group in enumerate(groups):
        for picture in group:
            atom_of[picture] = atom
    return atom_of


def _read_zip(zip_path: Path, trigger_word: str, is_prepended: bool) -> list[_Example]:
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = _checked_members(archive, zip_path.name)
            captions = {
                PurePosixPath(m.filename).with_suffix("").as_posix(): archive.read(m).decode("utf-8", "replace").strip()
                for m in members
                if m.filename.lower().endswith(".txt")
            }
            pictures = [m for m in members if m.filename.lower().endswith(_PICTURE_SUFFIXES)]
            if len(pictures) < SMALLEST_SET:
                raise BadTrainingSet(
                    f"The training zip {zip_path.name} holds {len(pictures)} pictures (JPEG, PNG or WebP) and at least "
                    f"{SMALLEST_SET} are needed: add more."
                )
            examples = []
            for member in sorted(pictures, key=lambda m: m.filename):
                stem = PurePosixPath(member.filename).with_suffix("").as_posix()
                caption = captions.get(stem) or trigger_word
                if is_prepended and trigger_word.lower() not in caption.lower():
                    caption = f"{trigger_word} {caption}"
                examples.append(_Example(member.filename, _decode(archive.read(member), member.filename), caption))
            return examples
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError is how zipfile says "encrypted", NotImplementedError an unknown compression.
        raise BadTrainingSet(
            f"The training file {zip_path.name} cannot be read as a zip ({error}): build it again."
        ) from error


def _checked_members(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """The files of the archive, after looking at what it claims to unpack to; nothing is unpacked yet."""
    members = [
        m
        for m in archive.infolist()
        if not m.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(m.filename).parts)
    ]
    unpacked = sum(m.file_size for m in members)
    largest = max((m.file_size for m in members), default=0)
    if len(members) > _MOST_FILES or unpacked > _LARGEST_ZIP_BYTES or largest > _LARGEST_FILE_BYTES:
        raise BadTrainingSet(
            f"The training zip {name} would unpack to {len(members)} files and {unpacked} bytes, the largest "
            f"{largest}: at most {_MOST_FILES} files, {_LARGEST_ZIP_BYTES} bytes in all and {_LARGEST_FILE_BYTES} each "
            "are taken."
        )
    return members


def _decode(data: bytes, name: str) -> Bytes:
    try:
        return load_rgb(io.BytesIO(data), _LONGEST_SIDE)
    except (OSError, ValueError, SyntaxError) as error:
        raise BadTrainingSet(f"The training picture {name} cannot be read ({error}): replace it.") from error


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
