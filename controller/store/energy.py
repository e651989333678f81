"""Energy of sites: the newest totals of each ledger, written in the commit that holds the roll-up they came with.

Totals of a ledger only grow, so what arrives late or twice is recognised by being smaller and changes nothing. A site
has one ledger after the other (a lost disk begins a new one); its energy is their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store import schema
from gridpivot.errors import BadReport
from gridpivot.v1 import telemetry_pb2 as pb

HIGHEST_J = 2**63 - 1
Key = tuple[str, bytes]  # site, ledger id
_GROWING = ("import_j", "mining_j", "ai_j", "overhead_j", "unmetered_j", "counter_changes")


@dataclass(frozen=True, slots=True)
class SiteEnergy:
    """Energy [J]; `unattributed_j` may be negative, `unmetered_j` is an estimate and not in `import_j`."""

    import_j: int = 0
    mining_j: int = 0
    ai_j: int = 0
    overhead_j: int = 0
    unattributed_j: int = 0
    unmetered_j: int = 0
    counter_changes: int = 0

    def plus(self, other: SiteEnergy) -> SiteEnergy:
        """The sum of two ledgers."""
        return SiteEnergy(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(SiteEnergy)))

    def covers(self, other: SiteEnergy) -> bool:
        """Whether this is the same or a later state of the same ledger."""
        return all(getattr(self, name) >= getattr(other, name) for name in _GROWING)


def energy_of(totals: pb.EnergyTotals) -> SiteEnergy:
    """Checked totals of a roll-up; raises BadReport for what no ledger says."""
    energy = SiteEnergy(*(int(getattr(totals, f.name)) for f in fields(SiteEnergy)))
    if len(totals.ledger_id) != 16:
        raise BadReport(f"energy: ledger_id has {len(totals.ledger_id)} bytes, not 16")
    if max(abs(getattr(energy, f.name)) for f in fields(SiteEnergy)) > HIGHEST_J:
        raise BadReport("energy: a total past 2^63 - 1 J")
    parts_j = energy.mining_j + energy.ai_j + energy.overhead_j + energy.unattributed_j
    if parts_j != energy.import_j:
        raise BadReport(f"energy: its parts are {parts_j} J, its import {energy.import_j} J")
    return energy


class EnergyStore:
    """What is committed, by site and ledger. `note` collects, `write` belongs into a commit, `written` follows it."""

    def __init__(self, readers: AsyncEngine) -> None:
        self._readers = readers
        self._known: dict[Key, SiteEnergy] = {}

    async def load(self) -> None:
        """Take up what the database holds."""
        async with self._readers.connect() as connection:
            rows = (await connection.execute(select(schema.site_energy))).mappings().all()
        for row in rows:
            energy = SiteEnergy(*(row[f.name] for f in fields(SiteEnergy)))
            self._known[(row["site"], row["ledger_id"])] = energy

    def of_site(self, site: str) -> SiteEnergy | None:
        """Sum of a site's ledgers [J]; None when it never told any."""
        own = [energy for (name, _), energy in self._known.items() if name == site]
        total = SiteEnergy()
        for energy in own:
            total = total.plus(energy)
        return total if own else None

    @staticmethod
    def note(batch: dict[Key, tuple[SiteEnergy, int]], site: str, rollup: pb.SiteRollup) -> None:
        """Keep a roll-up's totals for the commit, if they are the newest of their ledger."""
        if not rollup.HasField("energy"):
            return
        energy, key = energy_of(rollup.energy), (site, bytes(rollup.energy.ledger_id))
        before = batch.get(key)
        if before is None or energy.covers(before[0]):
            batch[key] = energy, rollup.observed_at_unix_ms

    @staticmethod
    async def write(connection: AsyncConnection, batch: dict[Key, tuple[SiteEnergy, int]]) -> None:
        """Upsert; a row that is further stays as it is."""
        table = schema.site_energy
        rows: list[dict[str, Any]] = [
            {
                "site": site,
                "ledger_id": ledger_id,
                "first_at_unix_ms": at_unix_ms,
                "last_at_unix_ms": at_unix_ms,
                **{f.name: getattr(energy, f.name) for f in fields(SiteEnergy)},
            }
            for (site, ledger_id), (energy, at_unix_ms) in batch.items()
        ]
        if not rows:
            return
        statement = insert(table)
        fresh = statement.excluded
        changed = {name: fresh[name] for name in ("last_at_unix_ms", *(f.name for f in fields(SiteEnergy)))}
        further = and_(*(fresh[name] >= table.c[name] for name in _GROWING))
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["site", "ledger_id"], set_=changed, where=further), rows
        )

    def written(self, batch: dict[Key, tuple[SiteEnergy, int]]) -> None:
        """After the commit: what can be told."""
        for key, (energy, _) in batch.items():
            before = self._known.get(key)
            if before is None or energy.covers(before):
                self._known[key] = energy
