"""How we speak HTTP with a ComfyUI server: its address, the password of a proxy before it, and what answers mean.

ComfyUI itself knows no users (replicate_comfyui.md 0.5): a name and password in the address are for a proxy that guards
it, and are sent as basic auth. They are shown nowhere.
"""

from __future__ import annotations

import base64
from typing import Any

import httpx

from domain.errors import NotConfigured, RateLimited, Retryable, Unavailable
from providers.vendor_words import failure_line, json_of, one_line, without
from providers.web import retry_after_seconds

QUOTE_CHARS = 400


class ComfyUiClient:
    """The HTTP client with the address. The password leaves it in one header, to that address, and never in a text."""

    def __init__(self, http: httpx.Client, base_url: str) -> None:
        try:
            url = httpx.URL(base_url)
        except (httpx.InvalidURL, TypeError, ValueError):
            url = httpx.URL("")  # the complaint would quote the password
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise NotConfigured(
                "ComfyUI's address is no plain web address: write ONMODEL_COMFYUI_URL=http://127.0.0.1:8188, with "
                "nothing after a ? or #."
            )
        self.http = http
        self._auth = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
        self._login = login = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
        raw_password = url.userinfo.decode().partition(":")[2]
        self._secrets = sorted({url.password, raw_password, login} - {""}, key=len, reverse=True) if self._auth else []
        self.base_url = str(url.copy_with(userinfo=b"")).rstrip("/")
        self.place = f"ComfyUI at {url.copy_with(userinfo=b'').netloc.decode()}"

    def __repr__(self) -> str:
        return f"ComfyUiClient({self.base_url!r})"

    def address(self, path: str, **query: str) -> str:
        """An address at this server, without the password."""
        return str(httpx.URL(self.base_url + path, params=query or None))

    def socket_address(self, client_id: str) -> str:
        """The address of the server's web socket for this client."""
        url = httpx.URL(self.base_url + "/ws", params={"clientId": client_id})
        return str(url.copy_with(scheme="wss" if url.scheme == "https" else "ws"))

    def socket_headers(self) -> dict[str, str]:
        """What a web socket's handshake carries: the proxy's login, where there is one. A secret."""
        return {"Authorization": f"Basic {self._login}"} if self._auth else {}

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """One request, sent once, answer read whole; no redirect is followed. Raises what httpx raises."""
        return self.http.request(method, self.address(path), auth=self._auth, follow_redirects=False, **given)

    def open(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """One GET whose answer is still unread; the caller closes it. Raises what httpx raises."""
        request = self.http.build_request("GET", url, headers=headers)
        return self.http.send(request, stream=True, auth=self._auth, follow_redirects=False)

    def look(self, path: str) -> Any:
        """The JSON at an address, free and repeatable; `RateLimited` or `Unavailable` when there is none to be had."""
        answer = json_of(self.ask("GET", path, f"asking for {path}"))
        if answer is None:
            raise Unavailable(f"{self.place} answered {path} with something that is no JSON; it can be asked again.")
        return answer

    def ask(self, method: str, path: str, doing: str, **given: Any) -> httpx.Response:
        """One free request that succeeded; everything else is `RateLimited` or `Unavailable`."""
        try:
            response = self.send(method, path, **given)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(
                f"{self.place} could not be reached when {doing} ({self.failure(error)}); try again later."
            ) from error
        if not response.is_success:
            raise self.refused_look(response, doing)
        return response

    def refused_look(self, response: httpx.Response, doing: str) -> Retryable:
        """The error for a free request that was answered by a refusal. Nothing about a job follows from it."""
        code = response.status_code
        if code == 429:
            return self.slow_down(response, doing)
        if code in (401, 403):
            return Unavailable(
                f"{self.place} did not let us in when {doing} ({code}): correct the user and password in "
                "ONMODEL_COMFYUI_URL."
            )
        return Unavailable(f"{self.place} failed when {doing} ({code}: {self.words(response)}); it can be asked again.")

    def slow_down(self, response: httpx.Response, doing: str) -> RateLimited:
        """The error for a 429. ComfyUI sends none itself; a proxy or a hosting service before it does."""
        return RateLimited(
            f"{self.place} asked to slow down when {doing} (429); it is tried again later.",
            retry_after_seconds(response),
        )

    def words(self, response: httpx.Response) -> str:
        """An answer's text, quoted."""
        return self.quote(response.text) or response.reason_phrase or "no text"

    def quote(self, text: object) -> str:
        """A stranger's words on one line, printable, cut, and without the password should they repeat it."""
        line = without(text, self._secrets)[: 20 * QUOTE_CHARS]
        return one_line("".join(letter if letter.isprintable() else " " for letter in line), QUOTE_CHARS)

    def failure(self, error: BaseException) -> str:
        """An exception in a few words."""
        return failure_line(error, self.quote(error))
