"""Tokens, certificates, recoveries and operators in the store. Times are milliseconds since the Unix epoch (UTC).

A token is used up in the same transaction that records the certificate it was traded for: it is good once, whoever
asks at the same moment. `gridpivot-controller` writes here from a process of its own, so nothing is held in memory
longer than a look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store import schema
from controller.store.writer import Writer
from gridpivot.errors import Refused

MOST_PENDING = 5  # recoveries of one site that wait for an operator


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An enrolment token without its secret."""

    token_id: str
    site: str
    created_at_unix_ms: int
    expires_at_unix_ms: int
    used_at_unix_ms: int | None
    used_from: str | None
    revoked_at_unix_ms: int | None

    def state(self, now_unix_ms: int) -> str:
        """unused, used, revoked or expired."""
        if self.used_at_unix_ms is not None:
            return "used"
        if self.revoked_at_unix_ms is not None:
            return "revoked"
        return "expired" if now_unix_ms >= self.expires_at_unix_ms else "unused"


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate that was issued. `kind` is site or operator."""

    serial: str
    kind: str
    name: str
    issued_at_unix_ms: int
    not_after_unix_ms: int
    certificate_der: bytes = field(repr=False)
    revoked_at_unix_ms: int | None = None

    def state(self, now_unix_ms: int) -> str:
        """valid, expired or revoked."""
        if self.revoked_at_unix_ms is not None:
            return "revoked"
        return "expired" if now_unix_ms >= self.not_after_unix_ms else "valid"


@dataclass(frozen=True, slots=True)
class RecoveryRow:
    """A site with an expired certificate that asks to come back."""

    site: str
    fingerprint: str
    csr_der: bytes = field(repr=False)
    asked_at_unix_ms: int
    origin: str
    state: str
    decided_at_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """A person or a program that may call the API."""

    name: str
    role: str
    token_sha256: bytes | None = field(repr=False)
    created_at_unix_ms: int
    revoked_at_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What has to be known at every handshake and call, as of one look at the store."""

    revoked_serials: frozenset[str] = frozenset()
    valid_serials: frozenset[str] = frozenset()
    revoked_sites: Mapping[str, int] = field(default_factory=dict)  # to the newest revocation [ms]
    operators: Mapping[str, OperatorRow] = field(default_factory=dict)
    site_ends: Mapping[str, int] = field(default_factory=dict)  # of the newest one that is not revoked [ms]


