"""Where results go: a folder that can be written, found out before anything is rendered."""

from __future__ import annotations

import os
from pathlib import Path

from domain.errors import BadInput


def usable_folder(folder: Path) -> Path:
    """The folder itself, which need not exist yet. `BadInput` when a file is in its way or it may not be written."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise BadInput(f"The results cannot go to {folder}: {place} may not be written to. Give another --out.")
            return folder
        if place.exists() or place.is_symlink():
            raise BadInput(f"The results cannot go to {folder}: {place} is no folder. Give another with --out.")
    return folder
