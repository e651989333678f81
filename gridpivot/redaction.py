"""Taking secrets out of what leaves a machine: by name, by shape, and by value. Pure but for reading files of secrets.

By name: what stands under a key that is called a password, token, secret and so on. By shape: PEM blocks, enrolment
tokens, bearer headers, logins inside URLs, long random words. By value: every secret that this machine's own files and
environment hold, wherever it turns up. Rather too much is taken out than too little.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

GONE = "(redacted)"
LEAST_VALUE = 4  # shorter secrets would take half of every text with them
MOST_FILE_BYTES = 1024 * 1024
SECRET_SUFFIXES = (".key", ".token", ".password", ".secret", ".pem", ".p12")

_NAME = r"password|passwd|passphrase|pwd|secret|token|api[_-]?key|private[_-]?key|authorization|cookie"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_PLACE = re.compile(r"_(file|path|dir|id)$|_sha256$", re.IGNORECASE)  # says where a secret is, not what
_ASSIGNED = re.compile(
    rf"""(?P<key>["']?[\w.\-]*(?:{_NAME})[\w.\-]*["']?\s*[:=]\s*)"""
    r"""(?P<value>\"{3}.*?(?:\"{3}|\Z)|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;}\]]+)""",
    re.IGNORECASE | re.DOTALL,
)
_SCHEMES = ("bearer", "basic", "digest")
_SHAPES = (
    re.compile(r"(?i:(?<=authorization:)|(?<=authorization=))[^\n\"']+"),
    re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL),
    re.compile(r"\bgpt1\.[\w.\-=]+"),
    re.compile(r"\b(?i:bearer)\s+[\w.~+/=\-]{6,}"),
    re.compile(r"\b(?i:basic)\s+(?=[a-z\d+/=]*[A-Z])[\w+/]{6,}={0,2}"),
    re.compile(r"(?<=[?&]key=)[^&\s\"']+|(?<=[?&]appid=)[^&\s\"']+"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    # 256 random bits in base64 have letters of both cases; hexadecimal hashes and identities do not.
    re.compile(r"(?<![\w+/=\-])(?=[\w+/=\-]*[a-z])(?=[\w+/=\-]*[A-Z])[\w+/=\-]{32,}"),
)


def is_secret_name(name: str) -> bool:
    """Whether what stands under this key is a secret, not the place of one."""
    return bool(_SECRET_NAME.search(name)) and not _PLACE.search(name)


class Redactor:
    """Takes secrets out of texts and of trees of plain values."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        words: set[str] = set()
        for secret in secrets:
            forms = (secret, secret.strip(), json.dumps(secret.strip())[1:-1])  # as it is, and as JSON writes it
            words |= {form for form in forms if len(form) >= LEAST_VALUE}
        self._values = sorted(words, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Redactor({len(self._values)} values)"

    def text(self, text: str) -> str:
        """The same text without secrets."""
        for value in self._values:
            text = text.replace(value, GONE)
        for shape in _SHAPES:
            text = shape.sub(GONE, text)
        return _ASSIGNED.sub(_assigned, text)

    def tree(self, value: Any, name: str = "") -> Any:
        """The same tree (mappings, sequences, scalars) without secrets; what is not plain becomes its text."""
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.tree(v, str(k)) for k, v in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.tree(item, name) for item in value]
        if value is None or isinstance(value, bool):
            return value
        if is_secret_name(name):
            return GONE
        return value if isinstance(value, (int, float)) else self.text(str(value))


def _assigned(match: re.Match[str]) -> str:
    key, value = match["key"], match["value"]
    if not is_secret_name(_bare(key)) or value.strip("\"'") == GONE:
        return match[0]
    return f'{key}"{GONE}"' if value[0] in "\"'" else f"{key}{GONE}"


def _bare(key: str) -> str:
    return re.sub(r"""["'\s:=]""", "", key).rsplit(".", 1)[-1]


# ---- what this machine's own secrets are ----------------------------------------------------------------------------


def secrets_of_environ(environ: Mapping[str, str]) -> Iterator[str]:
    """Values of variables that are called a secret."""
    yield from (value for name, value in environ.items() if is_secret_name(name))


def secrets_of_file(path: Path) -> Iterator[str]:
    """Lines of a file that is a secret: a key, a token, a password. A file that cannot be read gives none."""
    for line in _read(path).splitlines():
        if not line.startswith(("-----", "#")):
            yield line


def secrets_of_toml(path: Path) -> Iterator[str]:
    """What is called a secret in a TOML file. One that cannot be parsed is searched line by line."""
    text = _read(path)
    try:
        yield from secrets_of_tree(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        for key, value in _assignments(text):
            if is_secret_name(key):
                yield value


def files_named_in(path: Path) -> Iterator[Path]:
    """Files that a TOML file names as holding secrets, even where it cannot be parsed."""
    for key, value in _assignments(_read(path)):
        if key.endswith("_file"):
            yield Path(value)


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for match in _ASSIGNED.finditer(text):
        value = match["value"].strip("\"'")
        if value.lower() not in _SCHEMES:
            yield _bare(match["key"]), value


def _read(path: Path) -> str:
    try:
        small = path.stat().st_size <= MOST_FILE_BYTES
        return path.read_text(encoding="utf-8", errors="ignore") if small else ""
    except OSError:
        return ""


def secrets_of_tree(tree: Any, name: str = "") -> Iterator[str]:
    """Strings of a tree that stand under a key which is called a secret."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from secrets_of_tree(value, str(key))
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from secrets_of_tree(value, name)
    elif isinstance(tree, str) and is_secret_name(name):
        yield tree


def secrets_below(directory: Path) -> Iterator[str]:
    """Secrets of every file below a directory whose name says that it holds one."""
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        if path.suffix in SECRET_SUFFIXES and path.is_file():
            yield from secrets_of_file(path)
