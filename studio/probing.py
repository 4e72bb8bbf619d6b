"""`onmodel models probe`: says what proving a model costs, asks, buys it, and tells the verdict."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from domain.errors import NeedsPerson
from domain.money import CENT, round_up
from domain.proofs import Proof, Verdict
from providers.wiring import open_ports
from studio.prefect_setup import set_defaults
from studio.telling import end_progress, print_json, say, tell_progress

if TYPE_CHECKING:
    from tasks.probe_orders import ProbePlan

FOUND = {
    Verdict.WORKS: "It works",
    Verdict.IGNORED: "The LoRA was accepted and ignored",
    Verdict.REFUSED: "It was refused",
    Verdict.SCHEMA_CHANGED: "Its schema has changed; nothing was bought",
    Verdict.INCONCLUSIVE: "Nothing is proved",
}


def probe_model(
    key: str,
    *,
    vendor: str | None,
    lora: Path | None,
    trigger: str,
    picture: Path | None,
    is_agreed: bool,
    as_json: bool,
) -> int:
    """Prove one model and keep the verdict. Exit 0 whatever the verdict; 6 where nobody can be asked or agrees.

    Costs what it says before. Safe to repeat: one that was interrupted goes on with what it has bought.
    """
    ports = open_ports()
    tell_progress()
    # The tasks' modules also hold Prefect's tasks; here they are plain functions, whose log is no flow's.
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    set_defaults(ports.settings.home)
    from tasks.probing import plan_probe, read_schema, run_probe

    plan = plan_probe(ports, key, vendor=vendor, lora=lora, trigger_word=trigger, picture=picture)
    proof = read_schema(ports, plan)
    if proof is None:
        if plan.estimate_usd and not plan.is_simulated and not is_agreed:
            end_progress()
            ask(question_of(plan), plan.model.key, sys.stdin, sys.stderr)
            tell_progress()
        proof = run_probe(ports, plan)
    if as_json:
        print_json({"proof": proof.model_dump(mode="json")})
    else:
        _tell(proof)
    return 0


def question_of(plan: ProbePlan) -> str:
    """What is bought, where, and what it costs."""
    count = len(plan.shots)
    jobs = "1 job" if count == 1 else f"up to {count} jobs"
    seed = "" if plan.has_seed or count == 1 else " It takes no seed, so two equal requests may differ by themselves."
    return (
        f"Proving {plan.model.key} at {plan.vendor} buys {jobs} for about {round_up(plan.estimate_usd, CENT)} USD, "
        f"{plan.ceiling_usd:.2f} at most.{seed}"
    )


def ask(question: str, key: str, answer: TextIO, voice: TextIO) -> None:
    """Put the question on the terminal; `NeedsPerson` unless a person there says yes."""
    if not answer.isatty():
        raise NeedsPerson(f"{question} Nobody is at a terminal to agree: say it with onmodel models probe {key} --yes.")
    voice.write(f"{question}\nBuy it? [y/N] ")
    voice.flush()
    if answer.readline().strip().casefold() not in ("y", "yes"):
        raise NeedsPerson("Nothing was bought.")


def _tell(proof: Proof) -> None:
    paid = " A rehearsal: no money was spent." if proof.is_simulated else f" It cost {proof.cost_usd:.2f} USD."
    say(f"{proof.model_key} at {proof.vendor}: {FOUND[proof.verdict]}: {proof.detail}.{paid}")
    for key in proof.job_keys:
        say(f"  onmodel jobs show {key[:12]}")
