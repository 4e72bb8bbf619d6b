"""How we speak HTTP with RunPod's REST v2: the key, one request at a time, and what its answers about us mean.

Shapes and codes: RunPod's OpenAPI document 2.0.0 (runpod/docs a900806, 2026-08-20), and runpod_trainers.md 1.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx
from pydantic import SecretStr

from domain.errors import NotConfigured, OnModelError, OutOfCredit, RateLimited, Unavailable
from providers.vendor_words import failure_line, one_line, without
from providers.web import retry_after_seconds

BASE_URL = "https://api.runpod.io/v2"


class RunPodClient:
    """The HTTP client with the key, which leaves it in one header, to one host, and never in a text.

    `http` must not follow redirects by itself and stays the caller's to close.
    """

    def __init__(self, http: httpx.Client, key: SecretStr, base_url: str = BASE_URL) -> None:
        secret = key.get_secret_value().strip()
        # Checked here, because an HTTP library would quote the whole header in its complaint.
        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise NotConfigured(
                "RUNPOD_API_KEY is empty or holds characters no key has: copy it from RunPod's settings."
            )
        url = httpx.URL(base_url)
        if url.scheme != "https" and url.host not in ("127.0.0.1", "localhost", "::1"):
            raise NotConfigured(f"RunPod's address {base_url!r} is not https, so the key is not sent there.")
        self._http = http
        self._secret = secret
        self._base_url = base_url.rstrip("/")

    def __repr__(self) -> str:
        return "RunPodClient(key=**********)"

    def send(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> httpx.Response:
        """One request, sent once, answer read whole. Raises what httpx raises."""
        headers = {"Authorization": f"Bearer {self._secret}", "Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        return self._http.request(
            method, f"{self._base_url}{path}", params=query, content=content, headers=headers, follow_redirects=False
        )

    def look(
        self, method: str, path: str, doing: str, *, query: Mapping[str, str] | None = None, fine: tuple[int, ...] = ()
    ) -> httpx.Response:
        """A call that costs nothing: an answer with a 2xx, or with one of `fine`; every other is an error.

        `Unavailable` for what failed on the way; `NotConfigured`, `OutOfCredit` and `RateLimited` as `account_error`.
        """
        try:
            response = self.send(method, path, query=query)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(
                f"RunPod could not be asked when {doing} ({self.failure(error)}); ask again later."
            ) from error
        if response.is_success or response.status_code in fine:
            return response
        account = self.account_error(response, doing)
        if account is not None:
            raise account
        if response.status_code == 403:
            raise NotConfigured(
                f"RunPod's key may not do this, when {doing} (403: {self.words(response)}): "
                "give RUNPOD_API_KEY the right to read and write pods."
            )
        raise Unavailable(
            f"RunPod failed when {doing} ({response.status_code}: {self.words(response)}); it can be asked again."
        )

    def send_action(self, pod_id: str, action: str) -> bool:
        """Ask for a pod's `stop` or `start`; whether it was taken."""
        try:
            content = json.dumps({"action": action}).encode()
            return self.send("POST", f"/pods/{pod_id}/action", content=content).is_success
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return False

    def account_error(self, response: httpx.Response, doing: str, hide: tuple[str, ...] = ()) -> OnModelError | None:
        """The error for answers about key, balance and rate; None for all others. 403 means different things."""
        said = self.words(response, hide)
        match response.status_code:
            case 401:
                return NotConfigured(
                    f"RunPod did not accept the key when {doing} (401: {said}): correct RUNPOD_API_KEY."
                )
            case 402:
                return OutOfCredit(
                    f"RunPod's balance is used up, it says when {doing} (402: {said}): top it up; "
                    "nothing more is sent until then."
                )
            case 429:
                return RateLimited(
                    f"RunPod asked to slow down when {doing} (429: {said}); it is tried again later.",
                    retry_after_seconds(response),
                )
            case _:
                return None

    def words(self, response: httpx.Response, hide: tuple[str, ...] = ()) -> str:
        """What RunPod said in a refusal: `detail` and `errors` of its problem document, else the page, cut.

        `hide` are texts of ours that it may repeat and nobody else may read.
        """
        body = json_of(response)
        if not isinstance(body, dict):
            return self.quote(response.text, hide) or response.reason_phrase
        errors = body.get("errors")
        parts = [body.get("detail") or body.get("title") or body.get("error") or ""]
        parts += errors if isinstance(errors, list) else []
        return self.quote("; ".join(str(part) for part in parts if part), hide) or response.reason_phrase

    def quote(self, text: object, hide: tuple[str, ...] = ()) -> str:
        """A vendor's words on one line, cut, and without the key or what is to be hidden should they repeat it."""
        return one_line(without(text, (self._secret, *hide)))

    def failure(self, error: BaseException) -> str:
        """An exception in a few words."""
        return failure_line(error, self.quote(error))


def json_of(response: httpx.Response) -> Any:
    """The answer's JSON with every fraction as a `Decimal`, or None when it is none."""
    try:
        return json.loads(response.content, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def read_time(word: object) -> datetime | None:
    """An RFC 3339 time as aware UTC; None for anything else."""
    if not isinstance(word, str):
        return None
    try:
        when = datetime.fromisoformat(word)
        return when.astimezone(UTC) if when.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def date_of(response: httpx.Response) -> datetime | None:
    """When the vendor answered, by its own clock; None where it does not say."""
    try:
        when = parsedate_to_datetime(response.headers["date"])
        return when.astimezone(UTC) if when.tzinfo is not None else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def read_usd(word: object) -> Decimal | None:
    """An amount in USD, not below zero; None for anything else."""
    if isinstance(word, bool) or not isinstance(word, int | Decimal):
        return None
    amount = Decimal(word)
    return amount if amount.is_finite() and amount >= 0 else None


def read_decimal(text: str) -> Decimal | None:
    """An amount in USD above zero out of a text of ours; None for anything else."""
    try:
        amount = Decimal(text)
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and amount > 0 else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
