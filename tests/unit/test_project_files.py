"""The project's outside: locks that agree, no registry named, documents that hold, deployments that load."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci"

# In pieces, so that this file does not name them either.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("registry", "npmjs", "org"),
        ("download", "pytorch", "org"),
        ("conda", "anaconda", "org"),
        ("repo", "anaconda", "com"),
    )
)


@cache
def uv_lock() -> dict[str, Any]:
    return tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(lines: list[str]) -> set[str]:
    """Names of the packages in a list of requirements."""
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines]
    return {normal(name.group()) for name in names if name}


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the lock ---


def test_the_lock_and_pyproject_want_the_same_packages() -> None:
    ours = next(package for package in uv_lock()["package"] if package["name"] == "onmodel")
    locked = {normal(entry["name"]) for entry in ours["metadata"]["requires-dist"]}
    assert locked == required(pyproject()["project"]["dependencies"])
    locked_dev = {normal(entry["name"]) for entry in ours["metadata"]["requires-dev"]["dev"]}
    assert locked_dev == required(pyproject()["dependency-groups"]["dev"])
    assert uv_lock()["requires-python"] == pyproject()["project"]["requires-python"]


def test_every_bound_of_pyproject_stands_in_the_lock() -> None:
    ours = next(package for package in uv_lock()["package"] if package["name"] == "onmodel")
    entries = [*ours["metadata"]["requires-dist"], *ours["metadata"]["requires-dev"]["dev"]]
    bounds = {normal(entry["name"]): set(filter(None, entry.get("specifier", "").split(","))) for entry in entries}
    for line in [*pyproject()["project"]["dependencies"], *pyproject()["dependency-groups"]["dev"]]:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?(.*)", line)
        assert match is not None
        assert bounds[normal(match.group(1))] == set(filter(None, match.group(2).split(","))), line


def test_requirements_hold_exactly_what_uv_locked_with_the_same_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8").replace("\\\n", " ")
    seen = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, version = line.split()[0].partition("==")
            seen[normal(name), version] = frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", line))
    locked = {}
    packages = uv_lock()["package"]
    project = next(package for package in packages if package["name"] == "onmodel")
    only_for_benchmarks = {package["name"] for package in project["dev-dependencies"]["bench"]}
    for package in packages:
        if package["name"] not in {"onmodel", *only_for_benchmarks}:
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            locked[normal(package["name"]), package["version"]] = frozenset(file["hash"] for file in files)
    assert seen == locked


def test_every_locked_package_comes_as_a_wheel_for_every_python_and_machine_we_promise() -> None:
    for package in uv_lock()["package"]:
        if package["name"] == "onmodel":
            continue
        names = [wheel["path"] for wheel in package.get("wheels", [])]
        for minor in (11, 12, 13):
            if is_left_out(package, minor):
                continue
            for machine in ("x86_64", "aarch64"):
                found = any(fits(name, f"cp3{minor}", machine) for name in names)
                assert found, f"{package['name']} {package['version']} has no wheel for 3.{minor} on {machine}"


def is_left_out(package: dict[str, Any], minor: int) -> bool:
    """Whether every one of a package's markers is for another Python or another system."""
    markers = package.get("resolution-markers", [])
    return bool(markers) and not any(f"3.{minor}" in marker or (minor == 11 and "<" in marker) for marker in markers)


def fits(wheel: str, python: str, machine: str) -> bool:
    interpreter, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    is_right_python = python in interpreter.split(".") or abi in ("abi3", "none")
    is_right_machine = platform == "any" or ("manylinux" in platform and machine in platform)
    return is_right_python and is_right_machine


