"""What the subject finder says of framing and view of drawn people: `python -m benchmarks.subjects`.

Each of a number of random designs in three framings and three views on a painted place, alone. Printed: how often
somebody is found, how often the framing is said and right, how often a view is said and right.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from PIL import Image

from benchmarks.crossing_film import PLACES, place_of
from domain.characters import CharacterKind
from domain.pictures import Framing, View
from providers.subjects import ColourSubjectFinder
from providers.vision import AppearanceScorer
from studio.demo.cast import FRAMINGS, draw_character, random_design
from studio.demo.poses import VIEWS

VIEW_OF = {"front": View.FRONTAL, "three_quarter": View.THREE_QUARTER, "profile": View.PROFILE}


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=200, help="seed of the first design")
    parser.add_argument("--designs", type=int, default=8)
    options = parser.parse_args()
    finder = ColourSubjectFinder(AppearanceScorer())
    framings: Counter[tuple[str, str]] = Counter()
    views: Counter[tuple[str, str]] = Counter()
    for number in range(options.designs):
        plate = place_of(PLACES[number % len(PLACES)], 7).picture
        for framing in FRAMINGS:
            for view in VIEWS:
                people = finder.subjects(_picture(options.first + number, framing, view, plate), CharacterKind.PERSON)
                first = people[0] if people else None
                framings[framing, first.framing.value if first else "nobody"] += 1
                views[VIEW_OF[view].value, first.view.value if first else "nobody"] += 1
    _table("framing", framings, [*(kind.value for kind in Framing), "nobody"])
    _table("view", views, [*(kind.value for kind in View), "nobody"])


def _picture(seed: int, framing: str, view: str, plate: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    figure = draw_character(random_design(seed), view, framing=framing, size=720, background=None)
    picture = plate.copy().convert("RGB")
    picture.paste(figure, (280, 0), figure)
    return np.asarray(picture)


def _table(title: str, counts: Counter[tuple[str, str]], said: list[str]) -> None:
    print(f"\n{title:<14}" + "".join(f"{name:>15}" for name in said))  # noqa: T201
    for truth in dict.fromkeys(truth for truth, _ in counts):
        print(f"{truth:<14}" + "".join(f"{counts[truth, name]:>15}" for name in said))  # noqa: T201


if __name__ == "__main__":
    main()
