"""Compiles the stand-in libnvidia-ml.so.1. In: a directory. Out: the library in it, or None without a compiler.

A second call with unchanged source finds the first one's library, by the hash of source and flags beside it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}")
COMPILE_DEADLINE_S = 120.0  # ziglang compiles its own C library on its first run


def build(directory: Path) -> Path | None:
    """Path of the library in `directory`; None when neither cc nor ziglang can make it here."""
    directory.mkdir(parents=True, exist_ok=True)
    library, mark = directory / LIBRARY, directory / f"{LIBRARY}.sha256"
    wanted = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()
    if library.exists() and mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return library
    for compiler in _compilers():
        fresh = directory / f".{LIBRARY}.{os.getpid()}"
        if _compile(compiler, fresh):
            fresh.replace(library)  # whole or not at all: another process may be loading it
            mark.write_text(wanted, encoding="ascii")
            return library
        fresh.unlink(missing_ok=True)
    return None


def _compilers() -> list[list[str]]:
    """Command lines that may compile C here, the machine's own first."""
    found = [["cc"]] if shutil.which("cc") else []
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def _compile(compiler: list[str], target: Path) -> bool:
    command = [*compiler, *FLAGS, "-o", str(target), str(SOURCE), "-lm"]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=COMPILE_DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0