def test_no_tracked_file_names_a_package_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout, so there is no list of tracked files")
    names = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    told = [
        (path, host)
        for path in names
        if path.is_file()
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert told == []


def test_neutralising_a_lock_keeps_names_versions_and_hashes_and_is_safe_to_repeat() -> None:
    script = load_script(CI / "neutral_lock.py")
    host = f"https://{REGISTRY_HOSTS[0]}"
    lock = (
        'name = "rich"\nversion = "14.0.0"\n'
        f'source = {{ registry = "{host}/simple" }}\n'
        f'sdist = {{ url = "{host}/a1/rich-14.0.0.tar.gz", hash = "sha256:aa", size = 7 }}\n'
    )
    neutral = script.neutralise(lock)
    assert neutral == (
        'name = "rich"\nversion = "14.0.0"\n'
        'source = { registry = "registry" }\n'
        'sdist = { path = "rich-14.0.0.tar.gz", hash = "sha256:aa", size = 7 }\n'
    )
    assert script.neutralise(neutral) == neutral


def test_an_address_of_an_unknown_form_stops_the_lock_with_its_line(tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text('version = 1\nodd = "https://somewhere.example/x"\n')
    done = subprocess.run(
        [sys.executable, CI / "neutral_lock.py", lock], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "line 2 still holds an address" in done.stderr


# --- the Makefile and .ci ---


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony is not None
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    told = re.findall(r"^  make ([\w-]+)", shown, re.M)
    assert set(told) == set(phony.group(1).split())
    assert {"demo", "test", "check", "lock", "format", "clean", "help"} <= set(told)


@pytest.mark.parametrize("script", ["install", "lock", "run"])
def test_a_script_of_ci_is_runnable_and_well_formed(script: str) -> None:
    path = CI / script
    assert os.access(path, os.X_OK)
    shell = "bash" if script == "run" else "sh"
    assert subprocess.run([shell, "-n", path], check=False, timeout=30).returncode == 0


# --- the README ---


def test_the_readme_begins_with_one_sentence_one_picture_and_the_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text("utf-8").partition("\n## ")[0]
    assert first_screen.startswith("# OnModel\n")
    assert first_screen.count("![") == 1
    commands = re.findall(r"^(make \w+)", first_screen, re.M)
    assert commands == ["make demo", "make test"]


def test_every_file_that_the_documents_link_to_is_there() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    missing = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
        if not (document.parent / target).exists()
    ]
    assert missing == []


def test_the_readme_tells_every_command_and_no_other() -> None:
    from studio.cli import app, season_app

    readme = (ROOT / "README.md").read_text("utf-8")
    commands = {name for name in app if not name.startswith("-")} - {"season"}
    commands |= {f"season {name}" for name in season_app if not name.startswith("-")}
    assert "run" in commands
    assert commands == set(re.findall(r"^\| `onmodel ((?:season )?[a-z]+)", readme, re.M))


def test_the_readme_tells_every_setting_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    settings = (ROOT / "providers/settings.py").read_text("utf-8")
    read = set(re.findall(r'"([A-Z][A-Z0-9]*_[A-Z_0-9]+)"', settings))
    assert "ONMODEL_HOME" in read
    assert {name for name in read if name not in readme} == set()
    assert set(re.findall(r"^\| `(ONMODEL_[A-Z_0-9]+)`", readme, re.M)) <= read


def test_the_manifest_page_names_every_field() -> None:
    from domain.seasons import CharacterEntry, SeasonManifest, SlotEntry, TrainingOptions

    page = (ROOT / "docs/manifest.md").read_text("utf-8")
    for record in (SeasonManifest, CharacterEntry, SlotEntry, TrainingOptions):
        assert {name for name in record.model_fields if f"`{name}`" not in page} == set(), record.__name__


def test_the_example_on_the_manifest_page_and_in_the_readme_are_manifests() -> None:
    from domain.seasons import SeasonManifest

    for document in ("README.md", "docs/manifest.md"):
        examples = re.findall(r"```yaml\n(season:.*?)```", (ROOT / document).read_text("utf-8"), re.S)
        assert examples, document
        for example in examples:
            assert SeasonManifest.model_validate(yaml.safe_load(example)).slots


def test_every_dependency_beyond_the_owners_has_its_reason() -> None:
    reasons = (ROOT / "docs/decisions/0003-dependencies.md").read_text("utf-8")
    names = required(pyproject()["project"]["dependencies"]) | required(pyproject()["dependency-groups"]["dev"])
    assert {name for name in names if f"`{name}" not in reasons.lower()} == set()


# --- prefect.yaml ---


def deployments() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    return loaded


OF_A_SEASON = ["train-character", "generate-references", "render-slot", "render-season"]


def test_every_deployment_runs_in_our_pool_with_a_limit() -> None:
    assert [one["name"] for one in deployments()] == [*OF_A_SEASON, "maintain"]
    for one in deployments():
        assert one["work_pool"]["name"] == "onmodel"
        strategy = "ENQUEUE" if one["name"] in OF_A_SEASON else "CANCEL_NEW"
        assert one["concurrency_limit"]["collision_strategy"] == strategy
        assert one["concurrency_limit"]["limit"] >= 1
        assert "description" not in one  # the flow's docstring says it


def test_upkeep_alone_is_scheduled_every_ten_minutes_under_a_name_of_its_own() -> None:
    from deployments.setup import wanted_schedules

    schedules = {one["name"]: one["schedules"] for one in deployments() if "schedules" in one}
    assert schedules == {"maintain": [{"interval": 600, "slug": "every-ten-minutes"}]}
    assert wanted_schedules() == {**{name: set() for name in OF_A_SEASON}, "maintain": {"every-ten-minutes"}}


@pytest.mark.parametrize("name", [*OF_A_SEASON, "maintain"])
def test_a_deployments_entrypoint_is_a_flow_of_that_name_that_takes_the_seasons_slug(name: str) -> None:
    from prefect import Flow

    entrypoint = next(one["entrypoint"] for one in deployments() if one["name"] == name)
    path, _, function = entrypoint.partition(":")
    assert (ROOT / path).is_file()
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    flow = getattr(module, function)
    assert isinstance(flow, Flow)
    assert flow.name == name
    assert flow.description
    assert list(flow.parameters.properties)[:1] == (["season"] if name in OF_A_SEASON else [])
