"""One named thread for a library that blocks. In: functions. Out: futures.

A daemon thread rather than an executor's: a call that hangs in the driver must not keep the agent from ending, and an
executor's threads are joined when the interpreter exits.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions one after another, in the order in which they were given."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Queue a call; its result or exception arrives in the future."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # whatever it is belongs to the one who waits
                future.set_exception(error)

        self._jobs.put(job)
        return future

    def close(self, wait_s: float) -> bool:
        """End after what is queued; False when the thread is still stuck after `wait_s`."""
        self._jobs.put(None)
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
