"""RunPod's own package, the serverless part of it, with its way out replaced by our HTTP client.

The package (1.12.0) speaks through `requests`: with netrc and redirects, with five repeats on `http://` addresses only,
with a timeout of 10 s, and it drops the text of every refusal. So a call goes through its classes, and the request they
make is sent here, once, by the same client as everything else; what came back is read from that client's answer.
docs/decisions/0012-runpod-package.md says which parts are used and why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from domain.errors import NotConfigured

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

SERVERLESS_URL = "https://api.runpod.ai/v2"

Call = Callable[[Any], object]
"""What is asked of a `runpod.Endpoint`."""


class RunPodPackage:
    """Calls of `runpod.Endpoint` for one endpoint, each of them one request, sent once and never repeated.

    `http` must not follow redirects by itself and stays the caller's to close. The package is imported at the first
    call (1.4 s, measured 2026-11-20). Safe to share between threads.
    """

    def __init__(self, http: httpx.Client, secret: str, endpoint_id: str, base_url: str = SERVERLESS_URL) -> None:
        self._http = http
        self._secret = secret
        self._endpoint_id = endpoint_id
        self._base_url = base_url.rstrip("/")

    def __repr__(self) -> str:
        return "RunPodPackage(key=**********)"

    def ask(self, call: Call) -> httpx.Response:
        """The vendor's answer to the one request that `call` makes, whatever the package makes of it.

        Raises what httpx raises when no answer came; `NotConfigured` when the package sent nothing at all.
        """
        through = _Through(self._http)
        try:
            call(self._endpoint(through))
        except Exception as error:
            if not through.is_used:
                raise NotConfigured(
                    f"The package runpod made no request ({type(error).__name__}: {error}): install it again, and see "
                    "that ~/.runpod/config.toml, which it reads, is whole."
                ) from error
            if through.answer is None:
                raise
            # There was an answer; the package's opinion of it (RuntimeError, HTTPError, KeyError) says less than it.
        assert through.answer is not None, "the package neither sent a request nor raised"
        return through.answer

    def _endpoint(self, through: _Through) -> Any:
        runpod = _import_runpod()
        endpoint = runpod.Endpoint(self._endpoint_id, api_key=self._secret)
        client = endpoint.rp_client
        # Its base address was read from the environment at import; ours is an argument.
        client.endpoint_url_base = self._base_url
        session = client.rp_session
        session.trust_env = False  # a netrc file would replace the key
        session.adapters.clear()
        session.mount("https://", through)
        session.mount("http://", through)
        return endpoint


def cancel_job(endpoint: Any, job_id: str) -> object:
    """Asks for the end of a job, by the package's own job object."""
    from runpod.endpoint import Job

    return Job(endpoint.endpoint_id, job_id, endpoint.rp_client).cancel()


def _import_runpod() -> Any:
    """The package, without what its import does to others' loggers (it sets three of them to WARNING)."""
    loggers = [logging.getLogger(name) for name in ("urllib3", "paramiko", "uvicorn")]
    levels = [logger.level for logger in loggers]
    import runpod

    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    return runpod


class _Through:
    """A `requests` adapter that sends one request through our client and keeps the answer; a second is refused."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.is_used = False
        self.answer: httpx.Response | None = None

    def send(self, request: PreparedRequest, **_kwargs: object) -> Response:
        """As `requests.adapters.BaseAdapter.send`; timeouts, proxies and certificates are our client's."""
        from requests import Response

        if self.is_used:
            raise RuntimeError("RunPod's package tried to send a second request for one call.")
        self.is_used = True
        assert request.url is not None and request.method is not None
        body = request.body.encode() if isinstance(request.body, str) else request.body
        assert body is None or isinstance(body, bytes), "RunPod's package sends whole JSON texts"
        headers = {name: str(value) for name, value in request.headers.items() if name.lower() in SENT_HEADERS}
        self.answer = self._http.request(
            request.method, request.url, content=body, headers=headers, follow_redirects=False
        )
        answer = Response()
        answer.status_code = self.answer.status_code
        answer.url = request.url
        answer.request = request
        answer.encoding = "utf-8"
        answer._content = self.answer.content
        # Without its headers there is no Location, so nothing follows a redirect.
        return answer

    def close(self) -> None:
        """Nothing of ours is open."""


SENT_HEADERS = frozenset({"authorization", "content-type", "accept", "user-agent"})
"""What of the package's headers is sent: lengths and encodings are our client's business."""
