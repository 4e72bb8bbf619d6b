"""The report in a real browser: it fits every width, can be read in light and dark, plays, and calls nobody."""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from tasks.report_page import write_report
from tests.report_drawings import PictureShelf
from tests.report_samples import rich_season

_CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="no chromium on PATH (apt-get install chromium)")

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE_SECONDS = 60.0


class Browser:
    """Chromium spoken to over its debugging pipe (JSON, each message ended by a zero byte), one page open."""

    def __init__(self, profile: Path) -> None:
        assert _CHROMIUM is not None
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # Chromium reads descriptor 3 and writes 4; the shell puts our pipe ends there, whatever their numbers are.
        script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", _CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb", buffering=0)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._loaded = threading.Event()
        self._count = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        answer = self._answers.get(timeout=_PATIENCE_SECONDS)
        assert answer["id"] == self._count
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, width: int, *, is_dark: bool = False) -> None:
        """Load the page anew at a width of CSS pixels."""
        self.requests.clear()
        self.complaints.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._loaded.clear()
        self.call("Page.navigate", url=page.as_uri())
        assert self._loaded.wait(_PATIENCE_SECONDS), "the page did not load"

    def ask(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_PATIENCE_SECONDS)
        self._out.close()
        self._in.close()

    def _listen(self) -> None:
        rest = b""
        while chunk := self._in.read(1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                elif message["method"] == "Page.loadEventFired":
                    self._loaded.set()
                elif message["method"] == "Network.requestWillBeSent":
                    self.requests.append(message["params"]["request"]["url"])
                elif message["method"] == "Log.entryAdded":
                    self.complaints.append(message["params"]["entry"]["text"])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rich season's page, with one clip that is really there."""
    folder = tmp_path_factory.mktemp("season")
    shelf = PictureShelf()
    write_report(rich_season(shelf), folder / "report.html", shelf.read)
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "testsrc=d=0.4:s=160x90:r=10",
         "-pix_fmt", "yuv420p", folder / "season.mp4"],
        check=True,
    )  # fmt: skip
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.mark.parametrize("width", [360, 390, 640, 900, 1280, 1600])
def test_the_page_never_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width)
    wide = browser.ask(
        """[...document.querySelectorAll('body *')]
        .filter(e => !e.closest('.visually-hidden, .skip, svg') && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert wide == []
    assert browser.ask("document.documentElement.scrollWidth") == width


_UNREADABLE = """
(() => {
  const pixel = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = colour => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = e => {
    if (!e) return parse(getComputedStyle(document.documentElement).getPropertyValue('--paper'));
    const own = parse(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(e.parentElement));
  };
  const light = c => {
    const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = new Set();
  let seen = 0;
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('.frame, .rehearsal, video, .visually-hidden')) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const below = ground(e), ink = over(parse(getComputedStyle(e).color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (contrast < 4.5) poor.add(`${e.tagName} .${e.className} ${contrast.toFixed(2)}`);
  }
  return {seen, poor: [...poor]};
})()
"""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_every_word_stands_out_from_its_ground(browser: Browser, report: Path, is_dark: bool) -> None:
    """4.5 to 1: WCAG 2.2, success criterion 1.4.3."""
    browser.open(report, 1280, is_dark=is_dark)
    found = browser.ask(_UNREADABLE)
    assert found["poor"] == []
    assert found["seen"] > 500


def test_light_and_dark_are_really_two(browser: Browser, report: Path) -> None:
    grounds = []
    for is_dark in (False, True):
        browser.open(report, 1280, is_dark=is_dark)
        grounds.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(246, 242, 233)", "rgb(21, 20, 17)"]


def test_opening_the_page_asks_nobody_and_breaks_no_rule_of_its_own(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    assert {url for url in browser.requests if not url.startswith("data:")} == {report.as_uri()}
    assert browser.complaints == []
    assert browser.ask("document.scripts.length") == 0
    assert browser.ask("[...document.images].filter(i => i.naturalWidth === 0).length") == 0


def test_the_season_plays_from_the_file_beside_the_page(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    state = browser.ask(
        """new Promise(done => {
          const film = document.querySelector('.screen video');
          film.addEventListener('loadeddata', () => done([film.videoWidth, film.videoHeight]));
          film.addEventListener('error', () => done(film.error.message));
          film.preload = 'auto'; film.load();
        })"""
    )
    assert state == [160, 90]


def test_a_picture_from_elsewhere_is_forbidden_by_the_page_itself(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    violated = browser.ask(
        """new Promise(done => {
          document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));
          const spy = new Image(); spy.src = 'http://127.0.0.1:9/spy.png'; document.body.append(spy);
        })"""
    )
    assert violated == "img-src"


def test_nothing_overlaps_and_the_season_comes_before_its_slots(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    tops = browser.ask(
        """['.masthead', '.opening', '.strip', '#cast', '#slots', '#money', '#todo', 'footer']
        .map(s => document.querySelector(s).getBoundingClientRect()).map(r => [r.top, r.bottom])"""
    )
    assert all(above[1] <= below[0] + 1 for above, below in itertools.pairwise(tops))
    slots = browser.ask(
        """[...document.querySelectorAll('.slot:not(.won)')].map(s => [...s.children]
        .map(c => c.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom]))"""
    )
    assert len(slots) == 67
    for boxes in slots:
        for first, second in ((a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]):
            apart = first[2] <= second[0] + 1 or second[2] <= first[0] + 1
            assert apart or first[3] <= second[1] + 1 or second[3] <= first[1] + 1


def test_it_prints_on_white_paper_without_losing_a_slot(browser: Browser, report: Path) -> None:
    browser.open(report, 1280, is_dark=True)
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("[...document.querySelectorAll('.slot')].every(s => s.offsetHeight > 20)")
    assert browser.ask("document.querySelector('.todo code').offsetHeight") > 0
