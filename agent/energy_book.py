"""The energy ledger of a running site: fed by the governor's beat, kept on the disk, told only once it is there.

`told` are the totals that were last made durable. Roll-ups and metrics carry these and no newer ones, so that nothing
that was ever told goes back after a crash: the next reading of the counter covers what the file did not hold. A file
that cannot be read is set aside and a ledger with a new identity begins.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.backends import MeterSample
from agent.durable import replace_file, set_aside
from agent.energy import (
    HIGHEST_J,
    Change,
    Counter,
    CounterChange,
    Doubt,
    Ledger,
    Parts,
    Standing,
    Totals,
    accrue,
    rebase,
    resume,
    take,
)
from gridpivot.clock import Instant
from gridpivot.v1 import telemetry_pb2 as pb

FORMAT = 1
# After a reboot the wall clock may be wrong: a gap is taken to be at least the one and at most the other.
UNKNOWN_GAP_S, CREDIBLE_GAP_S = 3600.0, 30 * 86_400.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SAID = {
    CounterChange.ROLLED_OVER: "the meter's counter rolled over",
    CounterChange.RESET: "the meter's counter began again at zero",
    CounterChange.EXCHANGED: "the meter's counter jumped beyond what the site can draw: taken as another meter",
    CounterChange.AMBIGUOUS: "the meter's counter may have rolled over more than once while it could not be read",
    CounterChange.RUNAWAY: "the meter's counter runs ahead of what the site can draw; check energy_unit_j and energy_address",
}

Told = Callable[[str, dict[str, float]], None]  # a sentence and its figures


def boot_id() -> str:
    """Which boot of this machine it is; empty where the system does not tell."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class EnergyBook:
    """One site's ledger. `save` blocks on the disk; everything else is for the event loop's thread."""

    def __init__(self, path: Path, counter: Counter, now: Instant, boot: Callable[[], str] = boot_id) -> None:
        """Take up what the file holds; a file of another meter's register is gone on with from a new base."""
        self._path, self._counter, self._boot = path, counter, boot()
        self.ledger_id = os.urandom(16)
        self.ledger = Ledger()
        self.trouble: str | None = None  # why the file is not written, or could not be read
        self.told: Totals | None = None
        self._unsaid: list[tuple[str, dict[str, float]]] = []
        self._watts = (0.0, 0.0, 0.0)
        self._at_s: float | None = None
        self._load(now)

    def tick(self, sample: MeterSample | None, watts: tuple[float, float, float], now: Instant, say: Told) -> None:
        """One beat: powers of mining, AI and overhead [W] that hold from now on, and the meter's newest sample."""
        for sentence, figures in self._unsaid:
            say(sentence, figures)
        self._unsaid.clear()
        if self._at_s is not None:
            self.ledger = accrue(self.ledger, *self._watts, now.monotonic_s - self._at_s)
        self._watts, self._at_s = watts, now.monotonic_s
        if sample is None or sample.import_energy_j is None:
            return
        self.ledger, change = take(self.ledger, sample.import_energy_j, sample.read_at_s, self._counter)
        if change is not None:
            say(*_sentence(change))

    @property
    def counts(self) -> bool:
        """Whether a meter has ever counted here."""
        return self.ledger.base is not None or self.ledger.totals != Totals()

    def message(self) -> pb.EnergyTotals | None:
        """The durable totals for a roll-up; None before there are any, and past what 64 bits hold."""
        if self.told is None or not self.counts:
            return None
        figures = asdict(self.told)
        if max(map(abs, figures.values())) > HIGHEST_J or self.told.counter_changes >= 2**32:
            return None
        return pb.EnergyTotals(ledger_id=self.ledger_id, **figures)

    # ---- the file ---------------------------------------------------------------------------------------------

    def content(self, now: Instant) -> tuple[bytes, Totals]:
        """What the file should hold, and the totals in it."""
        ledger = self.ledger
        body = {
            "format": FORMAT,
            "ledger_id": self.ledger_id.hex(),
            "register": self._counter.register,
            "boot_id": self._boot,
            "monotonic_s": now.monotonic_s,
            "unix_s": now.unix_s,
            "watts": list(self._watts),
            "ledger": asdict(ledger),
        }
        text = json.dumps(body)
        return f"{zlib.crc32(text.encode()):08x} {text}\n".encode(), ledger.totals

    def keep(self, content: bytes, totals: Totals) -> None:
        """Write what `content` gave; from then on it may be told. A disk that refuses leaves `trouble`. Blocks."""
        try:
            replace_file(self._path, content)
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror or error}"
            return
        self.told, self.trouble = totals, None

    def save(self, now: Instant) -> None:
        """Both at once, for the end of a run. Blocks."""
        self.keep(*self.content(now))

    def _load(self, now: Instant) -> None:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror or error}"
            return
        try:
            self._restore(text, now)
        except (ValueError, KeyError, TypeError):
            aside = set_aside(self._path)
            where = f"; it is kept as {aside.name}" if aside is not None else ""
            self._unsaid.append((f"{self._path.name} was damaged, a new energy ledger begins{where}", {}))

    def _restore(self, content: bytes, now: Instant) -> None:
        checksum, _, text = content.decode().rstrip("\n").partition(" ")
        body = json.loads(text)
        if int(checksum, 16) != zlib.crc32(text.encode()) or body["format"] != FORMAT:
            raise ValueError("checksum or format")
        ledger, ledger_id = _ledger(body["ledger"]), bytes.fromhex(body["ledger_id"])
        if len(ledger_id) != 16:
            raise ValueError("identity")
        same_boot = bool(self._boot) and body["boot_id"] == self._boot and now.monotonic_s >= body["monotonic_s"]
        if same_boot:
            shift_s, gap_s = 0.0, now.monotonic_s - body["monotonic_s"]
        else:
            gap_s = min(max(now.unix_s - body["unix_s"], UNKNOWN_GAP_S), CREDIBLE_GAP_S)
            shift_s = now.monotonic_s - gap_s - body["monotonic_s"]
        dark_w = 0.0 if gap_s >= CREDIBLE_GAP_S else sum(map(float, body["watts"]))
        self.ledger_id, self.told = ledger_id, ledger.totals
        self.ledger = resume(ledger, shift_s, dark_w * gap_s)
        if body["register"] != self._counter.register:
            self.ledger, change = rebase(self.ledger)
            if change is not None:
                self._unsaid.append(_sentence(change))


def _sentence(change: Change) -> tuple[str, dict[str, float]]:
    text = _SAID[change.what]
    if change.unmetered_j:
        text += f"; {change.unmetered_j / 3.6e9:.3f} MWh of it are an estimate (unmetered)"
    return text, {"unmetered_j": float(change.unmetered_j)}


def _ledger(body: dict[str, Any]) -> Ledger:
    base, doubt = body["base"], body["doubt"]
    return Ledger(
        Totals(**body["totals"]),
        None if base is None else Standing(**base),
        Parts(**body["parts"]),
        float(body["dark_j"]),
        None
        if doubt is None
        else Doubt(**{**doubt, "standing": Standing(**doubt["standing"]), "before": Parts(**doubt["before"])}),
        int(body["astray"]),
    )
