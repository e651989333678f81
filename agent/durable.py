"""Small files that must be whole and on the disk before something counts. Blocks on the disk: call it from a thread.

A damaged file is moved aside, never deleted: it may be all that tells what happened.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file whole, fsynced with its directory; raises OSError and then the old one stands.

    The neighbour that is written first has the same name each time, so that a full disk is not littered.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)  # its mode is given at creation
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def set_aside(path: Path) -> Path | None:
    """Move a damaged file out of the way; its new place, None when there is nothing to move or it cannot be."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError:
        return None
    return aside
