"""What a probe's outputs mean: whether the LoRA was used, by how far pictures with it lie from those without. Pure."""

from __future__ import annotations

from domain.proofs import Verdict

SAME_BELOW = 0.004
"""One grey level in 255 on average: what encoding alone may change. Ours; the sandbox's own pictures of one request do
not differ at all, and two with and without a LoRA differ by more than ten times this."""

TIMES_THE_NOISE = 3.0
"""How much further apart than two equal requests a picture with the LoRA must lie. Ours."""

MAX_PROBE_STEPS = 8
"""Steps of a probe's still where the model counts them: enough for a picture in which somebody can be seen. Ours."""


def judge_pair(difference: float | None) -> tuple[Verdict, str] | None:
    """What a picture with the LoRA and one without it say by themselves; None when the noise must be known first.

    Differences are mean absolute ones of all pixels, 0 to 1; None stands for pictures that cannot be compared.
    """
    if difference is None:
        return Verdict.INCONCLUSIVE, "with and without the LoRA the outputs differ in size, so they cannot be compared"
    if difference <= SAME_BELOW:
        return (
            Verdict.IGNORED,
            f"with and without the LoRA the outputs are the same (they differ by {difference:.4f} of 1)",
        )
    return None


def judge_against_noise(difference: float, noise: float | None) -> tuple[Verdict, str]:
    """The verdict once it is known how far two equal requests without the LoRA lie apart."""
    if noise is None:
        return Verdict.INCONCLUSIVE, "two equal requests gave outputs of different size, so nothing can be compared"
    said = f"the outputs with and without the LoRA differ by {difference:.4f}, two equal requests by {noise:.4f}"
    if difference >= TIMES_THE_NOISE * noise:
        return Verdict.WORKS, said
    return Verdict.INCONCLUSIVE, f"{said}: less than {TIMES_THE_NOISE:g} times the noise, so it may be chance"
