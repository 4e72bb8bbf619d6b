"""Which of a machine's PostgreSQL programs are taken, and which are passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import NotConfigured
from providers.postgres.binaries import Binaries, choose_binaries, find_binaries, probe_binaries


def test_the_best_has_what_prefect_needs() -> None:
    found = find_binaries()
    assert found[0].has_trigram
    assert [one.has_trigram for one in found] == sorted((one.has_trigram for one in found), reverse=True)


def test_data_open_only_under_the_version_that_made_them() -> None:
    fifteen = Binaries(bin_dir=Path("/fifteen"), version="15.18", major=15, has_trigram=True)
    eighteen = Binaries(bin_dir=Path("/eighteen"), version="18.6", major=18, has_trigram=True)
    assert choose_binaries([fifteen, eighteen], None) == fifteen
    assert choose_binaries([fifteen, eighteen], 18) == eighteen
    with pytest.raises(NotConfigured, match=r"made by PostgreSQL 16 and this machine now has only 15\.18, 18\.6"):
        choose_binaries([fifteen, eighteen], 16)
    with pytest.raises(NotConfigured, match="No usable PostgreSQL 14 or newer"):
        choose_binaries([], None)


def test_a_program_that_is_no_postgres_is_passed_over(tmp_path: Path) -> None:
    for name in ("initdb", "postgres", "pg_isready"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.1'\n")
        (tmp_path / name).chmod(0o755)
    assert probe_binaries(tmp_path) is None
    (tmp_path / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
    assert probe_binaries(tmp_path) is not None
    (tmp_path / "postgres").write_text("#!/bin/sh\nexit 3\n")
    assert probe_binaries(tmp_path) is None
