"""One writer with group commit: whatever arrives within `group_s` becomes durable in one transaction.

A caller hands in a change and waits; its future resolves after COMMIT returned. A change runs in a savepoint of its
own, so that one refused change does not undo its neighbours'. When the commit itself fails, all of the group fail. A
caller who stops waiting before his change has begun takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gridpivot.errors import GridpivotError

T = TypeVar("T")
Change = Callable[[AsyncConnection], Awaitable[T]]
WAITING_MAX = 10_000  # changes waiting for the disk; beyond it callers wait before they may hand in more
COMMIT_DEADLINE_S = 30.0


class StoreClosed(GridpivotError):
    """The store is shutting down; nothing was written."""


@dataclass(slots=True)
class _Waiting:
    change: Change[Any]
    done: asyncio.Future[Any]
    on_commit: Callable[[Any], None] | None


class Writer:
    """Runs changes in order, many to a transaction."""

    def __init__(self, engine: AsyncEngine, group_s: float) -> None:
        self._engine = engine
        self._group_s = group_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(WAITING_MAX)
        self._hurry = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.commits = 0
        self.changes = 0

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def close(self) -> None:
        """Commit what waits, then end."""
        self._closing = True
        self._hurry.set()
        if self._task is None:
            return
        try:
            await asyncio.wait_for(self._queue.join(), COMMIT_DEADLINE_S)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def submit(
        self, change: Change[T], *, hurry: bool = False, on_commit: Callable[[T], None] | None = None
    ) -> T:
        """Result of `change` once it is durable. `hurry` ends the group at once. Raises what the change raised.

        `on_commit` is called with the result right after COMMIT, before any later change runs.
        """
        if self._closing:
            raise StoreClosed("the store is closing; try again once the controller is back")
        waiting = _Waiting(change, asyncio.get_running_loop().create_future(), on_commit)
        await self._queue.put(waiting)
        if hurry:
            self._hurry.set()
        return cast(T, await waiting.done)

    async def _run(self) -> None:
        while True:
            group = [await self._queue.get()]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), self._group_s)
            if not self._closing:
                self._hurry.clear()
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._commit(group)
            finally:
                for _ in group:
                    self._queue.task_done()

    async def _commit(self, group: list[_Waiting]) -> None:
        results: list[tuple[_Waiting, Any, Exception | None]] = []
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_S), self._engine.begin() as connection:
                for waiting in group:
                    if waiting.done.cancelled():
                        continue  # its caller has given up, and has said so: it must not happen after all
                    try:
                        async with connection.begin_nested():
                            results.append((waiting, await waiting.change(connection), None))
                    except Exception as error:
                        results.append((waiting, None, error))
        except BaseException as error:
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(
                        GridpivotError(f"store: commit failed: {type(error).__name__}: {error}; is the disk full?")
                    )
            if not isinstance(error, Exception):
                raise
            return
        self.commits += 1
        self.changes += len(group)
        for waiting, value, failure in results:
            if failure is None and waiting.on_commit is not None:
                waiting.on_commit(value)
            if waiting.done.done():
                continue  # its caller gave up; the record is durable all the same
            if failure is None:
                waiting.done.set_result(value)
            else:
                waiting.done.set_exception(failure)
