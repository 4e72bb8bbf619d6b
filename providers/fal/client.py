"""How we speak with fal: the key and where it may go, and what fal's answers mean.

Wire protocol, error shapes and hosts: fal's Inference API reference and the source of fal-client 1.0.3, read 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from pydantic import SecretStr

from domain.errors import (
    BadTrainingSet,
    JobFailed,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    PromptRefused,
    RateLimited,
    Rejected,
    Unavailable,
)
from domain.records import Record
from providers.vendor_words import failure_line, json_of, one_line, without
from providers.web import is_https_at, retry_after_seconds

QUEUE_URL = "https://queue.fal.run"
REST_URL = "https://rest.fal.ai"
API_URL = "https://api.fal.ai/v1"

KEY_HOSTS = ("queue.fal.run", "fal.run", "rest.fal.ai", "api.fal.ai", "queue.falrun.com", "falrun.com")
"""The only hosts the key is ever sent to, whatever address an answer may carry. File hosts are not among them."""

TRAINING_FIELDS = frozenset({"images_data_url", "image_data_url", "training_data_url"})
POLICY_TYPE = "content_policy_violation"


class VendorWords(Record):
    """What fal said in a refusal: free text for people, `types` and `fields` for deciding."""

    status: int
    text: str
    types: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    error_type: str | None = None


class FalClient:
    """The HTTP client with the key. The key leaves it in one header, to fal's own hosts, and never in a text."""

    def __init__(self, http: httpx.Client, key: SecretStr) -> None:
        secret = key.get_secret_value().strip()
        # Checked here, because an HTTP library would quote the whole header in its complaint.
        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise NotConfigured("FAL_KEY is empty or holds characters no key has: copy it from fal's dashboard.")
        self.http = http
        self._secret = secret

    def __repr__(self) -> str:
        return "FalClient(key=**********)"

    @property
    def authorization(self) -> str:
        """Value of the Authorization header."""
        return f"Key {self._secret}"

    @property
    def secret(self) -> str:
        """The bare key, for fal's own package."""
        return self._secret

    def send(self, method: str, url: str, *, content: bytes | None = None) -> httpx.Response:
        """One request with the key, sent once, answer read whole. Raises what httpx raises."""
        if not may_carry_key(url):
            raise Unavailable(f"{self.quote(url)!r} is no address of fal's queue, so the key was not sent there.")
        headers = {"Authorization": self.authorization, "Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        return self.http.request(method, url, content=content, headers=headers, follow_redirects=False)

    def look(self, method: str, url: str, *, content: bytes | None = None) -> httpx.Response:
        """As `send`, for calls that cost nothing: any failure on the way is `Unavailable`."""
        try:
            return self.send(method, url, content=content)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(
                f"fal could not be asked ({method} {httpx.URL(url).path}: {self.failure(error)}); ask again later."
            ) from error

    def check_look(self, response: httpx.Response, doing: str) -> None:
        """Raise what an answer to a free call means unless it is a success: `Unavailable` for all but our account."""
        if response.is_success:
            return
        account = self.account_error(response, doing)
        if account is not None:
            raise account
        said = self.words(response)
        raise Unavailable(f"fal failed when {doing} ({said.status}: {said.text}); it can be asked again.")

    def quote(self, text: object) -> str:
        """A vendor's words on one line, cut, and without the key should they repeat it."""
        return one_line(without(text, [self._secret]))

    def failure(self, error: BaseException) -> str:
        """An exception in a few words."""
        return failure_line(error, self.quote(error))

    def words(self, response: httpx.Response) -> VendorWords:
        """Read a refusal in any of fal's shapes: a list of typed errors, a text with `error_type`, or no JSON."""
        body = json_of(response)
        detail = body.get("detail", body.get("error")) if isinstance(body, dict) else None
        error_type = body.get("error_type") if isinstance(body, dict) else None
        items = [item for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []
        if items:
            text = "; ".join(f"{_place(item)}{item.get('msg', item.get('type', ''))}" for item in items)
        else:
            text = str(detail) if detail else response.text
        return VendorWords(
            status=response.status_code,
            text=self.quote(text) or response.reason_phrase,
            types=frozenset(str(item["type"]) for item in items if "type" in item),
            fields=frozenset(str(part) for item in items for part in _loc(item)),
            error_type=str(error_type or response.headers.get("x-fal-error-type") or "") or None,
        )

    def account_error(self, response: httpx.Response, doing: str) -> OnModelError | None:
        """The error for answers about us rather than about the job: key, account, rate. None for all others.

        fal answers 403 for a locked account or an empty balance (fal-ai/fal #489, #1147 and others, 2026); the
        reason stands only in its text, so the status alone decides.
        """
        said = self.words(response)
        match response.status_code:
            case 401:
                return NotConfigured(f"fal did not accept the key when {doing} (401: {said.text}): correct FAL_KEY.")
            case 402 | 403:
                return OutOfCredit(
                    f"fal refused the account when {doing} ({response.status_code}: {said.text}): "
                    "see balance and lock on fal's dashboard; nothing more is sent until then."
                )
            case 429:
                return RateLimited(
                    f"fal asked to slow down when {doing} (429: {said.text}); it is tried again later.",
                    retry_after_seconds(response),
                )
            case _:
                return None


def refusal(said: VendorWords, doing: str, otherwise: Callable[[str], OnModelError] = Rejected) -> OnModelError:
    """The error for a request or a job that fal judged: by error type and field, else `otherwise`."""
    sentence = f"fal refused {doing} ({said.status}: {said.text})"
    if POLICY_TYPE in said.types or said.error_type == POLICY_TYPE:
        return PromptRefused(f"{sentence}: change the prompt or the picture.")
    if said.fields & TRAINING_FIELDS:
        return BadTrainingSet(f"{sentence}: mend the training set.")
    if otherwise is JobFailed:
        return JobFailed(f"{sentence}: the job ended without a result.")
    if said.status == 404:
        return otherwise(f"{sentence}: the endpoint may be retired, choose another model.")
    return otherwise(f"{sentence}: sending the same again is useless.")


def may_carry_key(url: str) -> bool:
    """Whether the address is https, on its usual port, at one of fal's API hosts."""
    return is_https_at(url, KEY_HOSTS)


def _loc(item: dict[str, Any]) -> list[Any]:
    loc = item.get("loc")
    return loc if isinstance(loc, list) else []


def _place(item: dict[str, Any]) -> str:
    parts = [str(part) for part in _loc(item) if part != "body"]
    return f"{'.'.join(parts)}: " if parts else ""
