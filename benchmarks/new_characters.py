"""Are people learned whom nobody tuned on? `python -m benchmarks.new_characters [--count 6] [--first 9000]`.

Draws characters from seeds that no choice of ours has seen, gives `onmodel run` a season of nothing but their stills,
and prints what the identity check found for each: with the LoRA, without it, the lower 95 % bound of the difference,
the threshold and how many views reached it. Beside each stands the swapped control: the same pictures judged as if
they were the next character's, which must not pass. Everything is bought from the sandbox, in a home of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageChops

from domain.identity import Calibration, IdentityVerdict, judge_lora
from domain.records import Record
from providers.settings import Settings
from providers.wiring import Ports, close_embedded_server, close_sandbox
from studio.demo import poses
from studio.demo.cast import draw_character, random_design
from studio.demo.designs import FACES, Outfit, Pose
from studio.demo.scenes import PLACES, Scene, paint_scene
from tasks.identity import calibrate, plan_views, score_picture

FIRST_SEED = 9000
STILLS = 24
"""20 to train on and 4 held out, when none is left out."""

SIDES = ((832, 832), (1024, 576), (640, 896))
"""Width and height in px."""

SLUG = "new-characters"
POSES = (poses.stand, poses.on_hip, poses.pockets, poses.wave, poses.point, poses.cheer, poses.think, poses.walk)


class Proof(Record):
    """What the chain found out about one new character. `swapped` judges her pictures as the next character's."""

    name: str
    lora_status: str
    trainings: int
    trained: int
    held_out: int
    calibration: Calibration
    verdict: IdentityVerdict
    swapped_as: str
    swapped: IdentityVerdict


def main() -> int:
    """Draw, run, print; 0 when every bound is above zero and every swapped set was refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=6, help="characters (at least 3)")
    parser.add_argument("--first", type=int, default=FIRST_SEED, metavar="SEED", help="seed of the first one")
    parser.add_argument("--stills", type=int, default=STILLS, help="stills of each")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here and leave everything for a look")
    asked = parser.parse_args()
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))  # short: a socket lies in it
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    seeds = range(asked.first, asked.first + asked.count)
    began = time.monotonic()
    manifest = write_season(folder / "material", seeds, stills=asked.stills)
    drawn = time.monotonic()
    home = folder / "home"
    try:
        code = run_onmodel(manifest, home, folder / "out")
        took = time.monotonic() - drawn
        if code:
            print(f"onmodel run ended with exit code {code}: nothing to judge", file=sys.stderr)  # noqa: T201
            return code
        proofs = read_proofs(home)
    finally:
        close_home(home)
        if asked.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    cpu = sum(getattr(resource.getrusage(resource.RUSAGE_CHILDREN), name) for name in ("ru_utime", "ru_stime"))
    print(f"seeds {seeds.start}-{seeds.stop - 1}, {asked.stills} stills each")  # noqa: T201
    print("\n".join(_table(proofs)))  # noqa: T201
    print(  # noqa: T201
        f"drawing {drawn - began:.0f} s, the run {took:.0f} s of wall time and {cpu:.0f} s of the CPU (the built-in "
        "servers' own not counted)"
    )
    is_proven = all(p.verdict.score.lower95_of_delta > 0 and not p.swapped.is_passed for p in proofs)
    return 0 if is_proven else 1


# --- the material ---


def write_season(folder: Path, seeds: Sequence[int], *, stills: int) -> Path:
    """Draw `stills` pictures of each new character and a manifest of characters only; its path. Deterministic."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = {place: paint_scene(place) for place in PLACES}
    entries = []
    for seed in seeds:
        names = []
        for number in range(stills):
            name = f"{seed}-{number:02d}.jpg"
            new_still(seed, number, scenes).save(folder / name, "JPEG", quality=90)
            names.append(name)
        entries.append({"name": name_of(seed), "kind": "illustrated", "images": names})
    manifest = folder / "season.yaml"
    manifest.write_text(
        yaml.safe_dump({"season": SLUG, "budget_usd": 500, "vendor": "sandbox", "characters": entries}), "utf-8"
    )
    return manifest


def name_of(seed: int) -> str:
    """What a new character is called in the season."""
    return f"Passer {seed}"


def new_still(seed: int, number: int, scenes: dict[str, Scene]) -> Image.Image:
    """One picture of the character: view, framing, pose, face, outfit, place, light and format vary with `number`.

    Half of them are busts, where a design is well seen; the rest full figures and faces.
    """
    draw = random.Random(f"still {seed} {number}")  # noqa: S311 - pictures, not secrets
    design = random_design(seed)
    width, height = SIDES[number % len(SIDES)]
    scene = scenes[draw.choice(PLACES)]
    framing = ("bust", "full", "bust", "close_up")[number % 4]
    view = draw.choice(list(poses.VIEWS))
    pose: Pose = draw.choice(POSES)(poses.VIEWS[view], draw.random())
    side = min(width, height)
    figure = draw_character(
        design,
        view,
        draw.choice([face for face in FACES if face != "asleep"]),
        side,
        framing=framing,
        pose=pose,
        outfit=Outfit(is_open=draw.random() < 0.3, fade=draw.uniform(-0.5, 0.5)),
        background=None,
    )
    if draw.random() < 0.5:
        figure = figure.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    lit = ImageChops.multiply(figure.convert("RGB"), Image.new("RGB", figure.size, scene.light))
    lit.putalpha(figure.getchannel("A"))
    picture = _backdrop(scene, width, height, draw)
    place = (round((width - side) * draw.uniform(0.2, 0.8)), height - side)
    picture.paste(lit, place, lit)
    gain = draw.uniform(0.8, 1.15)
    return picture.point([min(255, round(value * gain)) for value in range(256)] * 3)


