"""What was proved of models by asking them for money, in SQL: append-only, and the newest proof counts.

The newest is the one that was written last: two machines' clocks may differ.
"""

from __future__ import annotations

from domain.proofs import Proof
from providers.postgres.rows import Table

_PROOF = """SELECT model_key, vendor, verdict, detail, difference, cost_usd, registry_sha256, job_keys, is_simulated,
                   proved_at FROM model_proofs"""


class ProofTable(Table):
    """`model_proofs`. A vendor's stand-in proves nothing of the vendor: it has rows under its own name."""

    def add(self, proof: Proof) -> None:
        """Keep a proof for good; an earlier one stays as history. Not repeatable: each call adds a row."""
        self._do(
            """INSERT INTO model_proofs (model_key, vendor, verdict, detail, difference, cost_usd, registry_sha256,
                                         job_keys, is_simulated, proved_at)
               VALUES (%(model_key)s, %(vendor)s, %(verdict)s, %(detail)s, %(difference)s, %(cost_usd)s,
                       %(registry_sha256)s, %(job_keys)s, %(is_simulated)s, %(proved_at)s)""",
            {**proof.model_dump(), "verdict": proof.verdict.value, "job_keys": list(proof.job_keys)},
        )

    def newest(self, model_key: str, vendor: str) -> Proof | None:
        """The newest proof of a model at a vendor, whatever it says; None when nobody ever asked."""
        row = self._one(
            f"{_PROOF} WHERE model_key = %s AND vendor = %s ORDER BY id DESC LIMIT 1",
            (model_key, vendor),
        )
        return Proof.model_validate(row) if row else None

    def all_newest(self) -> tuple[Proof, ...]:
        """The newest proof of every model at every vendor that was ever asked, by key."""
        rows = self._all(
            f"""{_PROOF} WHERE id IN (
                    SELECT DISTINCT ON (model_key, vendor) id FROM model_proofs
                    ORDER BY model_key, vendor, id DESC)
                ORDER BY model_key, vendor""",
            (),
        )
        return tuple(Proof.model_validate(row) for row in rows)

    def count(self, model_key: str, vendor: str) -> int:
        """How often a model was proved at a vendor: the number of the next probe, so that one that was interrupted
        takes up its own jobs and the one after it buys new ones."""
        row = self._one(
            "SELECT count(*) AS times FROM model_proofs WHERE model_key = %s AND vendor = %s", (model_key, vendor)
        )
        assert row is not None
        return int(row["times"])

    def ready_lora(self, base_model: str, *, is_simulated: bool) -> int | None:
        """The newest LoRA of this base that is ready and whose weights are kept, of any season that is (or is not) a
        rehearsal; None when there is none."""
        row = self._one(
            """SELECT lora.id FROM character_loras AS lora JOIN seasons ON seasons.id = lora.season_id
               WHERE lora.base_model = %s AND lora.status = 'ready' AND lora.sha256 IS NOT NULL
                 AND lora.weights_dropped_at IS NULL AND seasons.is_simulated = %s
               ORDER BY lora.created_at DESC, lora.id DESC LIMIT 1""",
            (base_model, is_simulated),
        )
        return int(row["id"]) if row else None
