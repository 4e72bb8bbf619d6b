"""Datasets in SQL: training sets laid out for a trainer, each once."""

from __future__ import annotations

from domain.errors import BadInput
from domain.training_sets import Dataset
from providers.postgres.rows import Table

_DATASET = """SELECT id, training_set_id, layout, zip_sha256, manifest_sha256, file_count, size_bytes, warnings
              FROM datasets"""


class DatasetTable(Table):
    """`datasets`: which zip a training set became, layout by layout. Rows are never changed."""

    def get(self, dataset_id: int) -> Dataset:
        """`BadInput` when there is no dataset with this id."""
        row = self._one(f"{_DATASET} WHERE id = %s", (dataset_id,))
        if row is None:
            raise BadInput(f"There is no dataset {dataset_id}: build it from a training set first.")
        return Dataset.model_validate(row)

    def of_set(self, training_set_id: int) -> list[Dataset]:
        """Every dataset made of a training set, oldest first."""
        rows = self._all(f"{_DATASET} WHERE training_set_id = %s ORDER BY id", (training_set_id,))
        return [Dataset.model_validate(row) for row in rows]

    def find(self, training_set_id: int, layout: str) -> Dataset | None:
        """The dataset of this set in this layout, when it was built before."""
        row = self._one(f"{_DATASET} WHERE training_set_id = %s AND layout = %s", (training_set_id, layout))
        return Dataset.model_validate(row) if row else None

    def keep(self, dataset: Dataset) -> int:
        """The id of this dataset, stored once: of two that build it at the same time both get the first one's row.

        The record's own id is ignored.
        """
        self._do(
            """INSERT INTO datasets (training_set_id, layout, zip_sha256, manifest_sha256, file_count, size_bytes,
                                     warnings)
               VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (training_set_id, layout) DO NOTHING""",
            (
                dataset.training_set_id,
                dataset.layout,
                dataset.zip_sha256,
                dataset.manifest_sha256,
                dataset.file_count,
                dataset.size_bytes,
                list(dataset.warnings),
            ),
        )
        kept = self.find(dataset.training_set_id, dataset.layout)
        assert kept is not None
        return kept.id
