"""How well twins are found, and how long choosing takes: `python -m benchmarks.choosing [--fresh SEED]`.

Pairs of pictures with known truth: the same picture edited (JPEG, light, size, crop, grain, blur, a moment later) is a
twin, another pose, view, framing, place or person is not. The thresholds of tasks/choosing.py were chosen on the
development pictures (three of the demo's places, designs from 0 up) and then frozen; the held-out ones (the other three
places, designs no choice has seen) only report. Then one person's pictures are chosen from, beside two plainer ways.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks import drawn_people
from domain.frame_rules import DUPLICATE_BITS, hash_distance
from domain.pictures import Framing, Light, View
from providers.media_measures import measured
from providers.picture_layout import LayoutDescriber
from providers.vision import AppearanceScorer
from studio.demo import poses
from studio.demo.cast import draw_character, random_design
from studio.demo.designs import Pose
from studio.demo.scenes import PLACES, paint_scene
from tasks.choosing import Choosable, choose, layout_likeness, outfits, without_twins

Pixels = NDArray[np.uint8]
SIZE = (640, 360)
PUBLISHED_COSINE = 0.96
"""From which other embeddings call two pictures one (curation_and_identity.md section 1)."""

SAME_OUTFIT = 0.3
"""Mean likeness from which two groups of sightings wear one outfit; chosen on the development people."""

PEOPLE = 12
SHOTS = 4
POSES: tuple[Callable[[float], Pose], ...] = (
    poses.stand,
    poses.on_hip,
    poses.wave,
    poses.point,
    poses.cheer,
    poses.think,
    lambda yaw: poses.walk(yaw, 0.25),
    lambda yaw: poses.run(yaw, 0.6),
)
VIEWS = (View.FRONTAL, View.THREE_QUARTER, View.PROFILE)
YAWS = tuple(poses.VIEWS.values())
FACES = ("calm", "laughing", "surprised", "cross")
FRAMINGS = (Framing.FULL, Framing.BUST, Framing.CLOSE_UP)


class Staging:
    """A drawn person at a painted place; every part can be changed by itself."""

    def __init__(self, seed: int, places: tuple[str, ...]) -> None:
        draw = random.Random(f"staging {seed}")  # noqa: S311 - pictures, not secrets
        self.design = seed
        self.places = places
        self.place = draw.randrange(len(places))
        self.framing = draw.randrange(3)
        self.view = draw.randrange(3)
        self.pose = draw.randrange(len(POSES))
        self.face = draw.randrange(len(FACES))
        self.across = draw.uniform(0.3, 0.7)
        self.zoom = draw.uniform(1.0, 1.5)
        self.left = draw.random()
        self.top = draw.random()

    def changed(self, **parts: float) -> Staging:
        other = Staging(self.design, self.places)
        other.__dict__.update(self.__dict__ | parts)
        return other

    def picture(self) -> Pixels:
        scene = _place(self.places[self.place % len(self.places)], 7 + self.design % 5)
        width, height = round(1280 / self.zoom), round(720 / self.zoom)
        left, top = round(self.left * (1280 - width)), round(self.top * (720 - height))
        canvas = scene.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BILINEAR)
        yaw = YAWS[self.view % 3]
        person = draw_character(
            random_design(self.design),
            expression=FACES[self.face % len(FACES)],
            size=SIZE[1],
            framing=FRAMINGS[self.framing % 3].value,
            pose=POSES[self.pose % len(POSES)](yaw),
            background=None,
        )
        canvas.paste(person, (round(self.across * SIZE[0] - SIZE[1] / 2), 0), person)
        return np.asarray(canvas)


_painted: dict[tuple[str, int], Image.Image] = {}


def _place(name: str, seed: int) -> Image.Image:
    if (name, seed) not in _painted:
        _painted[name, seed] = paint_scene(name, seed).picture.convert("RGB").resize((1280, 720))
    return _painted[name, seed]


def textured(seed: int) -> Pixels:
    """A photo-like picture without any drawing: clouds of 1/f noise in three tinted layers and some hard blobs."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(180)[:, None], np.fft.rfftfreq(320)[None, :]
    slope = 1 / np.maximum(np.hypot(down, across), 1 / 320) ** rng.uniform(1.0, 1.6)
    picture = np.zeros((180, 320, 3))
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(slope.shape))
        cloud = np.fft.irfft2(slope * phase, (180, 320))
        picture += (cloud / cloud.std())[..., None] * rng.uniform(-30, 40, 3)
    rows, columns = np.indices((180, 320))
    for _ in range(6):
        inside = np.hypot(rows - rng.uniform(0, 180), columns - rng.uniform(0, 320)) < rng.uniform(10, 60)
        picture[inside] += rng.uniform(-70, 70, 3)
    picture += rng.uniform(60, 170, 3)
    small = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC))