class Identities:
    """Reads on connections of their own, writes through the one writer."""

    def __init__(self, writer: Writer, readers: AsyncEngine) -> None:
        self._writer, self._readers = writer, readers

    # ---- tokens ---------------------------------------------------------------------------------------------------

    async def add_token(self, row: TokenRow, secret_sha256: bytes) -> None:
        """A fresh token."""
        values = {
            "token_id": row.token_id,
            "site": row.site,
            "secret_sha256": secret_sha256,
            "created_at_unix_ms": row.created_at_unix_ms,
            "expires_at_unix_ms": row.expires_at_unix_ms,
        }
        await self._write(lambda c: c.execute(insert(schema.agent_tokens), [values]))

    async def tokens(self) -> list[TokenRow]:
        """All of them, oldest first."""
        t = schema.agent_tokens.c
        columns = (
            t.token_id,
            t.site,
            t.created_at_unix_ms,
            t.expires_at_unix_ms,
            t.used_at_unix_ms,
            t.used_from,
            t.revoked_at_unix_ms,
        )
        async with self._readers.connect() as connection:
            rows = (await connection.execute(select(*columns).order_by(t.created_at_unix_ms))).all()
        return [TokenRow(*row) for row in rows]

    async def revoke_token(self, token_id: str, now_unix_ms: int) -> None:
        """An unused token is good no more; raises Refused when there is none of that identity."""
        table = schema.agent_tokens

        async def change(connection: AsyncConnection) -> None:
            done = await connection.execute(
                update(table)
                .where(table.c.token_id == token_id, table.c.used_at_unix_ms.is_(None))
                .values(revoked_at_unix_ms=now_unix_ms)
            )
            if not done.rowcount:
                raise Refused(f"token {token_id}: there is no unused token of that identity; see agent-token list")

        await self._writer.submit(change, hurry=True)

    async def use_token(
        self,
        token_id: str,
        secret_sha256: bytes,
        origin: str,
        now_unix_ms: int,
        issue: Callable[[str], CertificateRow],
    ) -> CertificateRow:
        """Trade a token for what `issue(site)` makes; raises Refused when it is unknown, used, revoked or expired."""
        table = schema.agent_tokens

        async def change(connection: AsyncConnection) -> CertificateRow:
            wanted = (table.c.token_id == token_id, table.c.secret_sha256 == secret_sha256)
            row = (await connection.execute(select(table).where(*wanted))).one_or_none()
            if row is None:
                raise Refused("this token is not known here; create one with gridpivot-controller agent-token create")
            if row.used_at_unix_ms is not None:
                raise Refused(
                    f"this token was used already, from {row.used_from}; if that was not you, run "
                    f"gridpivot identity revoke {row.site}; otherwise create another token"
                )
            if row.revoked_at_unix_ms is not None:
                raise Refused("this token was revoked; create another")
            if now_unix_ms >= row.expires_at_unix_ms:
                raise Refused("this token has expired; create another")
            await connection.execute(
                update(table).where(*wanted).values(used_at_unix_ms=now_unix_ms, used_from=origin[:128])
            )
            certificate = issue(row.site)
            await _put_certificate(connection, certificate)
            return certificate

        return await self._writer.submit(change, hurry=True)

    # ---- certificates ---------------------------------------------------------------------------------------------

    async def add_certificate(self, row: CertificateRow) -> None:
        """A certificate that was issued; durable before it leaves."""
        await self._write(lambda c: _put_certificate(c, row))

    async def certificates(self, kind: str = "site") -> list[CertificateRow]:
        """The newest certificate of every name, by name."""
        table = schema.certificates
        rank = func.row_number().over(partition_by=table.c.name, order_by=table.c.issued_at_unix_ms.desc())
        ranked = select(table, rank.label("rank")).where(table.c.kind == kind).subquery()
        async with self._readers.connect() as connection:
            rows = (await connection.execute(select(ranked).where(ranked.c.rank == 1).order_by(ranked.c.name))).all()
        return [_certificate(row) for row in rows]

    async def revoke(self, kind: str, name: str, now_unix_ms: int) -> int:
        """Every certificate of a name, and a site's unused tokens; returns how many.

        A mark is left also where none is on record, so that certificates made elsewhere under our CA end too.
        """
        certificates, tokens, operators = schema.certificates, schema.agent_tokens, schema.operators

        async def change(connection: AsyncConnection) -> int:
            mine = (
                certificates.c.kind == kind,
                certificates.c.name == name,
                certificates.c.revoked_at_unix_ms.is_(None),
            )
            count = (
                await connection.execute(update(certificates).where(*mine).values(revoked_at_unix_ms=now_unix_ms))
            ).rowcount
            if kind == "site":
                unused = (
                    tokens.c.site == name,
                    tokens.c.used_at_unix_ms.is_(None),
                    tokens.c.revoked_at_unix_ms.is_(None),
                )
                count += (
                    await connection.execute(update(tokens).where(*unused).values(revoked_at_unix_ms=now_unix_ms))
                ).rowcount
                mark = CertificateRow(
                    f"mark-{name}-{now_unix_ms}", kind, name, now_unix_ms, now_unix_ms, b"", now_unix_ms
                )
                await _put_certificate(connection, mark)
            else:
                standing = (operators.c.name == name, operators.c.revoked_at_unix_ms.is_(None))
                count += (
                    await connection.execute(update(operators).where(*standing).values(revoked_at_unix_ms=now_unix_ms))
                ).rowcount
            return count

        return await self._writer.submit(change, hurry=True)

    async def standing(self, now_unix_ms: int) -> Standing:
        """One look at everything that decides who may speak."""
        table = schema.certificates
        columns = table.c.serial, table.c.kind, table.c.name, table.c.revoked_at_unix_ms, table.c.not_after_unix_ms
        query = select(*columns).where(
            (table.c.not_after_unix_ms > now_unix_ms - 30 * 86_400_000) | table.c.revoked_at_unix_ms.is_not(None)
        )
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query)).all()
            operators = (await connection.execute(select(schema.operators))).all()
        revoked_sites: dict[str, int] = {}
        ends: dict[str, int] = {}
        for row in rows:
            if row.kind == "site" and row.revoked_at_unix_ms is None:
                ends[row.name] = max(ends.get(row.name, 0), row.not_after_unix_ms)
            if row.kind == "site" and row.revoked_at_unix_ms is not None:
                revoked_sites[row.name] = max(revoked_sites.get(row.name, 0), row.revoked_at_unix_ms)
        return Standing(
            frozenset(row.serial for row in rows if row.revoked_at_unix_ms is not None),
            frozenset(row.serial for row in rows if row.revoked_at_unix_ms is None),
            revoked_sites,
            {row.name: OperatorRow(*row) for row in operators},
            ends,
        )

    # ---- recoveries -----------------------------------------------------------------------------------------------

    async def ask_recovery(self, row: RecoveryRow) -> RecoveryRow:
        """The request as it stands: a new one waits, one asked before keeps its state. Raises Refused for too many."""
        table = schema.recoveries

        async def change(connection: AsyncConnection) -> RecoveryRow:
            same = (table.c.site == row.site, table.c.fingerprint == row.fingerprint)
            known = (await connection.execute(select(table).where(*same))).one_or_none()
            if known is not None:
                return RecoveryRow(*known)
            pending = select(func.count()).where(table.c.site == row.site, table.c.state == "pending")
            if (await connection.execute(pending)).scalar_one() >= MOST_PENDING:
                raise Refused(
                    f"{MOST_PENDING} requests of {row.site} wait already; an operator has to decide them first"
                )
            values = {c.name: getattr(row, c.name) for c in table.columns}
            await connection.execute(insert(table), [values])
            return row

        return await self._writer.submit(change, hurry=True)

    async def recoveries(self) -> list[RecoveryRow]:
        """Those that wait, oldest first."""
        table = schema.recoveries
        query = select(table).where(table.c.state == "pending").order_by(table.c.asked_at_unix_ms)
        async with self._readers.connect() as connection:
            return [RecoveryRow(*row) for row in (await connection.execute(query)).all()]

    async def decide_recovery(self, site: str, fingerprint: str, *, approve: bool, now_unix_ms: int) -> str:
        """approved or refused; raises Refused unless exactly one waiting request begins with `fingerprint`."""
        table = schema.recoveries
        if len(fingerprint) < 16:
            raise Refused("give at least the first 16 digits of the fingerprint that the agent shows")
        state = "approved" if approve else "refused"

        async def change(connection: AsyncConnection) -> str:
            mine = (
                table.c.site == site,
                table.c.state == "pending",
                table.c.fingerprint.startswith(fingerprint.lower(), autoescape=True),
            )
            done = await connection.execute(
                update(table).where(*mine).values(state=state, decided_at_unix_ms=now_unix_ms)
            )
            if done.rowcount != 1:
                raise Refused(
                    f"no waiting request of {site} has the fingerprint {fingerprint[:64]}; see gridpivot identity list"
                )
            return state

        return await self._writer.submit(change, hurry=True)

    async def close_recovery(self, row: RecoveryRow, certificate: CertificateRow) -> None:
        """The certificate of an approved request, recorded; the request goes."""
        table = schema.recoveries

        async def change(connection: AsyncConnection) -> None:
            await _put_certificate(connection, certificate)
            await connection.execute(
                table.delete().where(table.c.site == row.site, table.c.fingerprint == row.fingerprint)
            )

        await self._writer.submit(change, hurry=True)

    # ---- operators ------------------------------------------------------------------------------------------------

    async def add_operator(self, row: OperatorRow) -> None:
        """A new operator; raises Refused when the name is taken by one who is not revoked."""
        table = schema.operators

        async def change(connection: AsyncConnection) -> None:
            known = (await connection.execute(select(table).where(table.c.name == row.name))).one_or_none()
            if known is not None and known.revoked_at_unix_ms is None:
                raise Refused(f"operator {row.name!r} exists; revoke first, or take another name")
            await connection.execute(table.delete().where(table.c.name == row.name))
            await connection.execute(insert(table), [{c.name: getattr(row, c.name) for c in table.columns}])

        await self._writer.submit(change, hurry=True)

    async def _write(self, change: Callable[[AsyncConnection], Any]) -> None:
        await self._writer.submit(change, hurry=True)


async def _put_certificate(connection: AsyncConnection, row: CertificateRow) -> None:
    await connection.execute(
        insert(schema.certificates),
        [{c.name: getattr(row, c.name) for c in schema.certificates.columns}],
    )


def _certificate(row: Any) -> CertificateRow:
    return CertificateRow(
        row.serial,
        row.kind,
        row.name,
        row.issued_at_unix_ms,
        row.not_after_unix_ms,
        row.certificate_der,
        row.revoked_at_unix_ms,
    )
