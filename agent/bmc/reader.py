"""A BMC asked at its beat: the newest power of one host, and whether it is on. Failures make the beat longer, not shorter.

`newest` never waits and never guesses: a reading ages, and what is too old is for the caller to see.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import structlog

from agent.bmc.client import Redfish
from agent.bmc.finding import Found, find
from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.payload import absurd, system_facts
from agent.bmc.settings import BmcSettings
from gridpivot.clock import Clock

log = structlog.get_logger("agent.bmc")
HURRY_S = 5.0  # between looks that somebody asked for
LONGEST_PAUSE_S = 300.0  # between tries at a BMC that fails; it may be rebooting, or have locked us out


def pause_after_s(outcome: BmcOutcome | None, failures: int, beat_s: float) -> float:
    """Until the next look [s]: the beat, doubled for every failure in a row; at once the longest after a wrong password."""
    if outcome is BmcOutcome.UNAUTHORISED:
        return LONGEST_PAUSE_S
    return min(LONGEST_PAUSE_S, beat_s * 2.0 ** min(failures, 10))


@dataclass(frozen=True, slots=True)
class BmcSample:
    """Power at the wall [W], whether the host is on (None: not told), and when asking began [monotonic s]."""

    power_w: float
    on: bool | None
    read_at_s: float


class BmcReader:
    """One host's BMC. `run` must be awaited by somebody."""

    def __init__(self, name: str, settings: BmcSettings, clock: Clock) -> None:
        self.name, self.settings, self._clock = name, settings, clock
        self._client = Redfish(settings)
        self._found: Found | None = None
        self._sample: BmcSample | None = None
        self._hurry = asyncio.Event()
        self._looked_s = float("-inf")
        self.outcome: BmcOutcome | None = None  # None = never asked
        self.detail = ""
        self.counts: Counter[str] = Counter()

    def newest(self) -> BmcSample | None:
        """The last good reading, however old."""
        return self._sample

    def fresh(self, now_s: float) -> BmcSample | None:
        """The last good reading, while it says something about now."""
        sample = self._sample
        return None if sample is None or now_s - sample.read_at_s > self.settings.stale_s else sample

    async def run(self) -> None:
        """Read at the beat until cancelled."""
        failures = 0
        try:
            while True:
                self._hurry.clear()
                failures = 0 if await self.look() else failures + 1
                await self._pause(pause_after_s(self.outcome, failures, self.settings.beat_s))
        finally:
            await self._client.close()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def hurry(self) -> None:
        """Look again soon: something was asked of the host. A BMC that fails keeps its pause: it may have locked us out."""
        if self.outcome is BmcOutcome.OK and self._clock.now().monotonic_s - self._looked_s >= HURRY_S:
            self._hurry.set()

    async def look(self) -> bool:
        """One reading; False when there was none, and `outcome` says why."""
        outcome, detail = BmcOutcome.OK, ""
        self._looked_s = self._clock.now().monotonic_s
        try:
            self._sample = await self.read()
        except BmcTrouble as error:
            outcome, detail = error.outcome, str(error)
            if outcome in (BmcOutcome.NO_POWER, BmcOutcome.GARBLED):
                self._found = None  # firmware was changed, or links were
        self.counts[outcome] += 1
        if outcome is not self.outcome:
            say = log.info if outcome is BmcOutcome.OK else log.warning
            say("bmc", host=self.name, outcome=outcome.value, detail=detail)
        self.outcome, self.detail = outcome, detail
        return outcome is BmcOutcome.OK

    async def read(self) -> BmcSample:
        """Ask now; raises BmcTrouble."""
        began_s = self._clock.now().monotonic_s
        found = await self.found()
        on = system_facts(await self._client.get(found.system.path), found.system.path).on
        watts = found.watts(await self._client.get(found.resource))
        if watts is None:
            raise BmcTrouble(BmcOutcome.NO_POWER, f"{self.settings.url}: chassis {found.chassis} tells no power now")
        why = absurd(watts, on)
        if why:
            raise BmcTrouble(BmcOutcome.IMPLAUSIBLE, f"{self.settings.url}: chassis {found.chassis}: {why}")
        return BmcSample(watts, on, began_s)

    async def found(self) -> Found:
        """Where this BMC tells power; looked for once. Raises BmcTrouble."""
        if self._found is None:
            self._found = await find(self._client, self.settings)
        return self._found

    async def shut_down(self) -> None:
        """Ask the host's operating system to shut down. Nothing here ever forces power off. Raises BmcTrouble."""
        await self._reset("GracefulShutdown")

    async def switch_on(self) -> None:
        """Power on; does nothing to a host that is on. Raises BmcTrouble."""
        if (await self.read()).on is not True:
            await self._reset("On")

    async def offers(self, reset_type: str) -> bool:
        """Whether this BMC can be asked for `GracefulShutdown`, `On`; raises BmcTrouble."""
        system = (await self.found()).system
        return system.reset_target is not None and reset_type in system.reset_types

    async def _reset(self, reset_type: str) -> None:
        system = (await self.found()).system
        if system.reset_target is None or reset_type not in system.reset_types:
            told = ", ".join(system.reset_types) or "nothing"
            raise BmcTrouble(
                BmcOutcome.UNSUPPORTED, f"{self.settings.url}: {reset_type} is not offered (it offers {told})"
            )
        await self._client.post(system.reset_target, {"ResetType": reset_type})

    async def close(self) -> None:
        """For who looks once and does not run."""
        await self._client.close()
