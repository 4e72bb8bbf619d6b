"""`onmodel sandbox` and `onmodel stop`: the rehearsal stage alone, and ending what runs in the background."""

from __future__ import annotations

import signal
import threading

from providers import wiring
from studio.telling import say


def run_sandbox(faults: str | None, *, tls: bool) -> int:
    """Keep the sandbox open until Ctrl-C or SIGTERM, and say how to reach it. Exit 0."""
    ports = wiring.open_ports()
    address = wiring.open_sandbox(ports.settings.home, faults=faults, tls=tls)
    say(f"The sandbox speaks fal's protocol at {address.url}; everything it makes is labelled as sandbox output.")
    if address.proxy_url is not None:
        say("Programs left as they are reach it under fal's own names with:")
        say(f"  export HTTPS_PROXY={address.proxy_url} SSL_CERT_FILE={address.ca_path} FAL_KEY=sandbox")
    say("Ctrl-C stops it; its jobs and files stay.")
    is_over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_over.set())
    try:
        is_over.wait()
    finally:
        wiring.close_sandbox(ports.settings.home)
    return 0


def stop_everything() -> int:
    """Stop the built-in database and the sandbox of this home. No error when they are not running."""
    ports = wiring.open_ports()
    was_sandbox = wiring.close_sandbox(ports.settings.home)
    was_database = ports.settings.database_url is None and wiring.close_embedded_server(ports.settings.home)
    if was_sandbox:
        say("The sandbox is stopped.")
    if was_database:
        say("The built-in database is stopped; its data stays.")
    if not was_sandbox and not was_database:
        say("Nothing was running.")
    return 0
