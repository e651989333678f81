"""Records that the disk would not take: kept in memory in their order, written as soon as it does.

A full or locked disk must not keep a lowered ceiling from its site, so what only lowers goes out first and is recorded
after; everything else waits for the disk. What stands here is lost if the process dies before the disk recovers: the
log has said it by then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from gridpivot.errors import GridpivotError
from gridpivot.observability import get_logger

RETRY_S = 2.0
WRITE_S = 40.0  # one try: the database's own patience and a little
MOST = 10_000
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    what: str
    write: Callable[[], Awaitable[object]]


class PendingRecords:
    """What is still to be written. `degraded` says why, None when nothing waits."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self.degraded: str | None = None
        self.kept_total = 0
        self.dropped_total = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, what: str, why: str, write: Callable[[], Awaitable[object]]) -> None:
        """Remember a record; `write` is tried until it works. The log has its words at once."""
        if self.degraded is None:
            log.error("the store refuses; only what lowers power goes out", why=why)
        log.warning("journalled in memory", what=what)
        self.degraded = why
        self.kept_total += 1
        self._waiting.append(_Waiting(what, write))
        if len(self._waiting) > MOST:
            self._waiting.popleft()
            self.dropped_total += 1

    async def run(self) -> None:
        """Write what waits, oldest first, for ever."""
        while True:
            await asyncio.sleep(RETRY_S)
            await self.write()

    async def write(self) -> None:
        """Try once; stops at the first that is refused."""
        while self._waiting:
            first = self._waiting[0]
            try:
                async with asyncio.timeout(WRITE_S):
                    await first.write()
            except IntegrityError:
                log.info("was written after all", what=first.what)  # a try that we had given up on
            except (GridpivotError, TimeoutError) as error:
                self.degraded = str(error) or "the store does not answer"
                return
            except Exception:  # a record that can never be written must not hold up the others
                log.exception("record cannot be written", what=first.what)
            self._waiting.popleft()
        if self.degraded is not None:
            log.info("the store takes records again")
            self.degraded = None
