"""Which nodes may come: tokens and certificates, in one file beside the CA. Blocks on the disk: call it from a thread.

`gridpivot-agent node-token` and `node` write it from processes of their own while the agent reads it, so that every
change is made under a lock, whole, fsynced, and seen by the agent at its next look. Times: milliseconds since the epoch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.durable import replace_file
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link.peer import Certified
from gridpivot.link.token import secret_sha256
from gridpivot.vocabulary import GoawayCode

FILE = "registry.json"
KEPT_TOKENS = 1000
KEPT_CERTIFICATES = 20  # of one node


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenRow(_Row):
    """A token without its secret."""

    token_id: str
    node: str
    secret_sha256: str
    created_at_unix_ms: int
    expires_at_unix_ms: int
    used_at_unix_ms: int | None = None
    used_from: str | None = None


class CertificateRow(_Row):
    """A certificate that was issued."""

    serial: str
    node: str
    issued_at_unix_ms: int
    not_after_unix_ms: int
    revoked_at_unix_ms: int | None = None


class Book(_Row):
    """The whole file."""

    format: Literal[1] = 1
    tokens: tuple[TokenRow, ...] = ()
    certificates: tuple[CertificateRow, ...] = ()

    def refusal(self, peer: Certified, now_unix_ms: int) -> GoawayCode | None:
        """Why a certificate may not speak; one that is not on record may not."""
        row = next((row for row in self.certificates if row.serial == peer.serial), None)
        if row is None or row.revoked_at_unix_ms is not None:
            return GoawayCode.REVOKED
        return GoawayCode.EXPIRED if now_unix_ms >= peer.not_after_unix_ms else None

    def newest(self, node: str) -> CertificateRow | None:
        """A node's last certificate."""
        mine = [row for row in self.certificates if row.node == node]
        return max(mine, key=lambda row: row.issued_at_unix_ms, default=None)


class Registry:
    """The file in `state_dir/nodes`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def read(self) -> Book:
        """What stands there; raises GridpivotError for a file that cannot be read, since nobody may come then."""
        try:
            return Book.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return Book()
        except (OSError, ValidationError) as error:
            why = getattr(error, "strerror", None) or "damaged"
            raise GridpivotError(
                f"{self.path}: {why}; put it back from a backup, or move it away and enrol nodes anew"
            ) from None

    def mark(self) -> tuple[int, int]:
        """Changes when the file does."""
        with contextlib.suppress(OSError):
            found = self.path.stat()
            return found.st_mtime_ns, found.st_ino
        return 0, 0

    def add_token(self, node: str, now_unix_ms: int, valid_s: float) -> tuple[TokenRow, bytes]:
        """A new token: its record, and the secret that is kept nowhere."""
        secret = secrets.token_bytes(32)
        row = TokenRow(
            token_id=secrets.token_hex(6),
            node=node,
            secret_sha256=secret_sha256(secret).hex(),
            created_at_unix_ms=now_unix_ms,
            expires_at_unix_ms=now_unix_ms + round(valid_s * 1000),
        )
        with self._changing() as (book, write):
            write(book.model_copy(update={"tokens": (*book.tokens, row)[-KEPT_TOKENS:]}))
        return row, secret

    def use_token(
        self, token_id: str, secret: bytes, origin: str, now_unix_ms: int, issue: Callable[[str], CertificateRow]
    ) -> CertificateRow:
        """Trade a token for the certificate that `issue` makes for its node; raises Refused, and then it stays unused."""
        given = secret_sha256(secret).hex()
        with self._changing() as (book, write):
            found = next((row for row in book.tokens if row.token_id == token_id), None)
            if found is None or not hmac.compare_digest(found.secret_sha256, given):
                raise Refused("this site's agent does not know the token; ask for another")
            if found.used_at_unix_ms is not None:
                raise Refused("the token was used already; ask for another")
            if now_unix_ms >= found.expires_at_unix_ms:
                raise Refused("the token has expired; ask for another")
            row = issue(found.node)
            used = found.model_copy(update={"used_at_unix_ms": now_unix_ms, "used_from": origin[:128]})
            tokens = tuple(used if one is found else one for one in book.tokens)
            write(book.model_copy(update={"tokens": tokens, "certificates": _with(book, row)}))
        return row

    def add_certificate(self, row: CertificateRow, instead_of: str) -> None:
        """The successor of a live certificate; raises Refused when that one was revoked meanwhile."""
        with self._changing() as (book, write):
            before = next((one for one in book.certificates if one.serial == instead_of), None)
            if before is None or before.revoked_at_unix_ms is not None:
                raise Refused("this certificate was revoked; enrol with a token")
            write(book.model_copy(update={"certificates": _with(book, row)}))

    def revoke(self, node: str, now_unix_ms: int) -> int:
        """End every certificate and unused token of a node; how many certificates. Raises Refused for an unknown node."""
        with self._changing() as (book, write):
            mine = [row for row in book.certificates if row.node == node and row.revoked_at_unix_ms is None]
            tokens = [row for row in book.tokens if row.node == node and row.used_at_unix_ms is None]
            if not mine and not tokens:
                raise Refused(
                    f"node {node!r} has no certificate and no unused token here; see gridpivot-agent node list"
                )
            ended = {row.serial for row in mine}
            certificates = tuple(
                row.model_copy(update={"revoked_at_unix_ms": now_unix_ms}) if row.serial in ended else row
                for row in book.certificates
            )
            left = tuple(row for row in book.tokens if row not in tokens)
            write(book.model_copy(update={"certificates": certificates, "tokens": left}))
        return len(mine)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Book, Callable[[Book], None]]]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.path.parent / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self.read(), lambda book: replace_file(self.path, book.model_dump_json(indent=1).encode())
        except OSError as error:
            raise GridpivotError(f"{self.path}: {error.strerror}; free space, correct its owner") from error


def _with(book: Book, row: CertificateRow) -> tuple[CertificateRow, ...]:
    """Certificates with one more. A revoked one may be forgotten: what is not on record may not speak."""
    mine = [one for one in book.certificates if one.node == row.node][-(KEPT_CERTIFICATES - 1) :]
    return (*(one for one in book.certificates if one.node != row.node), *mine, row)


def load_json(path: Path) -> object:
    """A JSON file that may be missing or damaged: None then."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
