"""The rehearsal's handover, as an adapter uses it: files at the sandbox's server, by signed links on loopback."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from domain.errors import ResultExpired, Unavailable
from domain.jobs import BlobRef
from providers.blobs.handover import check_place, plain_name
from providers.blobs.naming import check_digest
from providers.sandbox.places import HANDOVER_HOST


class SandboxHandover:
    """`Handover` over a running sandbox. `http` goes through a `SandboxTransport` that has `HANDOVER_HOST` among its
    hosts, and stays the caller's to close."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def read_link(self, path: Path, ref: BlobRef, valid_for: timedelta) -> str:
        """As `Handover`: the file is put there each time."""
        place = f"/files/{check_digest(ref.sha256)}/{plain_name(ref.file_name)}"
        with path.open("rb") as file:
            self._ask("PUT", place, content=file)
        return self._link("GET", place, valid_for)

    def write_link(self, box: str, name: str, valid_for: timedelta) -> str:
        """As `Handover`."""
        return self._link("PUT", f"/boxes/{check_place(box, name)}", valid_for)

    def read_back_link(self, box: str, name: str, valid_for: timedelta) -> str:
        """As `Handover`."""
        return self._link("GET", f"/boxes/{check_place(box, name)}", valid_for)

    def read(self, box: str, name: str, limit_bytes: int = 1_000_000) -> bytes | None:
        """As `Handover`; what is longer than the limit is cut."""
        answer = self._ask("GET", f"/boxes/{check_place(box, name)}", fine=(404,))
        return None if answer.status_code == 404 else answer.content[:limit_bytes]

    def fetch(self, box: str, name: str, into: BinaryIO) -> None:
        """As `Handover`."""
        place = f"/boxes/{check_place(box, name)}"
        try:
            with self._http.stream("GET", f"https://{HANDOVER_HOST}{place}", headers=_HEADERS) as answer:
                if answer.status_code in (404, 410):
                    raise ResultExpired(f"The file {name} is not in the handover {box}.")
                if not answer.is_success:
                    raise Unavailable(f"The sandbox's handover answered {answer.status_code}; it can be tried again.")
                for chunk in answer.iter_raw():
                    into.write(chunk)
        except (httpx.HTTPError, OSError) as error:
            raise Unavailable(f"The sandbox's handover broke off ({error}); it can be tried again.") from error

    def delete(self, box: str) -> None:
        """As `Handover`."""
        self._ask("DELETE", f"/boxes/{check_place(box, 'x').removesuffix('/x')}")

    def _link(self, method: str, place: str, valid_for: timedelta) -> str:
        wish = {"method": method, "path": place, "seconds": valid_for.total_seconds()}
        try:
            return str(self._ask("POST", "/links", json=wish).json()["url"])
        except (ValueError, KeyError, TypeError):
            raise Unavailable("The sandbox's handover gave no link that can be read; it can be tried again.") from None

    def _ask(self, method: str, place: str, *, fine: tuple[int, ...] = (), **what: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"https://{HANDOVER_HOST}{place}", headers=_HEADERS, **what)
        except (httpx.HTTPError, OSError) as error:
            raise Unavailable(f"The sandbox's handover could not be asked ({error}); it can be tried again.") from error
        if answer.is_success or answer.status_code in fine:
            return answer
        raise Unavailable(f"The sandbox's handover answered {answer.status_code}; it can be tried again.")


_HEADERS = {"Authorization": "Bearer sandbox"}
