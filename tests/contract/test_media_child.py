"""Decoding in a child process: what a clip can do to it, what the caller hears, and that the next clip is read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from domain.errors import BadInput, BadTrainingSet, NotConfigured
from providers.media import FfmpegMediaTools
from providers.media_child import child_environment
from providers.media_children import MediaChildren, shared_children
from providers.media_limits import DecodingLimits
from providers.postgres.processes import is_alive, wait_until
from providers.wiring import Ports
from tests.media_samples import make_clip
from tests.ports_for_tests import settings_for_tests

HERE = Path(__file__).parent
MISBEHAVING = (sys.executable, "-I", "-S", str(HERE / "misbehaving_decoder.py"))
IMPATIENT = DecodingLimits(base_seconds=0.3, longest_seconds=0.4)


def tools_on(children: MediaChildren) -> FfmpegMediaTools:
    return FfmpegMediaTools("/bin/false", children)


@pytest.fixture
def badly() -> Iterator[MediaChildren]:
    """Children that do what the clip's name says, and are given little time for it."""
    children = MediaChildren(IMPATIENT, worker=MISBEHAVING)
    yield children
    children.close()


@pytest.fixture(scope="module")
def well() -> Iterator[MediaChildren]:
    """One real child for this file's tests."""
    children = MediaChildren(at_most=1)
    yield children
    children.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "a.mp4", seconds=0.4)


def the_sentence(tools: FfmpegMediaTools, path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        tools.probe_clip(path)
    message = caught.value.message
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    assert "Traceback" not in message
    return message


# --- a clip that ends its decoder ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hangs", "took longer than 0 s to decode and was given up"),
        ("works for long", "took longer than 0 s to decode and was given up"),
        ("ends", "made the decoder end (exit code 3)"),
        ("ends in peace", "made the decoder end (exit code 0)"),
        ("babbles", "nonsense"),
        ("answers with a list", "nonsense"),
        ("lies about the facts", "nonsense"),
        ("raises what is not ours", "nonsense"),
        ("has no memory", "needs more than 4.3 GB of memory"),
        ("stumbles", "cannot be decoded (it led to ZeroDivisionError)"),
        ("SIGSEGV", "made the decoder crash (SIGSEGV)"),
        ("SIGABRT", "made the decoder crash (SIGABRT)"),
        ("SIGXCPU", "more processor time than a clip of its size may"),
        ("SIGKILL", "when memory runs out"),
    ],
)
def test_a_clip_that_ends_its_decoder_is_refused_in_one_sentence_and_the_next_one_is_read(
    badly: MediaChildren, tmp_path: Path, name: str, said: str
) -> None:
    tools = tools_on(badly)
    assert said in the_sentence(tools, tmp_path / f"{name}.mp4")
    assert tools.probe_clip(tmp_path / "good.mp4").width == 4


@pytest.mark.parametrize("name", ["shows a giant", "shows half a picture", "shows too many"])
def test_pictures_that_are_not_what_was_asked_for_are_refused(badly: MediaChildren, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"made the decoder (answer nonsense|end)"):
        tools_on(badly).frames_at(tmp_path / f"{name}.mp4", [0.0])
    assert tools_on(badly).probe_clip(tmp_path / "good.mp4").width == 4


def test_our_own_errors_come_out_of_the_child_as_themselves(badly: MediaChildren, tmp_path: Path) -> None:
    with pytest.raises(BadTrainingSet, match=r"^No\.$"):
        tools_on(badly).probe_clip(tmp_path / "refuses.mp4")


def test_a_decoder_that_does_not_start_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=r"did not start \(exit code 1\); run .* and install OnModel anew\."):
        tools_on(MediaChildren(worker=(*MISBEHAVING, "does not start"))).probe_clip(tmp_path / "a.mp4")


def test_a_clip_has_time_by_its_size_and_by_its_frames_but_never_more_than_the_longest() -> None:
    limits = DecodingLimits()
    assert limits.seconds_for(0) == 60
    assert limits.seconds_for(10_000_000) == pytest.approx(80)
    # Ten minutes of 1080p at 30 frames a second; decoding every one of them took 95 s on two cores.
    assert limits.seconds_for(10_000_000, 18_000, 2.0736) == pytest.approx(80 + 1866.2, abs=0.1)
    assert limits.seconds_for(10**12, 10**9, 1e9) == 7200


# --- the limits themselves, on the real worker ---


def test_a_limit_that_is_passed_refuses_the_clip_and_one_that_is_not_does_not(
    well: MediaChildren, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=0.04, size=(1024, 1024))
    times = [0.0] * 60  # 190 MB of pictures
    for limits, said in (
        (DecodingLimits(base_seconds=0, seconds_per_megabyte=0, seconds_per_megapixel=0), "took longer than 0 s"),
        (DecodingLimits(memory_bytes=350 << 20), "needs more than 0.4 GB of memory"),
    ):
        strict = MediaChildren(limits)
        with pytest.raises(BadInput, match=said):
            tools_on(strict).frames_at(clip, times)
        strict.close()
    assert len(tools_on(well).frames_at(clip, times)) == 60


def test_a_picture_larger_than_it_may_write_is_laid_to_the_clip_and_a_folder_it_cannot_write_is_not(
    tmp_path: Path, clip: Path
) -> None:
    strict = MediaChildren(DecodingLimits(file_bytes=1000))
    with pytest.raises(BadInput, match=r"a\.mp4 cannot be decoded \(it led to OSError\)"):
        tools_on(strict).harvest(clip, tmp_path / "harvest", 2)
    (tmp_path / "file").touch()
    with pytest.raises(NotConfigured, match=r"file/harvest cannot be written \(Not a directory\)"):
        tools_on(strict).harvest(clip, tmp_path / "file" / "harvest", 2)
    strict.close()


