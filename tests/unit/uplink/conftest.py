"""A spool whose announcements can be waited for."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.uplink.spool import Spool
from gridpivot.link.lanes import Pending

DEADLINE_S = 20.0


class Watched:
    """A spool and everything it has announced so far."""

    def __init__(self, path: Path) -> None:
        self._changed = threading.Condition()
        self.durable: list[Pending] = []
        self.dropped: list[tuple[int, int]] = []
        self.at_announcement: Callable[[], None] = lambda: None
        self.spool = Spool(path, self._on_durable, self._on_dropped)

    def _on_durable(self, records) -> None:
        with self._changed:
            self.at_announcement()
            self.durable += records
            self._changed.notify_all()

    def _on_dropped(self, lane, seqs) -> None:
        with self._changed:
            self.dropped += [(lane, seq) for seq in seqs]
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S), "what was waited for never came"

    def until_durable(self, count: int) -> None:
        self.until(lambda: len(self.durable) >= count)

    def settle(self, lane=1) -> None:
        """Everything handed in so far has passed through the spool's thread."""
        before = len(self.durable)
        self.spool.append(lane, 1, b"settle", 0)
        self.until_durable(before + 1)


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[[], Watched]]:
    """Opens the spool of the test's directory; an earlier one is closed first, as a restart does."""
    opened: list[Watched] = []

    def again() -> Watched:
        if opened:
            opened[-1].spool.close()
        opened.append(Watched(tmp_path / "agent" / "spool.sqlite"))
        return opened[-1]

    yield again
    for watched in opened:
        watched.spool.close()
