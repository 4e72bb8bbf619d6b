"""Files that a reader finds whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become `path` when the block ends well, in place of what was there; else nothing is left.

    The folder must exist. Everybody may read the file (mode 0644).
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
