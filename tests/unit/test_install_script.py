"""The bootstrap `.ci/install`, run beside stand-ins for Python, pip and uv that write down what they were asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"


def make_project(folder: Path) -> Path:
    """A project folder with a space in its path, as much of it as .ci/install reads."""
    project = folder / "my project"
    (project / ".ci").mkdir(parents=True)
    shutil.copy(CI / "install", project / ".ci/install")
    (project / "requirements.lock").write_text("# nothing\n")
    (project / "pyproject.toml").write_text("[project]\n")
    return project


def write_program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def install(project: Path, programs: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/install where only these programs and the plain Unix ones are to be had."""
    for name in ("cat", "cksum", "sed", "id", "rm", "mkdir", "cp", "dirname", "sh", "flock"):
        found = shutil.which(name)
        if found and not (programs / name).exists():
            programs.mkdir(parents=True, exist_ok=True)
            (programs / name).symlink_to(found)
    return subprocess.run(
        [project / ".ci/install"],
        env={"PATH": str(programs), "HOME": str(project), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


FAKE_PYTHON = """
# Stands in for Python and pip: writes down what it was asked, makes the venv's files, installs the command.
echo "$@" >>"$JOURNAL"
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") [ ! -e "$BREAK" ] || exit 9
        case "$*" in *"-e ."*) cp "$0" .venv/bin/onmodel ;; esac ;;
esac
exit 0
"""


def test_without_a_new_enough_python_one_sentence_says_so(tmp_path: Path) -> None:
    project, programs = make_project(tmp_path), tmp_path / "bin"
    write_program(programs / "python3", "exit 1")
    done = install(project, programs)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("No Python 3.11 or newer was found")
    assert done.stderr.count("\n") == 1
    assert not (project / ".venv").exists()


def test_a_python_without_its_venv_module_is_told_which_package_to_install(tmp_path: Path) -> None:
    project, programs = make_project(tmp_path), tmp_path / "bin"
    write_program(programs / "python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    done = install(project, programs)
    assert done.returncode == 3
    assert "apt install python3-venv" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    project, programs, journal = make_project(tmp_path), tmp_path / "bin", tmp_path / "journal"
    write_program(programs / "python3.13", "exit 127")
    write_program(programs / "python3.11", FAKE_PYTHON)
    done = install(project, programs, JOURNAL=str(journal), BREAK="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "python3.11)" in done.stderr


def test_the_second_time_nothing_is_run(tmp_path: Path) -> None:
    project, programs, journal = make_project(tmp_path), tmp_path / "bin", tmp_path / "journal"
    write_program(programs / "python3", FAKE_PYTHON)
    environ = {"JOURNAL": str(journal), "BREAK": "/nonexistent"}
    assert install(project, programs, **environ).returncode == 0
    assert "--require-hashes -r requirements.lock" in journal.read_text()
    journal.unlink()
    again = install(project, programs, **environ)
    assert (again.returncode, again.stderr) == (0, "")
    assert not journal.exists()


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_installs_again_into_the_same_venv(tmp_path: Path, name: str) -> None:
    project, programs, journal = make_project(tmp_path), tmp_path / "bin", tmp_path / "journal"
    write_program(programs / "python3", FAKE_PYTHON)
    environ = {"JOURNAL": str(journal), "BREAK": "/nonexistent"}
    install(project, programs, **environ)
    journal.unlink()
    with (project / name).open("a") as file:
        file.write("# changed\n")
    assert install(project, programs, **environ).returncode == 0
    assert "-m pip install" in journal.read_text()
    assert "-m venv" not in journal.read_text()


def test_an_interrupted_install_is_thrown_away_and_made_anew(tmp_path: Path) -> None:
    project, programs, journal = make_project(tmp_path), tmp_path / "bin", tmp_path / "journal"
    write_program(programs / "python3", FAKE_PYTHON)
    broken = tmp_path / "broken"
    broken.touch()
    environ = {"JOURNAL": str(journal), "BREAK": str(broken)}
    assert install(project, programs, **environ).returncode == 9
    (project / ".venv/half-written").touch()
    broken.unlink()
    assert install(project, programs, **environ).returncode == 0
    assert not (project / ".venv/half-written").exists()
    assert (project / ".venv/bin/onmodel").exists()


def test_a_venv_that_was_moved_with_its_project_is_made_anew(tmp_path: Path) -> None:
    project, programs, journal = make_project(tmp_path), tmp_path / "bin", tmp_path / "journal"
    write_program(programs / "python3", FAKE_PYTHON)
    environ = {"JOURNAL": str(journal), "BREAK": "/nonexistent"}
    install(project, programs, **environ)
    journal.unlink()
    moved = project.rename(tmp_path / "elsewhere")
    assert install(moved, programs, **environ).returncode == 0
    assert "-m venv" in journal.read_text()


def test_uv_is_used_when_it_is_there(tmp_path: Path) -> None:
    project, programs, journal = make_project(tmp_path), tmp_path / "bin", tmp_path / "journal"
    write_program(programs / "python3", FAKE_PYTHON)
    write_program(
        programs / "uv",
        'echo "uv $*" >>"$JOURNAL"; mkdir -p .venv/bin; '
        'cp "$(command -v python3)" .venv/bin/python; cp .venv/bin/python .venv/bin/onmodel',
    )
    assert install(project, programs, JOURNAL=str(journal), BREAK="/nonexistent").returncode == 0
    assert "uv pip install" in journal.read_text()
    assert "-m pip" not in journal.read_text()
