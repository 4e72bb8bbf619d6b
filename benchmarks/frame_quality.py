"""Are frames judged rightly? `python -m benchmarks.frame_quality [--half development|held-out|both] [--workers 2]`.

Draws the quality test set (`benchmarks/quality_clips.py`), encodes each clip, harvests it as the program does, and
compares what was said of each look with what is true of that frame. Prints, for each rule, how many looks have the
flaw, precision, recall, the share dropped for whatever reason, and every confusion with the clips it happened in.
About 2 s of one core for each clip.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.quality_clips import CASES, film_of
from benchmarks.quality_stage import RATE, Film, Flaw, Half, encode
from domain.frame_rules import common_bars
from domain.looks import Bars, Harvest
from domain.records import Record
from providers.media_harvest import harvest_clip

WANTED = 16
BARS_TOLERANCE = 6
"""Pixels of 640×360 by which a cut may be deeper than the bar; never shallower."""

_SAYS = {
    "blurred": Flaw.BLURRED,
    "too dark": Flaw.DARK,
    "too bright": Flaw.BRIGHT,
    "flat": Flaw.FLAT,
    "black": Flaw.BLANK,
    "white": Flaw.BLANK,
    "blank": Flaw.BLANK,
    "noisy": Flaw.NOISY,
    "in a fade": Flaw.FADE,
    "on a cut": Flaw.CUT,
    "frozen": Flaw.FROZEN,
}


class SeenLook(Record):
    """A scored look: what is true, what was said (`NONE` also for a good frame the clip has enough of)."""

    case: str
    truth: Flaw
    said: Flaw
    is_dropped: bool


class SeenClip(Record):
    """What came of one film of the test set."""

    name: str
    half: Half
    looks: tuple[SeenLook, ...]
    has_bars: bool
    are_bars_right: bool
    has_text: bool
    kept: int
    marked: int
    shots: int
    true_shots: int | None
    slides_right: bool | None


def judge_film(job: tuple[Half, int, int]) -> SeenClip:
    """Draw, encode and harvest one film in a temporary folder, and compare it with its truth."""
    film = film_of(*job)
    with tempfile.TemporaryDirectory(prefix="onmodel-quality-") as name:
        folder = Path(name)
        harvest = harvest_clip(encode(film, folder), folder / "frames", WANTED)
    kept = [look for look in harvest.looks if look.is_kept]
    return SeenClip(
        name=film.name,
        half=film.half,
        looks=tuple(_scored(film, harvest)),
        has_bars=film.bars != Bars(),
        are_bars_right=_are_right(common_bars([look.measures for look in harvest.looks]), film.bars),
        has_text=film.has_text,
        kept=len(kept),
        marked=sum(1 for look in kept if look.mark),
        shots=1 + max(look.shot for look in harvest.looks),
        true_shots=film.shots,
        slides_right=len(kept) == film.shots if film.is_still else None,
    )


def said_flaw(reason: str) -> Flaw:
    """Which rule a reason comes from; `NONE` for the reasons of choosing (too close, nearly the same, enough)."""
    return next((flaw for words, flaw in _SAYS.items() if reason.startswith(words)), Flaw.NONE)


def report(clips: Sequence[SeenClip]) -> str:
    """The tables of one half, as Markdown."""
    looks = [look for clip in clips for look in clip.looks]
    sound = sum(1 for look in looks if look.truth is Flaw.NONE)
    lines = [
        f"{len(clips)} clips, {len(looks)} scored looks, {sound} of them sound.",
        "",
        "| rule | looks with it | precision | recall | dropped for any reason |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for flaw in Flaw:
        if flaw in (Flaw.NONE, Flaw.UNSCORED):
            continue
        true = [look for look in looks if look.truth is flaw]
        said = [look for look in looks if look.said is flaw]
        right = sum(1 for look in true if look.said is flaw)
        dropped = sum(1 for look in true if look.is_dropped)
        lines.append(
            f"| {flaw} | {len(true)} | {_share(right, len(said))} | {_share(right, len(true))} "
            f"| {_share(dropped, len(true))} |"
        )
    wrongly = sum(1 for look in looks if look.truth is Flaw.NONE and look.said is not Flaw.NONE)
    lines += ["", f"Sound looks called flawed: {wrongly} of {sound}.", ""]
    lines += ["| of whole clips | cases | right | others | wrongly found |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [_clip_row("bars cut off, 0 to 6 px too much", [(c.has_bars, c.are_bars_right) for c in clips])]
    text = [clip for clip in clips if clip.kept]
    marked, unmarked = [c for c in text if c.has_text], [c for c in text if not c.has_text]
    lines.append(
        f"| kept frames with burnt-in text marked | {sum(c.kept for c in marked)} | {sum(c.marked for c in marked)} "
        f"| {sum(c.kept for c in unmarked)} | {sum(c.marked for c in unmarked)} |"
    )
    several = [c for c in clips if c.true_shots is not None and c.true_shots > 1]
    single = [c for c in clips if c.true_shots == 1]
    lines.append(
        f"| number of shots | {len(several)} | {sum(c.shots == c.true_shots for c in several)} "
        f"| {len(single)} | {sum(c.shots != 1 for c in single)} |"
    )
    slides = [c.slides_right for c in clips if c.slides_right is not None]
    lines.append(f"| slides keep one frame each | {len(slides)} | {sum(slides)} | | |")
    return "\n".join([*lines, "", "Confusions (what is true → what was said):", "", *_confusions(clips)])


def _scored(film: Film, harvest: Harvest) -> Iterable[SeenLook]:
    for look in harvest.looks:
        truth = film.flaws[min(len(film.flaws) - 1, round(look.measures.at_seconds * RATE))]
        if truth is not Flaw.UNSCORED:
            yield SeenLook(case=film.case, truth=truth, said=said_flaw(look.reason), is_dropped=not look.is_kept)


def _are_right(found: Bars, true: Bars) -> bool:
    pairs = (
        (found.left, true.left),
        (found.top, true.top),
        (found.right, true.right),
        (found.bottom, true.bottom),
    )
    return all(cut == 0 if bar == 0 else bar <= cut <= bar + BARS_TOLERANCE for cut, bar in pairs)


def _clip_row(what: str, cases: Sequence[tuple[bool, bool]]) -> str:
    positive = [right for has, right in cases if has]
    negative = [right for has, right in cases if not has]
    wrong = len(negative) - sum(negative)
    return f"| {what} | {len(positive)} | {sum(positive)} | {len(negative)} | {wrong} |"


def _confusions(clips: Sequence[SeenClip]) -> list[str]:
    counts: Counter[tuple[Flaw, Flaw, str]] = Counter()
    for clip in clips:
        counts.update((k.truth, k.said, clip.name) for k in clip.looks if k.truth is not k.said)
    lines = [f"- {truth} → {said}: {count} in {name}" for (truth, said, name), count in sorted(counts.items())]
    for clip in clips:
        if not clip.are_bars_right:
            lines.append(f"- bars wrong in {clip.name}")
        if clip.kept and (clip.marked < clip.kept if clip.has_text else clip.marked > 0):
            lines.append(f"- text: {clip.marked} of {clip.kept} kept frames marked in {clip.name}")
        if clip.true_shots is not None and clip.shots != clip.true_shots:
            lines.append(f"- shots: {clip.shots} found, {clip.true_shots} true in {clip.name}")
        if clip.slides_right is False:
            lines.append(f"- slides: {clip.kept} kept in {clip.name}")
    return lines or ["- none"]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--half", choices=[*Half, "both"], default="both")
    parser.add_argument("--variants", type=int, default=2, help="films of each case")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    halves = list(Half) if asked.half == "both" else [Half(asked.half)]
    began = time.monotonic()
    for half in halves:
        jobs = [(half, case, variant) for case in range(len(CASES)) for variant in range(asked.variants)]
        with ProcessPoolExecutor(asked.workers) as pool:
            clips = list(pool.map(judge_film, jobs))
        print(f"## {half} half\n\n{report(clips)}\n")  # noqa: T201
    print(f"({time.monotonic() - began:.0f} s)")  # noqa: T201


if __name__ == "__main__":
    main()
