"""The way to the sandbox for httpx clients: vendors' real host names, answered on loopback, past any proxy."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from domain.errors import NotConfigured
from providers.sandbox.wire import FAL_HOSTS


class SandboxTransport(httpx.BaseTransport):
    """Sends requests for a vendor's hosts to `base_url` (`http://127.0.0.1:PORT`) with their Host kept.

    The server ends itself when idle: `reopen` is asked for its new address when nothing answers at the old one, which
    is safe for paid requests too, because nothing was sent. Any other host is refused with `NotConfigured`.
    """

    def __init__(
        self, base_url: str, reopen: Callable[[], str] | None = None, *, hosts: frozenset[str] = FAL_HOSTS
    ) -> None:
        self.base_url = httpx.URL(base_url)
        self._hosts = hosts
        self._reopen = reopen
        self._inner = httpx.HTTPTransport(trust_env=False, verify=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host not in self._hosts:
            raise NotConfigured(
                f"This part of the sandbox plays {', '.join(sorted(self._hosts))} and was asked for "
                f"{request.url.host!r}: use files of that vendor, or a vendor other than the sandbox."
            )
        base = self.base_url
        try:
            return self._inner.handle_request(self._redirected(request, base))
        except httpx.ConnectError:
            if self._reopen is None:
                raise
        if self.base_url == base:
            self.base_url = httpx.URL(self._reopen())
        return self._inner.handle_request(self._redirected(request, self.base_url))

    @staticmethod
    def _redirected(request: httpx.Request, base: httpx.URL) -> httpx.Request:
        headers = request.headers.copy()
        headers["Host"] = request.url.host
        url = request.url.copy_with(scheme=base.scheme, host=base.host, port=base.port)
        extensions = {name: value for name, value in request.extensions.items() if name != "sni_hostname"}
        return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)

    def close(self) -> None:
        self._inner.close()
