"""Two characters who cross paths: `python -m benchmarks.crossing [--pairs N] [--encoded] [--show]`.

Planted clips of two drawn people (benchmarks/crossing_film.py): each alone, both apart, one before the other. Kept is
what `who_is_who` calls right, cut to its room. The bar: none of the kept shows the wrong one, at most 5 % of the right
ones are lost. A right one counts where it is alone or 32 px or more from the other, with at least 320 px to cut out;
shown is the other from 5 % of their visible pixels on. The thresholds were chosen on the development pairs; the
held-out pairs were drawn afterwards. With --encoded the pictures of the first pair go through H.264 and back.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.crossing_film import Planted, Seen, encode, pictures_of, season_of
from domain.characters import CharacterKind
from domain.people_seen import PictureSeen, SubjectSeen
from domain.pictures import Box
from domain.right_person import Sighting, Verdict, WhoIsWho, who_is_who
from domain.rooms import room_for
from providers.faces import FaceFinder
from providers.media import FfmpegMediaTools, find_ffmpeg
from providers.ports import RgbImage, Subject
from providers.subjects import ColourSubjectFinder
from providers.vision import AppearanceScorer
from studio.demo.cast import CAST, random_design
from studio.demo.designs import Design

DEVELOPMENT = (
    *(("mei", "rui"), ("tova", "dario"), ("mei", "tova"), ("rui", "dario")),
    *((number, number + 1) for number in (1, 3, 5, 7, 301, 303, 305, 307, 309, 311)),
    *(("dario", "mei"), ("tova", "rui")),
    *((number, number + 1) for number in (501, 503, 505, 507, 509, 511)),
)
HELD_OUT = (("dario", "rui"), ("tova", "mei"), *((number, number + 1) for number in (701, 703, 705, 707, 709, 711)))
SHOWN_FROM = 0.05
APART_PIXELS = 32
SMALLEST_SIDE = 320


def main() -> None:
    """Print a table for each set of pairs, with nobody confirmed and with two pictures confirmed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=99, help="at most so many pairs of each set")
    parser.add_argument("--encoded", action="store_true", help="the first held-out pair through H.264 and back")
    parser.add_argument("--show", action="store_true", help="name every picture that was lost or shows the other")
    options = parser.parse_args()
    finder = ColourSubjectFinder(AppearanceScorer())
    if options.encoded:
        right, wrong = (_design(who) for who in HELD_OUT[0])
        print(f"\nencoded: {right.name} and {wrong.name}")  # noqa: T201
        _table([measure(finder, right, 100, decoded(right, wrong, 100), options.show)])
        return
    for name, pairs, first in (("development", DEVELOPMENT, 0), ("held-out", HELD_OUT, 400)):
        print(f"\n{name}")  # noqa: T201
        rows = []
        for number, pair in enumerate(pairs[: options.pairs], first):
            right, wrong = _design(pair[0]), _design(pair[1])
            rows.append(measure(finder, right, number, drawn(right, wrong, number), options.show))
        _table(rows)
    _speed(finder, drawn(_design("mei"), _design("rui"), 0)[:20])


def drawn(right: Design, wrong: Design, seed: int) -> list[Planted]:
    """The pictures of a pair's seven clips, two a second, as they were drawn."""
    return [picture for clip in season_of(right, wrong, seed) for picture in pictures_of(clip)]


def decoded(right: Design, wrong: Design, seed: int) -> list[Planted]:
    """The same pictures after H.264 and back."""
    media = FfmpegMediaTools(find_ffmpeg())
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in season_of(right, wrong, seed):
            path = encode(clip, Path(folder) / f"{clip.name}.mp4")
            truth = list(pictures_of(clip))
            images = media.frames_at(path, [picture.at_seconds for picture in truth])
            found += [replace(picture, image=image) for picture, image in zip(truth, images, strict=True)]
    return found


def measure(
    finder: ColourSubjectFinder,
    right: Design,
    seed: int,
    pictures: list[Planted],
    is_shown: bool = False,
) -> Counter[str]:
    """What becomes of a pair's pictures: counts by name; `seed` is only printed."""
    people = [finder.subjects(picture.image, CharacterKind.ILLUSTRATED) for picture in pictures]
    found: Counter[str] = Counter(pictures=len(pictures))
    for is_confirmed in (False, True):
        who = judge(pictures, people, is_confirmed)
        kind = "confirmed" if is_confirmed else "unaided"
        found[f"{kind} doubt"] += bool(who.doubt)
        for picture, sighting in zip(pictures, who.sightings, strict=True):
            outcome = outcome_of(picture, sighting, right.name)
            found[f"{kind} kept"] += sighting.verdict is Verdict.RIGHT
            found[f"{kind} {outcome}"] += 1
            if is_shown and not is_confirmed and outcome in ("lost", "asked", "wrong"):
                print(  # noqa: T201
                    f"  {seed} {right.name}: {picture.clip} {picture.at_seconds:.2f} s {outcome}: "
                    f"{sighting.verdict.value} {sighting.reason}"
                )
        found["clear"] += 0 if is_confirmed else sum(is_clear(picture, right.name) for picture in pictures)
    alone = [k for k, picture in enumerate(pictures) if picture.clip.startswith("right")]
    by_itself = judge([pictures[k] for k in alone], [people[k] for k in alone], False)
    found["alone"] = len(alone)
    found["alone kept"] = sum(sighting.verdict is Verdict.RIGHT for sighting in by_itself.sightings)
    return found


