"""The temporary Prefect server of one run: a process beside the run that ends when the run does, however that ends.

Prefect can start such a server by itself, but a run killed with SIGKILL would leave it behind for ever (measured with
3.8.8: the uvicorn process lives on under process 1), and Ctrl-C on a terminal would end it before the run could say a
last word. This one holds the reading end of a pipe from the run and leaves when the pipe closes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from domain.errors import NotConfigured

START_SECONDS = 120
LAST_SECONDS = 8.0
POLL_SECONDS = 0.05
LARGEST_LOG_BYTES = 2_000_000
_FLAGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""What Prefect's own temporary server is started with (prefect/server/api/server.py, 3.8.8)."""


class TemporaryServer:
    """A server being started; its address is known at once, and `wait_until_ready` says when it answers.

    It ends with this process, however that ends.
    """

    def __init__(self, home: Path) -> None:
        self._log = _open_log(home)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studio.temporary_server"],
                env={**os.environ, **_FLAGS, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        self.api_url = f"http://127.0.0.1:{self._read_line()}/api"

    def wait_until_ready(self) -> None:
        """Return when it answers. `NotConfigured` when it does not come up."""
        self._read_line()

    def _read_line(self) -> str:
        """What the server says next: its port, then that it is ready."""
        assert self._process.stdout is not None
        late = threading.Timer(START_SECONDS, self._process.kill)
        late.daemon = True
        late.start()
        line = self._process.stdout.readline().decode().strip()
        late.cancel()
        if not line:
            self.stop()
            raise NotConfigured(
                f"Prefect's temporary server did not come up: its last words are in {self._log}. "
                "Run this again, or set PREFECT_API_URL to a server of your own."
            )
        return line

    def stop(self) -> None:
        """Let it finish what it was told, and end. Safe to repeat."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _open_log(home: Path) -> Path:
    log = home / "logs" / "run-prefect.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        os.truncate(log, 0)
    return log


def main() -> None:
    """The server process: says its port on stdout, then that it answers, and ends when stdin does."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    os.write(1, f"{place.getsockname()[1]}\n".encode())

    import uvicorn

    app = "prefect.server.api.server:create_app"
    server = uvicorn.Server(uvicorn.Config(app, factory=True, log_level="error", lifespan="on"))

    def watch() -> None:
        while not server.started:
            time.sleep(POLL_SECONDS)
        os.write(1, b"ready\n")

    def leave_with_parent() -> None:
        while os.read(0, 1024):
            pass
        server.should_exit = True
        time.sleep(LAST_SECONDS)
        os._exit(0)

    for work in (watch, leave_with_parent):
        threading.Thread(target=work, daemon=True).start()
    server.run(sockets=[place])


if __name__ == "__main__":
    main()
