"""Judging the two files of a Wan 2.2 LoRA together: one for the network of low noise, one for that of high noise.

Each is checked by `lora_files`; here stands what only both together can show. Source: shared/reference/
runpod_trainers.md 2.5 and 4.6 (2026-08): the trainers write two files, and a character needs both.
"""

from __future__ import annotations

from pathlib import Path

from providers.lora_files import check_lora_file, read_header
from providers.ports import LoraFileReport, LoraPairReport

_WORST_FIRST = ("broken", "wrong_base", "suspect", "healthy")


def check_lora_pair(
    low: Path | None,
    high: Path | None,
    *,
    expected_base: str,
    expected_steps: int | None = None,
    expected_rank: int | None = None,
) -> LoraPairReport:
    """Check the low-noise and the high-noise file of one LoRA. Reads only, safe to repeat; errors as the file check.

    They must both be there, adapt the same modules in the same shapes (so of one rank), and not be one file twice.
    """
    reports: dict[str, LoraFileReport | None] = {}
    reasons: list[str] = []
    is_apart = False
    for noise, path in (("low", low), ("high", high)):
        if path is None or not path.is_file():
            reports[noise] = None
            is_apart = True
            reasons.append(f"The file for {noise} noise is missing: the training saved only half of the LoRA.")
            continue
        report = check_lora_file(
            path, expected_base=expected_base, expected_steps=expected_steps, expected_rank=expected_rank
        )
        reports[noise] = report
        reasons += [f"For {noise} noise: {reason}" for reason in report.reasons]
    verdicts = [report.verdict for report in reports.values() if report]
    if low and high and len(verdicts) == 2 and all(report and report.module_count for report in reports.values()):
        apart = _apart(low, high, reports["low"], reports["high"])
        reasons += apart
        is_apart = is_apart or bool(apart)
    verdict = "broken" if is_apart else next(word for word in _WORST_FIRST if word in verdicts)
    return LoraPairReport(verdict=verdict, reasons=tuple(reasons), low=reports["low"], high=reports["high"])


def _apart(low: Path, high: Path, of_low: LoraFileReport | None, of_high: LoraFileReport | None) -> list[str]:
    """Why two whole files are not the halves of one LoRA."""
    assert of_low
    assert of_high
    if of_low.sha256 == of_high.sha256:
        return ["Both files are the same one: one network's half is missing."]
    if of_low.rank != of_high.rank:
        return [f"They do not belong together: rank {of_low.rank} for low noise, {of_high.rank} for high noise."]
    shapes = [_shapes(path) for path in (low, high)]
    if shapes[0] != shapes[1]:
        count = len(shapes[0].items() ^ shapes[1].items())
        first = min(name for name, _ in shapes[0].items() ^ shapes[1].items())
        return [f"They do not adapt the same modules: {count} tensors differ in name or shape, the first is {first!r}."]
    return []


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with path.open("rb") as file:
        return {tensor.name: tensor.shape for tensor in read_header(file, path.stat().st_size).tensors}
