"""The fences of .importlinter: the tree keeps them, and each finds the breach planted for it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("domain", "providers", "tasks", "flows", "studio", "deployments")

BREACHES = {
    # contract: (file to plant, its one import, what the report must show)
    "arrows": ("providers/planted.py", "import studio", "providers.planted -> studio"),
    "flows-tell-the-story": ("flows/planted.py", "import providers.ports", "flows.planted -> providers.ports"),
    "adapters-behind-wiring": ("tasks/planted.py", "from providers import media", "tasks.planted -> providers.media"),
    "prefect-above-tasks": ("providers/planted_too.py", "import prefect", "providers.planted_too -> prefect"),
    "sdk-fal": ("providers/blobs/planted.py", "import fal_client", "providers.blobs.planted -> fal_client"),
    "sdk-s3": ("providers/blobs/planted_too.py", "import boto3", "providers.blobs.planted_too -> boto3"),
    "sdk-postgres": ("studio/planted.py", "import psycopg", "studio.planted -> psycopg"),
    "sdk-runpod": ("providers/fal/planted.py", "import runpod", "providers.fal.planted -> runpod"),
    "honest-sandbox": (
        "providers/sandbox/planted.py",
        "from providers.vision import *",
        "providers.sandbox.planted -> providers.vision",
    ),
    "plain-domain": ("domain/planted.py", "import numpy", "domain.planted -> numpy"),
}


def contracts() -> dict[str, str]:
    """Key → name of every contract in .importlinter."""
    parser = ConfigParser()
    parser.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {section.removeprefix(prefix): parser[section]["name"] for section in parser if section.startswith(prefix)}


def lint(tree: Path) -> tuple[int, str]:
    """Exit code and report of lint-imports in a folder."""
    environ = {**os.environ, "COLUMNS": "240", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tree,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    tree = tmp_path_factory.mktemp("fences")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tree)
    yield tree
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def report_of_breaches(copied_tree: Path) -> tuple[int, str]:
    for file, line, _ in BREACHES.values():
        (copied_tree / file).write_text(f'"""Planted."""\n\n{line}\n')
    return lint(copied_tree)


def test_the_tree_keeps_every_fence() -> None:
    exit_code, report = lint(ROOT)
    assert exit_code == 0, report
    assert f"{len(contracts())} kept, 0 broken" in report


def test_every_fence_has_its_planted_breach() -> None:
    assert set(contracts()) == set(BREACHES)


@pytest.mark.parametrize("contract", BREACHES)
def test_a_planted_breach_is_found_and_named(contract: str, report_of_breaches: tuple[int, str]) -> None:
    exit_code, report = report_of_breaches
    assert exit_code == 1
    name = contracts()[contract]
    assert f"{name} BROKEN" in report
    _, _, details = report.partition("Broken contracts")
    section = details.partition(f"\n{name}\n")[2]
    assert section, f"no section on {name!r} in:\n{report}"
    following = [section.find(f"\n{other}\n") for other in contracts().values() if f"\n{other}\n" in section]
    assert BREACHES[contract][2] in section[: min(following, default=len(section))]


def test_the_domain_imports_only_pydantic_and_the_standard_library() -> None:
    allowed = {*sys.stdlib_module_names, "pydantic", "pydantic_core", "domain"}  # pydantic_core: its custom errors
    strangers = {
        f"{path.name}: {name}"
        for path in (ROOT / "domain").rglob("*.py")
        for name in imported_by(path)
        if name.partition(".")[0] not in allowed
    }
    assert strangers == set()


def test_an_import_inside_a_function_is_seen_too(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("def late():\n    from numpy import zeros\n    import rich.table\n    return zeros, rich\n")
    assert imported_by(file) == {"numpy", "rich.table"}


def imported_by(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found
