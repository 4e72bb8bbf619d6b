"""What the matrix says of a model at a vendor: the registry's word, unless a paid probe has proved it wrong.

The flows ask here before they count on a LoRA being used; nothing here asks a vendor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.model_rules import Model
from domain.proofs import Proof, Verdict

if TYPE_CHECKING:
    from providers.wiring import Ports

DISPROVING = frozenset({Verdict.IGNORED, Verdict.REFUSED, Verdict.SCHEMA_CHANGED})
"""Verdicts after which a model counts as taking no LoRA. An inconclusive probe changes nothing."""


def takes_lora(ports: Ports, model: Model, vendor: str) -> bool:
    """Whether a LoRA of the model's base can be counted on there. Reads one row; free."""
    return why_no_lora(ports, model, vendor) is None


def why_no_lora(ports: Ports, model: Model, vendor: str) -> str | None:
    """Why no LoRA can be counted on there, in one sentence for the log; None when one can. Reads one row; free.

    `vendor` is who would be asked, a stand-in of the sandbox included: each has proofs of its own.
    """
    if model.lora is None or not model.lora.takes:
        return model.lora.reason if model.lora is not None and model.lora.reason else f"{model.key} loads no LoRA"
    proof = counting_proof(ports, model, vendor)
    return disproved(model, proof) if proof is not None else None


def counting_proof(ports: Ports, model: Model, vendor: str) -> Proof | None:
    """The newest proof of the model at a vendor, where it is of the registry's entry as it stands now."""
    proof = ports.proofs.newest(model.key, vendor)
    return proof if proof is not None and proof.counts_for(model) else None


def disproved(model: Model, proof: Proof) -> str | None:
    """The sentence by which a proof overrules the registry; None when it does not. Pure."""
    if proof.verdict not in DISPROVING:
        return None
    found = {
        Verdict.IGNORED: "accepted a LoRA and ignored it",
        Verdict.REFUSED: "refused a request with a LoRA",
        Verdict.SCHEMA_CHANGED: "no longer has a field that we send",
    }[proof.verdict]
    return (
        f"{model.key} at {proof.vendor} {found} when it was asked on {proof.proved_at:%Y-%m-%d}: "
        f"it counts as taking none until onmodel models probe {model.key} says otherwise"
    )
