"""The demo's season as each vendor would make it: whose trainers, whose stills, whose clips, and on which bases.

Every one is a rehearsal: the sandbox plays the vendors, so that no key and no GPU is needed and nobody is paid.
"""

from __future__ import annotations

from typing import Final

from domain.errors import BadInput
from domain.records import Record
from studio.demo.season import MANIFEST

FILMED_ELSEWHERE: Final = "RunPod rents machines and films nothing itself: fal does"
OWN_MACHINES: Final = "ComfyUI trains nothing itself: a trainer on one's own GPU does"


class DemoVendor(Record):
    """One way to make the demo. `bases` are those of Mei and Rui, and of Tova; `models` the slots' video models where
    they differ from the plain demo's, with the seconds each makes."""

    vendor: str
    bases: tuple[str, str] = ("flux-1-dev", "wan-22-t2v-a14b")
    models: dict[int, tuple[str, int]] = {}  # noqa: RUF012 (a frozen record's own default)


DEMO_VENDORS: Final[dict[str, DemoVendor]] = {
    "fal": DemoVendor(vendor="fal"),
    # It has no Kling O1, and no trainer for a video base: Tova learns a second still base, and Veo takes references.
    "replicate": DemoVendor(
        vendor="replicate",
        bases=("flux-1-dev", "qwen-image"),
        models={5: ("veo_31_reference", 8), 7: ("wan_25_i2v", 5)},
    ),
    "runpod": DemoVendor(
        vendor=f"{{train: runpod, image: runpod, video: fal}}   # {FILMED_ELSEWHERE}",
        bases=("sdxl", "wan-22-t2v-a14b"),
    ),
    "comfyui": DemoVendor(
        vendor=f"{{train: local, image: comfyui, video: comfyui}}   # {OWN_MACHINES}",
        models={
            5: ("wan_22_i2v_lora", 5),
            6: ("wan_22_i2v_lora", 5),
            7: ("wan_22_t2v_lora", 5),
            8: ("wan_22_i2v_lora", 5),
            9: ("wan_22_i2v_lora", 5),
            11: ("wan_22_i2v_lora", 5),
        },
    ),
    "mixed": DemoVendor(vendor="{train: runpod, image: replicate, video: [fal, replicate]}"),
}


def demo_manifest(vendor: str | None) -> str:
    """The demo's manifest for a vendor, or the plain one; `BadInput` for a name that is none of `DEMO_VENDORS`."""
    if vendor is None:
        return MANIFEST
    if vendor not in DEMO_VENDORS:
        raise BadInput(f"There is no demo for {vendor!r}: write one of {', '.join(DEMO_VENDORS)}, or leave it out.")
    way = DEMO_VENDORS[vendor]
    text = _with(MANIFEST, "season: neon-harbor ", f"season: neon-harbor-{vendor} ")
    text = _with(text, "`onmodel status neon-harbor`", f"`onmodel status neon-harbor-{vendor}`")
    lead, _, rest = text.partition("vendor: sandbox")
    text = (
        f"{lead}vendor: {way.vendor}\nsandbox: true                  # the sandbox plays them: nobody is paid\n"
        + (rest.partition("\n")[2])
    )
    text = text.replace("base_models: [flux-1-dev]", f"base_models: [{way.bases[0]}]")
    text = _with(text, "base_models: [wan-22-t2v-a14b]", f"base_models: [{way.bases[1]}]")
    for number, (model, seconds) in way.models.items():
        text = _with_model(text, number, model, seconds)
    return text


def _with(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the demo's manifest"
    return text.replace(old, new)


def _with_model(text: str, number: int, model: str, seconds: int) -> str:
    """The text with another video model and length in one slot; what else stands there is kept."""
    before, sign, slot = text.partition(f"  - number: {number}\n")
    assert sign, f"the demo has no slot {number}"
    lines = slot.split("\n")
    for name, value in (("video_model", model), ("seconds", str(seconds))):
        place = next(n for n, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        lines[place] = f"    {name}: {value}"
    return before + sign + "\n".join(lines)