def test_the_worker_binds_itself_before_it_opens_anything() -> None:
    program = """
import json, resource
from providers.media_limits import DecodingLimits, allow_processor_seconds, bind_this_process
bind_this_process(DecodingLimits(memory_bytes=2 << 30, file_bytes=1000, open_files=32))
allow_processor_seconds(100)
names = ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_CPU")
print(json.dumps([resource.getrlimit(getattr(resource, name)) for name in names]))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    core, size, files, memory, processor = json.loads(said)
    assert (core, size, files) == ([0, 0], [1000, 1000], [32, 32])
    assert memory == [2 << 30, 2 << 30] or sys.platform == "darwin"
    assert 100 <= processor[0] <= 100 * 16 + 60
    assert processor[0] != processor[1], "the next clip may have time of its own"


# --- one child for many clips ---


def test_one_child_reads_clip_after_clip_and_is_replaced_when_it_has_read_many(clip: Path) -> None:
    children = MediaChildren(orders_per_child=2, worker=MISBEHAVING)
    tools = tools_on(children)
    tools.probe_clip(clip)
    (first,) = children.process_ids()
    tools.probe_clip(clip)
    assert children.process_ids() == []
    assert not is_alive(first)
    tools.probe_clip(clip)
    assert children.process_ids() != [first]
    children.close()
    assert children.process_ids() == []
    tools.probe_clip(clip)
    children.close()
    children.close()


def test_closing_the_ports_ends_the_decoders(tmp_path: Path, clip: Path) -> None:
    ports = Ports(settings_for_tests(tmp_path, "postgresql://nobody@localhost/none"))
    ports.media.probe_clip(clip)
    waiting = shared_children().process_ids()
    assert waiting
    ports.close()
    assert shared_children().process_ids() == []
    assert not any(map(is_alive, waiting))


def test_a_child_that_died_while_nobody_needed_it_is_not_noticed(badly: MediaChildren, clip: Path) -> None:
    tools = tools_on(badly)
    tools.probe_clip(clip)
    (waiting,) = badly.process_ids()
    os.kill(waiting, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(waiting), 10)
    assert tools.probe_clip(clip).width == 4


def test_threads_share_two_children(clip: Path) -> None:
    children = MediaChildren(worker=MISBEHAVING)
    with ThreadPoolExecutor(8) as threads:
        facts = list(threads.map(tools_on(children).probe_clip, [clip] * 40))
    assert len(facts) == 40
    assert 1 <= len(children.process_ids()) <= 2
    children.close()


def test_frames_that_nobody_reads_to_the_end_free_their_turn(well: MediaChildren, clip: Path) -> None:
    frames = well.ask("frames_at", clip, times=[0.0] * 100)
    next(frames)
    del frames
    assert tools_on(well).probe_clip(clip).width == 160


def test_pictures_arrive_as_they_were_decoded(well: MediaChildren, clip: Path) -> None:
    from providers.media_frames import frames_at

    times = [0.3, 0.0]
    for here, there in zip(frames_at(clip, times), tools_on(well).frames_at(clip, times), strict=True):
        assert np.array_equal(here, there)


# --- names, secrets, and who outlives whom ---


def test_a_name_that_is_relative_or_no_unicode_is_told_as_it_was_given(well: MediaChildren, clip: Path) -> None:
    tools = tools_on(well)
    odd = Path(os.fsdecode(os.fsencode(clip.parent) + b"/\xff\xfe \n.mp4"))
    odd.write_bytes(clip.read_bytes())
    assert tools.probe_clip(odd).width == 160
    for wrong in (Path(os.path.relpath(clip.parent)) / "none.mp4", odd.with_suffix(".none")):
        with pytest.raises(BadInput) as caught:
            tools.probe_clip(wrong)
        assert caught.value.message == f"{wrong} is not there; check the path."
    assert tools.probe_clip(Path(os.path.relpath(clip))).width == 160


def test_no_secret_of_ours_reaches_the_child(tmp_path: Path) -> None:
    ours = {"FAL_KEY": "k", "ONMODEL_DATABASE_URL": "u", "HOME": "/home/me", "PATH": "/bin", "PYTHONPATH": "/more"}
    assert child_environment(ours) == {
        "PATH": "/bin",
        "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}/more",
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
    }
    children = MediaChildren(worker=MISBEHAVING)
    environ, folder = json.loads(tools_on(children).probe_clip(tmp_path / "looks around.mp4").video_codec)
    children.close()
    assert environ.keys() - child_environment(os.environ).keys() <= {"LC_CTYPE"}  # Python's own, where LANG is C
    assert folder == "/"


def test_a_child_ends_with_its_parent_even_in_the_middle_of_a_clip(clip: Path) -> None:
    program = f"""
import os, sys, threading
from pathlib import Path
from providers.media_children import MediaChildren
children = MediaChildren()
list(children.ask("probe_clip", Path({str(clip)!r})))
(waiting,) = children.process_ids()
frames = children.ask("frames_at", Path({str(clip)!r}), times=[0.0] * 100)
next(frames)
forked = os.fork()
if forked == 0:  # a fork has children of its own and leaves ours alone
    list(children.ask("probe_clip", Path({str(clip)!r})))
    is_another = children.process_ids() != [waiting]
    children.close()
    os._exit(0 if is_another else 1)
print(waiting, os.waitpid(forked, 0)[1], len(list(frames)), flush=True)
frames = children.ask("frames_at", Path({str(clip)!r}), times=[0.0] * 100)
next(frames)
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    child, of_the_fork, frames_left = map(int, ended.stdout.split())
    assert (of_the_fork, frames_left) == (0, 99)
    assert wait_until(lambda: not is_alive(child), 10)
