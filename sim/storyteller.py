"""What the demo does to its sites from outside, at its times: grid calls through the operators' API, price files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc
from sim import staging
from sim.children import Child
from sim.fleet import EVENT_LEAD_S, REGIONS, SiteSpec
from sim.scenario import Scenario

CALL_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """The operators' API, with the token that opens it."""

    stub: operator_pb2_grpc.OperatorServiceAsyncStub
    metadata: tuple[tuple[str, str], ...]


class Storyteller:
    """Tells one scenario; `repeat` tells it again every `story_s` seconds."""

    def __init__(
        self,
        scenario: Scenario,
        line: Line,
        directory: Path,
        virtual: Sequence[SiteSpec],
        hosts: Sequence[Child],
        *,
        story_s: float,
        repeat: bool,
        speed: float,
        began_unix_s: float,
        may_move_prices: bool,
    ) -> None:
        self._scenario, self._stub, self._metadata = scenario, line.stub, line.metadata
        self._directory, self._virtual, self._hosts = directory, virtual, hosts
        self._story_s, self._repeat, self._speed = story_s, repeat, speed
        self._began_unix_s, self._may_move_prices = began_unix_s, may_move_prices

    async def tell(self, go_s: float) -> None:
        """Calls and spikes at their times; AI steps and faults are told by the hosts themselves."""
        while True:
            await self._tell_once(go_s)
            if not self._repeat:
                return
            go_s += self._story_s
            await asyncio.sleep(max(0.0, go_s - time.monotonic()))

    async def _tell_once(self, go_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for call in self._scenario.calls:
                tasks.create_task(self._call(call.sites, call.ratio, call.notice_s, go_s + call.at_s, go_s + call.to_s))
            if self._may_move_prices:
                for spike in self._scenario.spikes:
                    tasks.create_task(
                        self._spike(spike.region, spike.usd_per_mwh, go_s + spike.at_s, go_s + spike.to_s)
                    )

    async def _call(self, names: tuple[str, ...], ratio: float, notice_s: float, at_s: float, to_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - notice_s - time.monotonic()))
        now_s, now_unix_s = time.monotonic(), time.time()
        start_unix_ms = round((now_unix_s + max(0.0, at_s - now_s)) * 1000) if notice_s else None
        if notice_s:
            ordered = None
        else:
            ordered = self._order(names, ratio)
        await self._stub.CreateEvent(
            op.CreateEventRequest(
                sites=names,
                ceiling_ratio=ratio,
                starts_at_unix_ms=start_unix_ms,
                ends_at_unix_ms=round((now_unix_s + to_s - now_s) * 1000),
                reason=f"grid call with {notice_s:.0f} s notice" if notice_s else "grid call without notice",
                idempotency_key=f"demo-{names[0]}-{round(at_s)}",
            ),
            timeout=CALL_DEADLINE_S,
            metadata=self._metadata,
        )
        if ordered is None:
            await asyncio.sleep(max(0.0, at_s - EVENT_LEAD_S - time.monotonic()))
            for name in names:
                self._host_of(name).tell(op="announce", site=name)
            await asyncio.sleep(max(0.0, at_s - time.monotonic()))
            self._order(names, ratio)
        await asyncio.sleep(max(0.0, to_s - time.monotonic()))
        for name in names:
            self._host_of(name).tell(op="release", site=name)

    def _order(self, names: tuple[str, ...], ratio: float) -> bool:
        for name in names:
            spec = next(s for s in self._virtual if s.name == name)
            self._host_of(name).tell(op="ceiling", site=name, ceiling_w=ratio * spec.ceiling_w)
        return True

    def _host_of(self, name: str) -> Child:
        number = next(i for i, spec in enumerate(self._virtual) if spec.name == name)
        return self._hosts[number % len(self._hosts)]

    async def _spike(self, region: str, price: float, at_s: float, to_s: float) -> None:
        path, base = staging.price_file(self._directory, region), REGIONS[region][1]
        rows = [(self._began_unix_s - 3600.0, base)]
        for when_s, value in ((at_s, price), (to_s, base)):
            await asyncio.sleep(max(0.0, when_s - time.monotonic()))
            data_s = self._began_unix_s + max(0.0, time.time() - self._began_unix_s - 5.0) * self._speed
            rows.append((data_s, value))
            await asyncio.to_thread(staging.write_prices, path, list(rows))