def _jpeg(picture: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file).convert("RGB"))


def _light(factor: float) -> Callable[[Pixels], Pixels]:
    return lambda picture: np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(factor))


def _crop(share: float, across: float, down: float) -> Callable[[Pixels], Pixels]:
    """That share of each side, from a place of 0 (left, top) to 1."""

    def crop(picture: Pixels) -> Pixels:
        height, width = picture.shape[:2]
        left, top = round(across * width * (1 - share)), round(down * height * (1 - share))
        return picture[top : top + round(height * share), left : left + round(width * share)]

    return crop


def _half(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS))


def _soft(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.5)))


def _grain(picture: Pixels) -> Pixels:
    grain = np.random.default_rng(1).normal(0, 8, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


EDITS: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG quality 30": _jpeg,
    "brightness × 0.7": _light(0.7),
    "brightness × 1.3": _light(1.3),
    "half the size": _half,
    "blur σ 1.5 px": _soft,
    "grain σ 8": _grain,
    "90 % crop, middle": _crop(0.9, 0.5, 0.5),
    "90 % crop, corner": _crop(0.9, 0.0, 1.0),
    "93 % crop, off middle": _crop(0.93, 0.3, 0.8),
    "96 % crop, off middle": _crop(0.96, 0.75, 0.2),
}


def twins(first: int, places: tuple[str, ...]) -> Iterator[tuple[str, Pixels, Pixels]]:
    """The same picture twice, with the name of what was done to it."""
    for seed in range(first, first + PEOPLE * SHOTS):
        staging = Staging(seed, places)
        person = drawn_people.picture(drawn_people.design(seed), drawn_people.random_shot(seed))
        for picture in (staging.picture(), person, textured(seed)):
            for name, edit in EDITS.items():
                yield name, picture, edit(picture)
        drifted = staging.changed(across=staging.across + 0.008, zoom=staging.zoom * 1.01)
        yield "a moment later", staging.picture(), drifted.picture()


def strangers(first: int, places: tuple[str, ...]) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Two pictures that a set may well hold both, with the name of what differs."""
    for seed in range(first, first + PEOPLE * SHOTS):
        one = Staging(seed, places)
        picture = one.picture()
        if one.framing != 2:  # in a close-up the arms are out of sight
            yield "other pose", picture, one.changed(pose=one.pose + 2 + seed % 3).picture()
        yield "other view", picture, one.changed(view=one.view + 1).picture()
        yield "other framing", picture, one.changed(framing=one.framing + 1).picture()
        yield "other place", picture, one.changed(place=one.place + 1).picture()
        yield (
            "other place in it",
            picture,
            one.changed(across=1.0 - one.across + (0.15 if one.across < 0.5 else -0.15)).picture(),
        )
        yield "another person", picture, one.changed(design=seed + 7).picture()
        yield "all differs", picture, Staging(seed + 1, places).picture()
        yield "textures", textured(seed), textured(seed + 1)
        who = drawn_people.design(seed)
        shots = [drawn_people.picture(who, drawn_people.random_shot(seed * 31 + k)) for k in (0, 1)]
        yield "other shot", shots[0], shots[1]


def mirrored(first: int, places: tuple[str, ...]) -> Iterator[tuple[str, Pixels, Pixels]]:
    """A picture and its mirror image: counted neither as twins nor as different."""
    for seed in range(first, first + PEOPLE * SHOTS):
        picture = Staging(seed, places).picture()
        yield "mirrored", picture, picture[:, ::-1].copy()


Calls = dict[str, list[tuple[bool, bool, bool]]]
"""By kind of pair, for each: do the hashes alone say twins, does the layouts' cosine alone, does `without_twins`."""


