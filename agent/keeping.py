"""What a site remembers over a restart, a few seconds behind: the last orders of its machines, and its energy ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from agent.energy_book import EnergyBook
from agent.governor.recall import Recall
from gridpivot.clock import Clock

REMEMBER_S = 5.0  # how far the disk may be behind


async def keep_desired(
    recall: Recall, desired: Callable[[], npt.NDArray[np.uint8]], kept: npt.NDArray[np.uint8], clock: Clock
) -> None:
    """Keep the last orders on disk, for ever; a disk that refuses is said by the spool."""
    while True:
        await asyncio.sleep(REMEMBER_S)
        now = desired()
        if np.array_equal(now, kept):
            continue
        with suppress(OSError):
            await asyncio.to_thread(recall.save, now, clock.now().unix_ms / 1000.0)
            kept = now


async def keep_energy(book: EnergyBook, clock: Clock) -> None:
    """Keep the energy ledger on disk, for ever, and once more at the end."""
    try:
        while True:
            await asyncio.sleep(REMEMBER_S)
            if book.counts:
                await asyncio.to_thread(book.keep, *book.content(clock.now()))
    finally:
        if book.counts:
            book.save(clock.now())