def _backdrop(scene: Scene, width: int, height: int, draw: random.Random) -> Image.Image:
    """A part of the painted place in the picture's format, mirrored now and then."""
    source = scene.picture.convert("RGB")
    tall = draw.uniform(0.75, 1.0) * source.height
    wide = min(source.width, tall * width / height)
    tall = wide * height / width
    left, top = draw.uniform(0, source.width - wide), draw.uniform(0, source.height - tall)
    part = source.resize((width, height), box=(left, top, left + wide, top + tall))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else part


# --- the chain ---


def run_onmodel(manifest: Path, home: Path, out: Path) -> int:
    """`onmodel run … --json` on the sandbox, in a home of its own; its exit code. Progress goes to stderr."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ONMODEL_", "PREFECT_", "FAL_"))}
    done = subprocess.run(
        [sys.executable, "-m", "studio.cli", "run", str(manifest), "--out", str(out), "--json"],
        env={**env, "ONMODEL_HOME": str(home)},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.stdout:
        assert json.loads(done.stdout)["exit_code"] == done.returncode
    return done.returncode


def close_home(home: Path) -> None:
    """Stop the servers that the run left in the background. No error when there are none."""
    if home.is_dir():
        close_sandbox(home)
        close_embedded_server(home)


# --- what it found ---


def read_proofs(home: Path) -> list[Proof]:
    """The verdicts as the chain stored them, and the swapped control computed from the same stored pictures."""
    ports = Ports(Settings.from_environ({"ONMODEL_HOME": str(home)}))
    try:
        cast = ports.cast.of_season(ports.seasons.by_slug(SLUG).id)
        return [_proof(ports, character.id, cast[(i + 1) % len(cast)].id) for i, character in enumerate(cast)]
    finally:
        ports.close()


def _proof(ports: Ports, character_id: int, other_id: int) -> Proof:
    (lora,) = ports.loras.current(character_id)
    verdict = ports.loras.verdict("lora", lora.id, character_id)
    training_set = ports.cast.latest_training_set(character_id)
    assert verdict is not None, f"{lora.character_name} was never judged: {lora.status_reason}"
    assert training_set is not None
    return Proof(
        name=lora.character_name,
        lora_status=lora.status.value,
        trainings=len(lora.job_keys),
        trained=len(training_set.trained),
        held_out=len(training_set.held_out),
        calibration=calibrate(ports, character_id)[1],
        verdict=verdict,
        swapped_as=ports.cast.get(other_id).name,
        swapped=judge_as(ports, lora.id, other_id),
    )


def judge_as(ports: Ports, lora_id: int, character_id: int) -> IdentityVerdict:
    """The LoRA's own ten views, with and without, judged against another character's pictures and threshold."""
    references, calibration = calibrate(ports, character_id)
    scores = []
    for key in plan_views(ports, lora_id):
        image = ports.ledger.get(key).file("image")
        assert image is not None, key
        scores.append(score_picture(ports, image.sha256, references))
    pairs = list(zip(scores[0::2], scores[1::2], strict=True))
    judged = [(drawn, control) for drawn, control in pairs if drawn is not None and control is not None]
    return judge_lora(
        [drawn for drawn, _ in judged],
        [control for _, control in judged],
        calibration,
        len(pairs) - len(judged),
        metric=ports.scorer.metric,
    )


def _table(proofs: Sequence[Proof]) -> list[str]:
    head = (
        f"{'character':14}{'with':>7}{'without':>9}{'diff':>7}{'lower 95%':>11}{'judged':>8}{'abst.':>7}"
        f"{'threshold':>11}{'reach it':>10}{'verdict':>9}{'tries':>7}   swapped control"
    )
    lines = [head]
    for proof in proofs:
        score, swapped = proof.verdict.score, proof.swapped
        weak = "~" if score.is_weak else " "
        lines.append(
            f"{proof.name:14}{_shown(score.mean_with_lora):>7}{_shown(score.mean_control):>9}{_shown(score.delta):>7}"
            f"{score.lower95_of_delta:>+11.2f}{score.judged:>8}{score.abstained:>7}{score.threshold:>10.2f}{weak}"
            f"{score.share_above_threshold:>10.0%}{_word(proof.verdict):>9}{proof.trainings:>7}   "
            f"as {proof.swapped_as}: {_shown(swapped.score.mean_with_lora)}, "
            f"{swapped.score.share_above_threshold:.0%} reach {swapped.score.threshold:.2f}: {_word(swapped)}"
        )
    bounds = [proof.verdict.score.lower95_of_delta for proof in proofs]
    lines.append(
        f"{sum(bound > 0 for bound in bounds)} of {len(bounds)} lower bounds above zero (lowest {min(bounds):+.2f}, "
        f"median {float(np.median(bounds)):+.2f}); {sum(p.verdict.is_passed for p in proofs)} of {len(proofs)} LoRAs "
        f"passed, {sum(p.swapped.is_passed for p in proofs)} of {len(proofs)} swapped sets did. ~: a weak threshold."
    )
    return lines


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _word(verdict: IdentityVerdict) -> str:
    return "passed" if verdict.is_passed else "refused"


if __name__ == "__main__":
    sys.exit(main())