def main() -> None:
    """Print how often each kind of pair is called twins, then what choosing gives and costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", type=int, default=5000, metavar="SEED", help="first of the unseen pictures")
    fresh = parser.parse_args().fresh
    describer = LayoutDescriber()
    measure_twins(describer, "development", 0, PLACES[:3])
    measure_twins(describer, "held out", fresh, PLACES[3:])
    measure_choosing(describer, fresh)
    measure_outfits("development", 0)
    measure_outfits("held-out", fresh)
    measure_cost(describer)


def measure_twins(describer: LayoutDescriber, name: str, first: int, places: tuple[str, ...]) -> None:
    """One table: the share of each kind of pair that is called twins."""
    same = call(describer, twins(first, places))
    other = call(describer, strangers(first, places))
    print(f"\n{name}: share called twins by      hash alone   cosine 0.96  in use   pairs")  # noqa: T201
    for kind, calls in (same | other | call(describer, mirrored(first, places))).items():
        shares = np.mean(calls, axis=0)
        print(f"  {kind:32s} {shares[0]:10.0%} {shares[1]:13.0%} {shares[2]:7.0%} {len(calls):7d}")  # noqa: T201
    rights, wrongs = (np.array([c for calls in kinds.values() for c in calls]) for kinds in (same, other))
    for title, shares in (("recall", rights.mean(axis=0)), ("others called twins", wrongs.mean(axis=0))):
        print(f"  {title:32s} {shares[0]:10.1%} {shares[1]:13.1%} {shares[2]:7.1%}")  # noqa: T201
    precision = rights.mean(axis=0) / (rights.mean(axis=0) + wrongs.mean(axis=0))
    print(  # noqa: T201
        f"  {'precision, as many of each':32s} {precision[0]:10.1%} {precision[1]:13.1%} {precision[2]:7.1%}"
    )


def call(describer: LayoutDescriber, pairs: Iterable[tuple[str, Pixels, Pixels]]) -> Calls:
    """What is said of each pair. No view or framing is given: those only help."""
    calls: Calls = defaultdict(list)
    for kind, one, other in pairs:
        pair = [_choosable(describer, name, picture) for name, picture in (("a", one), ("b", other))]
        by_hash = hash_distance(pair[0].hash64, pair[1].hash64) <= DUPLICATE_BITS
        by_cosine = float(layout_likeness(pair)[0, 1]) >= PUBLISHED_COSINE
        calls[kind].append((by_hash, by_cosine, len(without_twins(pair).taken) == 1))
    return calls


def _choosable(describer: LayoutDescriber, name: str, picture: Pixels, **known: object) -> Choosable:
    frame = measured(picture)
    facts = {"name": name, "source": "a", "sharpness": frame.sharpness, "hash64": frame.hash64} | known
    return Choosable.model_validate(facts | {"layout": describer.describe(picture)})


def measure_choosing(describer: LayoutDescriber, first: int) -> None:
    """240 pictures of one person from six clips of unequal length, mostly frontal full figures: which 24 are taken?"""
    draw = random.Random(f"clips {first}")  # noqa: S311 - pictures, not secrets
    pictures: list[Choosable] = []
    for clip, length in enumerate((100, 60, 40, 20, 12, 8)):
        scene = Staging(first, (PLACES[clip],)).changed(place=0, zoom=draw.uniform(1.0, 1.4))
        light, gain = draw.choice([(Light.NIGHT, 0.5), (Light.SOFT, 1.0), (Light.BRIGHT, 1.3)])
        for k in range(length):
            shot = scene.changed(
                framing=draw.choices(range(3), (7, 2, 1))[0],
                view=draw.choices(range(3), (7, 2, 1))[0],
                pose=draw.randrange(len(POSES)),
                face=draw.randrange(len(FACES)),
                across=draw.uniform(0.3, 0.7),
            )
            known = {"source": f"clip-{clip}", "at_seconds": k * 0.5, "light": light}
            labels = {"framing": FRAMINGS[shot.framing], "view": VIEWS[shot.view]}
            pictures.append(_choosable(describer, f"f{len(pictures)}", _light(gain)(shot.picture()), **known, **labels))
    distinct = without_twins(pictures).taken
    print(f"\nchoosing 24 of 240 drawn pictures of six clips ({len(distinct)} without twins)")  # noqa: T201
    print("                     framings             views        clips  nearest two  mean nearest of all")  # noqa: T201
    _show("as made", distinct, pictures)
    _show("the sharpest", sorted(distinct, key=lambda p: -p.sharpness)[:24], pictures)
    _show("at random", draw.sample(distinct, 24), pictures)
    _show("choose()", choose(distinct, 24).taken, pictures)


def _show(name: str, chosen: Iterable[Choosable], pictures: list[Choosable]) -> None:
    names = [picture.name for picture in chosen]
    places = [i for i, picture in enumerate(pictures) if picture.name in names]
    likeness = layout_likeness(pictures)
    among = likeness[np.ix_(places, places)] - 2 * np.eye(len(places))
    framings, views, clips = (
        Counter(getattr(pictures[i], part) for i in places) for part in ("framing", "view", "source")
    )
    counts = " ".join(f"{framings[framing]:3d}" for framing in FRAMINGS)
    turned = " ".join(f"{views[view]:3d}" for view in VIEWS)
    print(  # noqa: T201
        f"  {name:14s} full/bust/close {counts}  f/3q/p {turned}  {len(clips)} (≤{max(clips.values())}) "
        f"{among.max():8.3f} {likeness[:, places].max(axis=1).mean():10.3f}"
    )


def measure_outfits(name: str, first: int) -> None:
    """16 people in two sets of clothes, 12 and 9 pictures, and each in the first set only: how the outfits are told."""
    scorer = AppearanceScorer()
    figures = []
    for number in range(first, first + 16):
        one, other = drawn_people.design(number), drawn_people.design(number + 900)
        clothes = {part: getattr(other, part) for part in ("top", "bottom", "outfit", "shoes", "accent")}
        framed = [(one, shot) for shot in range(12)] + [(replace(one, **clothes), 50 + shot) for shot in range(9)]
        looks, worn = [], []
        for who, shot in framed:
            seed = number * 100 + shot
            framing = ("full", "bust", "close")[shot % 3]
            look = scorer.describe(drawn_people.picture(who, drawn_people.random_shot(seed, framing=framing)))
            if look.vector is not None:
                looks.append(look)
                worn.append(who == one)
        likeness = np.array([[scorer.similarity(a, b) for a in looks] for b in looks], np.float32)
        told = np.array(outfits(likeness, SAME_OUTFIT))
        truth, pairs = np.array(worn), np.triu_indices(len(worn), 1)
        same, joined = (truth[:, None] == truth)[pairs], (told[:, None] == told)[pairs]
        alone = outfits(likeness[np.ix_(truth, truth)], SAME_OUTFIT)
        figures.append((joined[same].mean(), joined[~same].mean(), told.max() + 1, max(alone) + 1))
    together, wrongly, of_two, of_one = np.mean(figures, axis=0)
    print(  # noqa: T201
        f"\noutfits of {name} people: {together:.0%} of pairs in one outfit kept together, {wrongly:.0%} in two "
        f"joined; two outfits count as {of_two:.1f}, one as {of_one:.1f}"
    )


def measure_cost(describer: LayoutDescriber) -> None:
    """Processor time of describing a 1080p picture, and of choosing among 900."""
    picture = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    describer.describe(picture)
    started = time.process_time()
    for _ in range(20):
        describer.describe(picture)
    print(f"\ndescribing a 1080p picture: {(time.process_time() - started) * 50:.1f} ms of processor time")  # noqa: T201
    rng = np.random.default_rng(1)
    layouts = rng.normal(size=(900, 10, 64, 11)).astype(np.float32)
    layouts /= np.sqrt((layouts**2).sum(axis=(2, 3), keepdims=True))
    many = [
        Choosable(
            name=f"f{k}",
            source=f"clip-{k % 12}",
            at_seconds=k / 12,
            sharpness=float(rng.random()),
            hash64=int(rng.integers(0, 2**62)),
            layout=layout,
            framing=FRAMINGS[k % 3],
            view=VIEWS[k % 7 % 3],
        )
        for k, layout in enumerate(layouts)
    ]
    for name, step in (("without_twins", lambda: without_twins(many)), ("choose", lambda: choose(many, 24))):
        wall, used = time.perf_counter(), time.process_time()
        step()
        wall, used = time.perf_counter() - wall, time.process_time() - used
        print(f"{name} of 900 pictures: {wall:.2f} s, {used:.2f} s of processor time")  # noqa: T201


if __name__ == "__main__":
    main()
