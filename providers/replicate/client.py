"""How we speak with Replicate: the token and where it may go, and what Replicate's answers mean.

Wire protocol and error shapes: Replicate's OpenAPI document, error bodies quoted in public (replicate_comfyui.md 1.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import SecretStr

from domain.errors import (
    BadTrainingSet,
    NotConfigured,
    OnModelError,
    OutOfCredit,
    RateLimited,
    Rejected,
    Unavailable,
)
from domain.records import Record
from providers.vendor_words import failure_line, json_of, one_line, without
from providers.web import is_https_at, retry_after_seconds

API_URL = "https://api.replicate.com/v1"
KEY_HOSTS = ("api.replicate.com",)
"""The only host the token is ever sent to, whatever address an answer may carry. File hosts are not among them."""

MAYBE_TAKEN = (408, 409)
"""Refusals by word that do not prove that nothing was made: a timeout and a conflict."""


class VendorWords(Record):
    """What Replicate said in a refusal: free text for people, `fields` (`input.prompt`) for deciding."""

    status: int
    text: str
    fields: frozenset[str] = frozenset()


class ReplicateClient:
    """The HTTP client with the token. It leaves it in one header, to Replicate's own host, and never in a text."""

    def __init__(self, http: httpx.Client, token: SecretStr) -> None:
        secret = token.get_secret_value().strip()
        # Checked here, because an HTTP library would quote the whole header in its complaint.
        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise NotConfigured(
                "REPLICATE_API_TOKEN is empty or holds characters no token has: copy it from Replicate's account page."
            )
        self.http = http
        self._secret = secret

    def __repr__(self) -> str:
        return "ReplicateClient(token=**********)"

    @property
    def authorization(self) -> str:
        """Value of the Authorization header."""
        return f"Bearer {self._secret}"

    def send(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request with the token, sent once, answer read whole; `url` is whole or begins with a slash.

        Raises what httpx raises.
        """
        address = f"{API_URL}{url}" if url.startswith("/") else url
        if not may_carry_token(address):
            raise Unavailable(f"{self.quote(url)!r} is no address of Replicate's, so the token was not sent there.")
        sent = {"Authorization": self.authorization, "Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        return self.http.request(method, address, content=content, files=files, headers=sent, follow_redirects=False)

    def look(self, method: str, url: str, **more: Any) -> httpx.Response:
        """As `send`, for calls that cost nothing: any failure on the way is `Unavailable`."""
        try:
            return self.send(method, url, **more)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(
                f"Replicate could not be asked ({method} {_path_of(url)}: {self.failure(error)}); ask again later."
            ) from error

    def check_look(self, response: httpx.Response, doing: str) -> None:
        """Raise what an answer to a free call means unless it is a success: `Unavailable` for all but our account."""
        if response.is_success:
            return
        account = self.account_error(response, doing)
        if account is not None:
            raise account
        said = self.words(response)
        raise Unavailable(f"Replicate failed when {doing} ({said.status}: {said.text}); it can be asked again.")

    def quote(self, text: object) -> str:
        """A vendor's words on one line, cut, and without the token should they repeat it."""
        return one_line(without(text, [self._secret]))

    def failure(self, error: BaseException) -> str:
        """An exception in a few words."""
        return failure_line(error, self.quote(error))

    def words(self, response: httpx.Response) -> VendorWords:
        """Read a refusal: a problem document with `title`, `detail` and perhaps `invalid_fields`, or no JSON at all."""
        body = json_of(response)
        problem = body if isinstance(body, dict) else {}
        items = problem.get("invalid_fields")
        wrong = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        text = problem.get("detail") or problem.get("title") or problem.get("error")
        if not text and wrong:
            text = "; ".join(f"{item.get('field', '')}: {item.get('description', '')}" for item in wrong)
        return VendorWords(
            status=response.status_code,
            text=self.quote(text or response.text) or response.reason_phrase,
            fields=frozenset(str(item["field"]) for item in wrong if "field" in item),
        )

    def account_error(self, response: httpx.Response, doing: str) -> OnModelError | None:
        """The error for answers about us rather than about the job: token, account, rate. None for all others.

        A 429's wait stands in the header or in the body (replicate_comfyui.md 1.1); below 5 USD of credit Replicate
        lets one job in ten seconds through and says 429 to the rest.
        """
        said = self.words(response)
        match response.status_code:
            case 401 | 403:
                return NotConfigured(
                    f"Replicate did not accept the token when {doing} ({response.status_code}: {said.text}): correct "
                    "REPLICATE_API_TOKEN, or what it may do."
                )
            case 402:
                return OutOfCredit(
                    f"Replicate refused the account when {doing} (402: {said.text}): add credit on its billing page; "
                    "nothing more is sent until then."
                )
            case 429:
                return RateLimited(
                    f"Replicate asked to slow down when {doing} (429: {said.text}); it is tried again later.",
                    retry_after_seconds(response),
                )
            case _:
                return None


def refusal(said: VendorWords, doing: str, training_field: str | None = None) -> OnModelError:
    """The error for a request that Replicate judged and did not take; `training_field` is where a set would stand."""
    sentence = f"Replicate refused {doing} ({said.status}: {said.text})"
    if training_field and said.fields & {training_field, f"input.{training_field}"}:
        return BadTrainingSet(f"{sentence}: mend the training set.")
    if said.status == 404:
        return Rejected(f"{sentence}: the model may be gone, choose another one.")
    return Rejected(f"{sentence}: sending the same again is useless.")


def may_carry_token(url: str) -> bool:
    """Whether the address is https, on its usual port, at Replicate's API host."""
    return is_https_at(url, KEY_HOSTS)


def in_path(vendor_id: str) -> str:
    """An id out of a vendor's answer as one segment of an address: nothing in it may lead elsewhere."""
    return re.sub(r"[^A-Za-z0-9._~-]|^\.+$", "-", vendor_id)


def _path_of(url: str) -> str:
    return url if url.startswith("/") else httpx.URL(url).path
