"""Files that root writes into a service's directory belong to the service, or it could not read its own key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def give_to_owner(directory: Path, written: Iterable[Path]) -> None:
    """Give what root has written under `directory` to the directory's owner; does nothing for anybody else."""
    if os.geteuid() != 0 or not directory.is_dir():
        return
    owner = directory.stat()
    for top in written:
        for path in (top, *(top.rglob("*") if top.is_dir() and not top.is_symlink() else ())):
            if path.is_symlink() or path.exists():
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