def judge(pictures: Sequence[Planted], people: Sequence[Sequence[Subject]], is_confirmed: bool) -> WhoIsWho:
    """The verdicts; confirmed are the first two pictures of the clip `right-2`."""
    scorer = AppearanceScorer()
    places = [(n, k) for n, own in enumerate(people) for k, one in enumerate(own) if one.appearance.vector is not None]
    alike = scorer.similarities([people[n][k].appearance for n, k in places])
    row_of = {place: row for row, place in enumerate(places)}
    seen = [
        PictureSeen(
            source=picture.clip,
            width=picture.image.shape[1],
            height=picture.image.shape[0],
            subjects=tuple(
                SubjectSeen(box=one.box, is_judged=one.appearance.vector is not None, is_sure=one.is_sure)
                for one in own
            ),
            is_confirmed=is_confirmed and picture.clip == "right-2" and picture.at_seconds < 1,
            at_seconds=picture.at_seconds,
        )
        for picture, own in zip(pictures, people, strict=True)
    ]
    return who_is_who(seen, lambda one, other: float(alike[row_of[one], row_of[other]]), smallest_side=SMALLEST_SIDE)


def outcome_of(picture: Planted, sighting: Sighting, name: str) -> str:
    """`wrong` (kept, without the right one or with the other in it), `lost`, `asked` (left to a person) or `well`."""
    if sighting.verdict is not Verdict.RIGHT or sighting.room is None:
        missing = "asked" if sighting.verdict is Verdict.DOUBTFUL else "lost"
        return missing if is_clear(picture, name) else "well"
    shown = {one.name: _share_in(one, sighting.room) for one in picture.seen}
    is_wrong = shown.get(name, 0.0) < 0.5 or any(share > SHOWN_FROM for who, share in shown.items() if who != name)
    return "wrong" if is_wrong else "well"


def is_clear(picture: Planted, name: str) -> bool:
    """Whether the right one is alone or clearly apart: it could be cut out without anybody else."""
    own = next((one for one in picture.seen if one.name == name), None)
    if own is None:
        return False
    height, width = picture.image.shape[:2]
    left, right = 0, width
    for other in (one.box for one in picture.seen if one.name != name):
        if other.right + APART_PIXELS <= own.box.left:
            left = max(left, other.right)
        elif other.left - APART_PIXELS >= own.box.right:
            right = min(right, other.left)
        else:
            return False
    return room_for(own.box, [], width, height, SMALLEST_SIDE) is not None and right - left >= SMALLEST_SIDE


def _share_in(one: Seen, room: Box) -> float:
    inside = one.visible[room.top // 4 : room.bottom // 4, room.left // 4 : room.right // 4]
    return float(inside.sum() / max(1, int(one.visible.sum())))


def _table(rows: list[Counter[str]]) -> None:
    total = sum(rows, Counter[str]())
    print(f"  {len(rows)} pairs, {total['pictures']} pictures, the right one clear in {total['clear']}")  # noqa: T201
    for kind in ("unaided", "confirmed"):
        lost, asked = (total[f"{kind} {what}"] / max(1, total["clear"]) for what in ("lost", "asked"))
        print(  # noqa: T201
            f"  {kind:<10} kept {total[f'{kind} kept']:>4}   showing the wrong one {total[f'{kind} wrong']:>3}   "
            f"right ones lost {total[f'{kind} lost']:>3} ({lost:.1%})   left to a person {total[f'{kind} asked']:>3} "
            f"({asked:.1%})   pairs wholly so {total[f'{kind} doubt']}"
        )
    print(f"  one character alone: kept {total['alone kept']} of {total['alone']}")  # noqa: T201


def _speed(finder: ColourSubjectFinder, pictures: list[Planted]) -> None:
    faces = FaceFinder()
    images: list[RgbImage] = [np.ascontiguousarray(picture.image) for picture in pictures]
    faces.faces(images[0])
    start = time.process_time()
    for image in images:
        faces.faces(image)
    bare = time.process_time()
    for image in images:
        finder.subjects(image, CharacterKind.ILLUSTRATED)
    whole = time.process_time()
    print(  # noqa: T201
        f"\nCPU per 720-line picture: {(whole - bare) / len(images) * 1000:.0f} ms, "
        f"of which the bare face detector {(bare - start) / len(images) * 1000:.0f} ms"
    )


def _design(who: str | int) -> Design:
    return CAST[who] if isinstance(who, str) else random_design(who)


if __name__ == "__main__":
    main()
