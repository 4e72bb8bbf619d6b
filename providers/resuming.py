"""Fetching a vendor's file into a stream: resumed by range when the connection breaks, and whole or not at all."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import BinaryIO

import httpx

from domain.errors import JobFailed, ResultExpired, Unavailable
from domain.records import Record

MAX_RESUMES = 3
MAX_REDIRECTS = 5


class FileWords(Record):
    """What errors call a file and who has it: `name` is fetched from `place`, whose `store` answers."""

    name: str
    place: str
    store: str


def fetch_resuming(
    open_at: Callable[[int], httpx.Response],
    into: BinaryIO,
    words: FileWords,
    failure: Callable[[BaseException], str],
    *,
    most_bytes: int | None = None,
    is_total_checked: bool = False,
) -> None:
    """Stream a file into a seekable stream, from where that stands. Safe to repeat; nothing is paid for.

    `open_at` gives a still unread answer from an offset on, its status 2xx, or 416 for an offset above zero; `failure`
    says an exception in a few words. A broken connection is resumed up to three times, from the start where the range
    is ignored, and the length is compared with what was promised. `is_total_checked`: a resumed answer must also name
    the whole length promised before. `Unavailable` when the file did not come whole, `JobFailed` above `most_bytes`,
    and whatever `open_at` raises.
    """
    start, got, promised, seen = into.tell(), 0, None, ""
    for _ in range(1 + MAX_RESUMES):
        try:
            with contextlib.closing(open_at(got)) as response:
                if response.status_code == 416:
                    if promised in (None, got):
                        return  # nothing is left beyond what we have
                    break
                if response.status_code != 206:
                    into.seek(start)
                    into.truncate()
                    got = 0
                elif not (_is_rest_of(response, got, promised) if is_total_checked else _is_from(response, got)):
                    raise Unavailable(
                        f"{words.store} resumed a file at another place than asked; it can be tried again."
                    )
                promised = _promised_bytes(response, got) or promised
                # No chunk size: httpx would hold bytes back, and lose them when the connection breaks.
                for chunk in response.iter_raw():
                    into.write(chunk)
                    got += len(chunk)
                    if most_bytes is not None and got > most_bytes:
                        raise JobFailed(f"The file {words.name} is larger than {most_bytes // 1024**3} GiB.")
            if promised in (None, got):
                return
            seen = f"{got} of {promised} bytes came"
        except httpx.HTTPError as error:
            got = into.tell() - start
            seen = f"{failure(error)} after {got} bytes"
    raise Unavailable(
        f"The file {words.name} could not be fetched whole from {words.place} ({seen}); it can be tried again."
    )


def open_public(
    http: httpx.Client,
    url: str,
    offset: int,
    words: FileWords,
    *,
    lifetime: str,
    headers_to: Callable[[str], Mapping[str, str]] | None = None,
) -> httpx.Response:
    """`open_at` for an address out of a vendor's answer, which may lead anywhere: public https alone is asked.

    `headers_to` are the headers for one address, asked anew after each redirect, so that a key goes to the vendor's
    own hosts only; `lifetime` says how long the vendor keeps its files. `JobFailed` for an address that is not asked,
    `ResultExpired` on 404 and 410, `Unavailable` on everything else that is no file. Raises what httpx raises.
    """
    for _ in range(1 + MAX_REDIRECTS):
        _check_public_https(url, words)
        headers = {**range_headers(offset), **(headers_to(url) if headers_to else {})}
        request = http.build_request("GET", url, headers=headers)
        response = http.send(request, stream=True, follow_redirects=False)
        if response.next_request is None:
            break
        response.close()
        url = str(response.next_request.url)
    code = response.status_code
    if response.is_success or (code == 416 and offset):
        if is_identity(response):
            return response
        response.close()
        raise Unavailable(f"{words.store} sent {words.name} compressed though asked not to; it can be tried again.")
    response.close()
    if code in (404, 410):
        raise ResultExpired(f"The file {words.name} is gone from {words.store} ({code}): {lifetime}.")
    raise Unavailable(f"{words.store} answered {code} for the file {words.name}; it can be tried again.")


def range_headers(offset: int) -> dict[str, str]:
    """The headers that ask for a file's bytes as they are, from the offset on."""
    return {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}


def is_identity(response: httpx.Response) -> bool:
    """Whether the bytes come as they are: compressed ones could be neither counted nor resumed."""
    return bool(response.headers.get("content-encoding", "identity") == "identity")


def _is_from(response: httpx.Response, offset: int) -> bool:
    """Whether a partial answer begins at the offset we asked for."""
    match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return match is not None and int(match[1]) == offset


def _is_rest_of(response: httpx.Response, offset: int, promised: int | None) -> bool:
    """The same, and of a file as long as the one that was begun."""
    match = re.match(r"bytes \d+-\d+/(\d+|\*)", response.headers.get("content-range", ""))
    return _is_from(response, offset) and match is not None and (not promised or match[1] in ("*", str(promised)))


def _promised_bytes(response: httpx.Response, offset: int) -> int | None:
    """Length of the whole file, from this answer's own part of it; None when the answer does not say."""
    length = response.headers.get("content-length", "")
    return offset + int(length) if length.isdecimal() else None


def _check_public_https(url: str, words: FileWords) -> None:
    """The address stands in a stranger's answer: only https to a public host is followed."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        complaint = f"{words.place} gave no valid address for the file {words.name}: it cannot be fetched."
        raise JobFailed(complaint) from error
    is_private = parsed.host == "localhost" or parsed.host.endswith((".localhost", ".local", ".internal"))
    with contextlib.suppress(ValueError):  # a name, not a number
        is_private = is_private or not ipaddress.ip_address(parsed.host).is_global
    if parsed.scheme != "https" or not parsed.host or is_private:
        raise JobFailed(
            f"{words.place} gave an address for the file {words.name} that is not public https: it is not fetched."
        )
