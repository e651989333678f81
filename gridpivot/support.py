"""A support bundle: what a person far away needs to understand a machine, as one tar.gz without secrets.

Both services collect through this: a part that cannot be had becomes a line that says why. Every part passes the
redactor, and the finished bundle is searched once more for the secrets that are known.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gridpivot import __version__
from gridpivot.errors import GridpivotError, Refused
from gridpivot.redaction import LEAST_VALUE, Redactor

LOG_LINES = 2000
DEADLINE_S = 10.0
MOST_PART_BYTES = 16 * 1024 * 1024
PACKAGES = (
    "grpcio",
    "protobuf",
    "numpy",
    "pydantic",
    "cryptography",
    "pymodbus",
    "nvidia-ml-py",
    "SQLAlchemy",
    "highspy",
)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bundle."""

    name: str
    content: bytes


class Bundle:
    """Collects redacted parts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = {s.strip() for s in secrets if len(s.strip()) >= LEAST_VALUE}
        self.redactor = Redactor(self._secrets)
        self.parts: list[Part] = []
        self.left_out: dict[str, str] = {}

    def text(self, name: str, make: Callable[[], str]) -> None:
        """A part of text; what `make` raises is a line in place of it."""
        self._add(name, lambda: self.redactor.text(make()))

    def tree(self, name: str, make: Callable[[], Any]) -> None:
        """A part of JSON, made from plain values."""
        self._add(name, lambda: json.dumps(self.redactor.tree(make()), indent=1, ensure_ascii=False) + "\n")

    def _add(self, name: str, make: Callable[[], str]) -> None:
        try:
            content = make()
        except Exception as error:  # a bundle is made when things are broken: one broken part must not cost the rest
            why = self.redactor.text(" ".join(f"{type(error).__name__}: {error}".split()))
            self.left_out[name] = why
            return
        self.parts.append(Part(name, content.encode()[:MOST_PART_BYTES]))

    def write(self, path: Path) -> list[str]:
        """Write the bundle (mode 0600) and give the names in it; raises Refused when the file is there already."""
        self.tree("left_out.json", lambda: self.left_out)
        for part in self.parts:
            found = next((s for s in self._secrets if s.encode() in part.content), None)
            if found is not None:
                raise GridpivotError(f"{part.name} still held a secret; no bundle was written: report this")
        root = path.name.removesuffix(".tar.gz")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for part in self.parts:
                info = tarfile.TarInfo(f"{root}/{part.name}")
                info.size, info.mode = len(part.content), 0o600
                tar.addfile(info, io.BytesIO(part.content))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise Refused(f"{path}: is there already; give another name with --output") from None
        except OSError as error:
            raise GridpivotError(f"{path}: {error.strerror}; give another place with --output") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(gzip.compress(data.getvalue()))
        return [part.name for part in self.parts]


def finish(bundle: Bundle, output: Path | None, name: str) -> str:
    """Write a bundle under `output`, or here under a name with the time; what to tell the one who asked for it."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    target = output or Path(f"{name}-{stamp}.tar.gz")
    names = bundle.write(target)
    told = [f"{target}: {len(names)} parts"]
    told += [f"  without {part}: {why}" for part, why in bundle.left_out.items()]
    return "\n".join(
        [*told, "secrets are taken out; it names sites, addresses and machines: send it to people you trust"]
    )


def versions() -> dict[str, Any]:
    """The program, its libraries, the machine."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return {
        "gridpivot": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "packages": found,
    }


def environment(prefix: str) -> dict[str, str]:
    """Variables that change this service's settings."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefix)}


def journal(unit: str) -> str:
    """Last lines of a systemd unit; raises GridpivotError where there is no journal."""
    program = shutil.which("journalctl")
    if program is None:
        raise GridpivotError("no journalctl on this machine")
    words = [program, "--unit", unit, "--lines", str(LOG_LINES), "--no-pager", "--output", "short-iso"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False, errors="replace")
    if done.returncode != 0:
        raise GridpivotError(done.stderr.strip() or "journalctl failed")
    return done.stdout


def scrape(host: str, port: int) -> str:
    """A service's own /metrics, without its per-device series; raises OSError when it does not answer."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=DEADLINE_S) as answer:
        text = answer.read(MOST_PART_BYTES).decode(errors="replace")
    return "".join(line + "\n" for line in text.splitlines() if 'device="' not in line)
