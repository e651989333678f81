"""A host process of the demo: about ten virtual sites, each a complete agent, and a referee for each.

Speaks JSON lines with its parent: reads `go`, `announce`, `ceiling`, `release`, `stop`; writes `up`, `beat` and, last, `summary`.
Ends by itself when standard input closes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sim.hostspec import HostSpec
from sim.lines import hear, own_use, say

STEP_S = 0.25
DRAIN_S = 8.0


async def play(spec: HostSpec) -> None:
    """Run the sites until told to stop."""
    from sim.hosted import HostedSite

    sites = [HostedSite(spec, raw) for raw in spec.sites]
    for site in sites:
        await site.open()
    by_name = {site.name: site for site in sites}
    stop = asyncio.Event()

    def on_line(line: dict[str, Any]) -> None:
        match line.get("op"):
            case "go":
                for site in sites:
                    site.go(line["at_s"], line.get("repeat_s"))
            case "ceiling":
                by_name[line["site"]].order(line["ceiling_w"])
            case "announce":
                by_name[line["site"]].announce()
            case "release":
                by_name[line["site"]].release()
            case "stop":
                stop.set()

    hearing = asyncio.create_task(hear(on_line))
    hearing.add_done_callback(lambda _: stop.set())
    running = [asyncio.create_task(site.agent.run(), name=site.name) for site in sites]
    stepping = asyncio.create_task(_step(sites))
    beating = asyncio.create_task(_beat(sites))
    say("up", sites=len(sites))
    waits = [asyncio.create_task(stop.wait()), stepping, *running]
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {waits[0]}:
        task.result()  # a site that ended on its own has failed
    for site in sites:
        site.agent.quiesce()
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await _drained(sites)
    say("summary", sites=[site.summary() for site in sites], **own_use())
    for task in (*waits, beating, hearing):
        task.cancel()
    await asyncio.gather(*waits, beating, hearing, return_exceptions=True)
    for site in sites:
        await site.close()


async def _drained(sites: list[Any]) -> None:
    """Until every record has been acknowledged."""
    while any(site.waiting() for site in sites):  # noqa: ASYNC110 - forty small counters, not one event
        await asyncio.sleep(0.1)


async def _step(sites: list[Any]) -> None:
    """Physics for all sites, spread over the step so that no site waits for ten others."""
    due_s = time.monotonic()
    while True:
        due_s = max(due_s + STEP_S, time.monotonic() - STEP_S)
        for site in sites:
            site.step(time.monotonic())
            await asyncio.sleep(0)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def _beat(sites: list[Any]) -> None:
    while True:
        say("beat", connected=sum(site.connected() for site in sites))
        await asyncio.sleep(0.5)


def main() -> None:
    """`gridpivot-sim-host SPEC`: started by the demo, not by people."""
    from gridpivot.observability import configure
    from sim.tether import tether

    if len(sys.argv) != 2:
        sys.stderr.write("usage: gridpivot-sim-host SPEC.json; it is started by `gridpivot demo`\n")
        sys.exit(2)
    spec = HostSpec.read(Path(sys.argv[1]))
    tether(spec.parent_pid)
    configure("json", "info")
    with suppress(KeyboardInterrupt):
        asyncio.run(play(spec))


if __name__ == "__main__":
    main()
