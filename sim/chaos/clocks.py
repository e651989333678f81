"""Clocks that step while an event is about to begin: an hour ahead, an hour behind, to 2038; at the site, at the controller.

The event does not stay away and does not end early, the lease goes on, plans go on, nothing acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from controller.cli_options import load_settings
from controller.service import ControllerService
from gridpivot.v1 import operator_pb2 as op
from sim.chaos.crash import accounts
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Rig, SteppedClock, standing, until

UNIX_2038_S = 2_147_483_647.0  # where 32 bits end
STEPS: dict[str, Callable[[], float]] = {
    "ahead": lambda: 3_600.0,
    "behind": lambda: -3_600.0,
    "2038": lambda: UNIX_2038_S + 10.0 - time.time(),
}
BEGINS_S, LASTS_S, TOLERANCE_S = 7.0, 11.0, 2.5
CERTIFICATES_S = 2 * 86_400.0  # life of the rig's certificates


class InProcessRig(Rig):
    """The controller in this process, with a clock that steps."""

    def __init__(self, place: Path, sites: int = 1, devices: int = 200) -> None:
        super().__init__(place, sites, devices)
        self.clock = SteppedClock()
        self.service: ControllerService | None = None

    async def start_controller(self) -> float:
        """Until it listens."""
        began_s = time.monotonic()
        self.service = ControllerService(load_settings(self.config, None), self.clock)
        await self.service.start()
        return time.monotonic() - began_s

    async def stop(self) -> None:
        """Everything down."""
        await super().stop()
        if self.service is not None:
            await self.service.stop()


@contextlib.asynccontextmanager
async def in_process(place: Path) -> AsyncIterator[InProcessRig]:
    """As `standing`, with the controller in this process."""
    rig = InProcessRig(place)
    try:
        await rig.start_controller()
        await rig.start_sites()
        await rig.planned()
        yield rig
    finally:
        await rig.stop()


async def _event_under(rig: Rig, clock: SteppedClock, name: str, short: bool) -> Outcome:
    """An event is announced, the clock steps, the event comes and goes; plans must go on afterwards."""
    (site,) = rig.sites
    step_s = STEPS[name.rsplit("_", 1)[1]]()
    made_s, made_ms = time.monotonic(), round(time.time() * 1000)
    request = op.CreateEventRequest(
        sites=[site.spec.name],
        ceiling_ratio=0.7,
        starts_at_unix_ms=made_ms + round(1000 * BEGINS_S),
        ends_at_unix_ms=made_ms + round(1000 * (BEGINS_S + LASTS_S)),
        reason=name,
    )
    created = await rig.call("CreateEvent", request)
    book = site.agent.book
    await until(lambda: book.plan is not None and bool(book.plan.events), 6.0, "event at the site")
    before = site.agent.book.highest
    clock.step_s = step_s
    active: list[tuple[float, bool]] = []
    unleased_s = 0.0
    last_s = time.monotonic()
    while time.monotonic() - made_s < BEGINS_S + LASTS_S + 8.0:
        now = site.clock.now()
        active.append((time.monotonic() - made_s, created.event_id in book.active_events(now)))
        unleased_s += 0.0 if book.leased(now) else time.monotonic() - last_s
        last_s = time.monotonic()
        await asyncio.sleep(0.1)
    during = [at_s for at_s, on in active if on]
    begun_s, ended_s = min(during, default=-1.0), max(during, default=-1.0)
    held = bool(during) and all(on for at_s, on in active if begun_s <= at_s <= ended_s)
    faults = []
    # A clock that stands ahead begins it early, and that is meant: either clock may begin an event, both must end it.
    if not during or begun_s > BEGINS_S + TOLERANCE_S:
        faults.append(f"event began at {begun_s:.1f} s instead of {BEGINS_S:g}")
    if not held or abs(ended_s - BEGINS_S - LASTS_S) > TOLERANCE_S:
        faults.append(f"event ended at {ended_s:.1f} s instead of {BEGINS_S + LASTS_S:g}")
    # A controller whose clock stands past every certificate's end refuses them all: its sites hold, and come back with the clock.
    refuses_all = isinstance(rig, InProcessRig) and step_s > CERTIFICATES_S
    if unleased_s > 0.5 and not refuses_all:
        faults.append(f"{unleased_s:.0f} s without a lease")
    if refuses_all:
        pass
    elif not site.connected:
        faults.append(f"no session: {site.agent.uplink.state.last_error if site.agent.uplink else ''}"[:120])
    elif book.highest <= before:
        faults.append("no plan since the step")
    clock.step_s = 0.0
    back_s = await until(lambda: site.connected, 60.0, "session with the right clock")
    await rig.drained()
    said = ", ".join(dict.fromkeys(site.said))
    saw = f"event {begun_s:.1f} to {ended_s:.1f} s (meant {BEGINS_S:g} to {BEGINS_S + LASTS_S:g}); {said}"
    return await accounts(rig, name, saw, recovery_s=back_s, note="; ".join(faults))


async def _agent(name: str, place: Path, short: bool) -> Outcome:
    async with standing(place, sites=1) as rig:
        return await _event_under(rig, rig.sites[0].clock, name, short)


async def _controller(name: str, place: Path, short: bool) -> Outcome:
    async with in_process(place) as rig:
        return await _event_under(rig, rig.clock, name, short)


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    **{f"agent_clock_{step}": partial(_agent, f"agent_clock_{step}") for step in STEPS},
    **{f"controller_clock_{step}": partial(_controller, f"controller_clock_{step}") for step in STEPS},
}
