"""What ComfyUI made, and files to and from it: names checked, sorted by what was bought, fetched whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import JobFailed, OnModelError, RateLimited, Rejected, ResultExpired, Unavailable
from domain.jobs import OutputFile, VendorJobIds
from providers.comfyui.vendor import ComfyUiVendor
from tests.contract.comfyui_orders import CLIP, FACE, OURS, STILL, finished, server_that_says, vendor_at
from tests.contract.comfyui_standin import ComfyUiStandin, Fault, png_bytes
from tests.media_samples import make_clip


@pytest.fixture
def comfy() -> Iterator[ComfyUiStandin]:
    with ComfyUiStandin() as server:
        yield server


@pytest.fixture
def vendor(comfy: ComfyUiStandin) -> Iterator[ComfyUiVendor]:
    with vendor_at(comfy.url) as vendor:
        yield vendor


# --- output ---


def test_a_finished_picture_is_named_and_fetched_whole(comfy: ComfyUiStandin, vendor: ComfyUiVendor) -> None:
    output = vendor.output(STILL, finished(comfy, vendor))
    (file,) = output.files
    assert (file.role, file.content_type, file.file_name) == ("image", "image/png", comfy.jobs[0].file_name)
    assert file.url.startswith(f"{comfy.url}/view?")
    assert output.billed_usd is None
    into = io.BytesIO()
    vendor.download(file, into)
    assert into.getvalue() == png_bytes()


def test_a_clip_listed_among_the_images_is_a_video(tmp_path: Path) -> None:
    made = make_clip(tmp_path / "made.mp4", seconds=0.2).read_bytes()
    with ComfyUiStandin(made, suffix=".mp4") as comfy, vendor_at(comfy.url) as vendor:
        ids = finished(comfy, vendor)
        (file,) = vendor.output(CLIP, ids).files
        assert (file.role, file.content_type) == ("video", "video/mp4")
        into = io.BytesIO()
        vendor.download(file, into)
        assert into.getvalue() == made
        with pytest.raises(JobFailed, match="saved no image"):
            vendor.output(STILL, ids)


@pytest.mark.parametrize(
    ("fate", "error", "says"),
    [
        ("error", JobFailed, r"node 3 \(KSampler\): torch.OutOfMemoryError: no memory left"),
        ("interrupted", JobFailed, "interrupted"),
        ("unknown", Unavailable, "melted"),
        ("cached", JobFailed, "filename_prefix of its own"),
        ("vanish", ResultExpired, "no longer knows"),
        ("endless", Unavailable, "not finished"),
    ],
)
def test_a_job_without_a_picture_says_why(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, fate: str, error: type[OnModelError], says: str
) -> None:
    ids = finished(comfy, vendor, fate)
    with pytest.raises(error, match=says) as caught:
        vendor.output(STILL, ids)
    assert type(caught.value) is error


def saved(*nodes: dict[str, Any]) -> dict[str, Any]:
    entry = {"outputs": dict(enumerate(nodes)), "status": {"status_str": "success", "messages": [["odd"], 7]}}
    return {OURS: entry}


def named(filename: Any, subfolder: Any = "", kind: str = "output") -> dict[str, Any]:
    return {"filename": filename, "subfolder": subfolder, "type": kind}


def test_files_are_sorted_by_what_was_bought_and_previews_left_out() -> None:
    answer = saved(
        {"images": [named("preview.png", kind="temp")]},
        {"images": [named("first frame.png", "a/b")], "text": ["words"]},
        {"gifs": [named("walk.mp4"), named("walk.gif")]},
        {"audio": [named("walk.flac")]},
        {"images": [named("swim.webp")], "animated": [True]},
    )
    with server_that_says(200, answer) as url, vendor_at(url) as vendor:
        clips = [file for file in vendor.output(CLIP, VendorJobIds(request_id=OURS)).files if file.role == "video"]
        stills = [file for file in vendor.output(STILL, VendorJobIds(request_id=OURS)).files if file.role == "image"]
        assert [file.file_name for file in clips] == ["walk.mp4", "walk.gif", "swim.webp"]
        assert [(file.file_name, httpx.URL(file.url).params["subfolder"]) for file in stills] == [
            ("first frame.png", "a/b")
        ]


@pytest.mark.parametrize(
    "place",
    [
        named("../../etc/passwd"),
        named("a/b.png"),
        named("a\\b.png"),
        named("..png"),
        named("x.png [input]"),
        named("blake3:00"),
        named("x\n.png"),
        named("x" * 256),
        named(""),
        named(None),
        named("x.png", "../input"),
        named("x.png", "a\\..\\b"),
        named("x.png", "/etc"),
        named("x.png", "C:\\x"),
        named("x.png", None),
    ],
)
def test_a_name_that_leads_out_of_the_output_folder_is_not_fetched(place: dict[str, Any]) -> None:
    with server_that_says(200, saved({"images": [place]})) as url, vendor_at(url) as vendor, pytest.raises(JobFailed):
        vendor.output(STILL, VendorJobIds(request_id=OURS))


# --- files ---


def test_an_upload_gives_the_name_a_node_takes_and_may_be_repeated(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(png_bytes())
    names = [vendor.upload(path, FACE) for _ in range(2)]
    assert names == [f"onmodel/{FACE.sha256}.png"] * 2
    assert comfy.uploaded == {names[0]: png_bytes()}
    path.write_bytes(b"what was half written there before")
    assert vendor.upload(path, FACE) == f"onmodel/{FACE.sha256} (1).png"


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (413, b"", Rejected),
        (400, b"", Rejected),
        (429, {"retry_after": 2}, RateLimited),
        (401, b"", Unavailable),
        (502, b"<html>nginx</html>", Unavailable),
        (200, b"no json", Unavailable),
        (200, {"name": "../x", "subfolder": ""}, Unavailable),
        (200, {"name": "x.png", "subfolder": "../models"}, Unavailable),
        (200, {"name": "x.png"}, Unavailable),
    ],
)
def test_an_upload_that_fails_says_whether_it_can_be_repeated(
    tmp_path: Path, code: int, body: Any, error: type[OnModelError]
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x")
    with server_that_says(code, body) as url, vendor_at(url) as vendor, pytest.raises(error) as caught:
        vendor.upload(path, FACE)
    assert type(caught.value) is error


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_file_cut_short_is_carried_on_to_the_same_bytes(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, honours_range: bool
) -> None:
    comfy.honours_range = honours_range
    comfy.plan = [Fault("GET /view", "truncate", nth=1), Fault("GET /view", "drop", nth=2)]
    (file,) = vendor.output(STILL, finished(comfy, vendor)).files
    into = io.BytesIO(b"before")
    into.seek(6)
    vendor.download(file, into)
    assert into.getvalue() == b"before" + png_bytes()
    assert comfy.asked("GET /view")[1].headers["range"] == f"bytes={len(png_bytes()) // 2}-"


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("404", ResultExpired, "is gone"),
        ("429", RateLimited, "slow down"),
        ("500", Unavailable, "500"),
        ("502", Unavailable, "502"),
        ("drop", Unavailable, "after 0 bytes"),
        ("truncate", Unavailable, "could not be fetched whole"),
    ],
)
def test_a_file_that_cannot_be_had_says_whether_it_is_gone(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor, fault: str, error: type[OnModelError], says: str
) -> None:
    comfy.honours_range = False
    (file,) = vendor.output(STILL, finished(comfy, vendor)).files
    comfy.plan = [Fault("GET /view", fault, nth=None)]
    with pytest.raises(error, match=says) as caught:
        vendor.download(file, io.BytesIO())
    assert type(caught.value) is error


def test_a_download_asks_our_server_only_wherever_the_address_leads(
    comfy: ComfyUiStandin, vendor: ComfyUiVendor
) -> None:
    (file,) = vendor.output(STILL, finished(comfy, vendor)).files
    moved = file.model_copy(update={"url": file.url.replace(comfy.url, "https://elsewhere.example:9")})
    into = io.BytesIO()
    vendor.download(moved, into)
    assert into.getvalue() == png_bytes()
    for url in ("https://elsewhere.example/x.png", f"{comfy.url}/view?filename=../x", "http://["):
        with pytest.raises(JobFailed, match="not fetched"):
            vendor.download(OutputFile(role="image", url=url), io.BytesIO())
