"""What the tests of the ComfyUI adapter order, and how they reach it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from domain.jobs import BlobRef, VendorJobIds, VendorRequest, blob_argument
from domain.submissions import Submission
from providers.comfyui.queue import prompt_id_of
from providers.comfyui.vendor import ComfyUiVendor
from tests.contract.comfyui_standin import ComfyUiStandin

FACE = BlobRef(sha256="f" * 64, media_type="image/png", file_name="Maya, frontal.PNG")
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 7}},
    "5": {"class_type": "LoadImage", "inputs": {"image": blob_argument(FACE)}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "job"}},
}
STILL = VendorRequest(vendor="comfyui", endpoint="prompt", arguments={"workflow": GRAPH, "output_role": "image"})
CLIP = VendorRequest(vendor="comfyui", endpoint="prompt", arguments={"workflow": GRAPH, "output_role": "video"})
SENT = Submission(
    installation="0a1b2c3d",
    job_key="a1" * 20,
    number=1,
    sent_at=datetime.now(UTC),
    url_of={FACE.sha256: f"onmodel/{FACE.sha256}.png"},
)
SECOND = SENT.model_copy(update={"number": 2})
OURS = prompt_id_of(SENT)


@contextlib.contextmanager
def vendor_at(url: str, *, patience_seconds: float = 20.0, **given: Any) -> Iterator[ComfyUiVendor]:
    timeout = httpx.Timeout(20.0, read=patience_seconds)
    with httpx.Client(verify=False, trust_env=False, timeout=timeout, **given) as http:  # loopback: no certificates
        yield ComfyUiVendor(http, url)


@contextlib.contextmanager
def server_that_says(code: int, body: Any, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Something at the address that answers everything alike, and is no ComfyUI."""

    class Talk(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Talk) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def finished(comfy: ComfyUiStandin, vendor: ComfyUiVendor, fate: str = "done") -> VendorJobIds:
    comfy.fate, comfy.places = fate, []
    return vendor.submit(STILL, SENT)
