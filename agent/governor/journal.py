"""The plan on disk: the highest one accepted, fsynced before anything is raised on it. One file, replaced whole.

Writing happens in a thread of its own: a disk that hangs must not hold the governor. Beside the plan stands its fence
(epoch and version as text), so that a damaged plan file does not open the door to older plans.
"""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from agent.durable import replace_file
from gridpivot.v1 import plan_pb2 as pb

Identity = tuple[int, int]


class PlanJournal:
    """Highest plan accepted. `background` writes in a thread; without it `begin` has written when it returns."""

    def __init__(self, path: Path, *, background: bool = False) -> None:
        self._path, self._fence = path, path.with_name("plan.fence")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="plan-journal") if background else None
        self._closed = False
        self.degraded: str | None = None
        self.kept_at_unix_s = float("-inf")  # wall clock of the last write: time has not been earlier since
        self.fence: Identity = (0, 0)  # highest ever written, as far as it is known
        self.begun: frozenset[str] = frozenset()  # events that had begun when it was last written

    def load(self) -> pb.SignedPlan | None:
        """The plan kept, None when there is none; one that does not parse is set aside."""
        self.fence = self._read_fence()
        self.begun = self._read_begun()
        try:
            content = self._path.read_bytes()
            self.kept_at_unix_s = self._path.stat().st_mtime
            return pb.SignedPlan.FromString(content)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.degraded = f"{self._path}: {error}"
            return None
        except Exception as error:  # protobuf's DecodeError has no public base on every runtime
            self.set_aside(str(error))
            return None

    def set_aside(self, why: str) -> None:
        """Keep the file for whoever looks into it, under another name."""
        aside = self._path.with_name(f"{self._path.name}.corrupt-{os.getpid()}")
        self.degraded = f"{self._path}: {why}; set aside as {aside.name}"
        try:
            self._path.rename(aside)
        except OSError as error:
            self.degraded = f"{self._path}: {error}"

    def begin(self, signed: pb.SignedPlan, identity: Identity) -> Future[str | None]:
        """Start writing; the future gives None once it is durable, or why it is not."""
        if self._thread is not None and not self._closed:
            return self._thread.submit(self._write, signed, identity)
        done: Future[str | None] = Future()
        done.set_result(self._write(signed, identity))
        return done

    def note_begun(self, event_ids: frozenset[str]) -> None:
        """Remember which events have begun: after a restart on a wrong clock they still have."""
        if event_ids == self.begun:
            return
        self.begun = event_ids
        if self._thread is not None and not self._closed:
            self._thread.submit(self._write_begun, event_ids)
        else:
            self._write_begun(event_ids)

    def _write_begun(self, event_ids: frozenset[str]) -> None:
        with contextlib.suppress(OSError):  # a disk that refuses is said by the plan's own writing
            replace_file(self._path.with_name("plan.begun"), json.dumps(sorted(event_ids)).encode())

    def _read_begun(self) -> frozenset[str]:
        try:
            return frozenset(map(str, json.loads(self._path.with_name("plan.begun").read_bytes())))
        except (OSError, ValueError, TypeError):
            return frozenset()

    def close(self) -> None:
        """Let the thread go; a write that hangs is left behind."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _write(self, signed: pb.SignedPlan, identity: Identity) -> str | None:
        try:
            replace_file(self._path, signed.SerializeToString())
            replace_file(self._fence, f"{identity[0]} {identity[1]}\n".encode())
        except OSError as error:
            return f"{self._path}: {error}"
        self.fence = max(self.fence, identity)
        return None

    def _read_fence(self) -> Identity:
        try:
            epoch, version = self._fence.read_text(encoding="ascii").split()
            return int(epoch), int(version)
        except (OSError, ValueError):
            return 0, 0
