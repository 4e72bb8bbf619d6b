"""Takes the package registry's addresses out of uv.lock: names, versions and hashes stay, the places go.

    python .ci/neutral_lock.py uv.lock

Whoever installs uses the registry of their own machine (docs/decisions/0004). Safe to repeat: a lock that is
neutral already stays as it is, byte for byte.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_REGISTRY = re.compile(r'source = \{ registry = "[a-z]+://[^"]*" \}')
_FILE = re.compile(r'\{ url = "[a-z]+://[^"]*/([^"/]+)", hash')


def neutralise(lock_text: str) -> str:
    """The same lock with `registry` for every registry's address and bare file names for every download's."""
    without_registry = _REGISTRY.sub('source = { registry = "registry" }', lock_text)
    return _FILE.sub(r'{ path = "\1", hash', without_registry)


def main() -> int:
    """Rewrite the named lock in place; 1 when an address is left that this file does not know how to remove."""
    lock = Path(sys.argv[1])
    text = neutralise(lock.read_text(encoding="utf-8"))
    lock.write_text(text, encoding="utf-8")
    if "://" in text:
        line = next(number for number, line in enumerate(text.splitlines(), 1) if "://" in line)
        sys.stderr.write(f"{lock} line {line} still holds an address; teach .ci/neutral_lock.py its form.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
