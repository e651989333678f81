"""What stands around every process of the agent: signals, one lock a state directory, HTTP, tasks, a status left behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import structlog

from agent.settings import AgentSettings, HttpSettings
from gridpivot.errors import GridpivotError, Refused, SettingsError
from gridpivot.httpd import HttpServer, Route
from gridpivot.shapes import AgentStatusShape

log = structlog.get_logger("agent.frame")
STATUS_BEAT_S = 5.0
FIRST_LOOK_S = 0.1  # until there is something to tell
LOCK_TRIES = 5
LOCK_LOOK_S = 0.5  # how often a waiting agent looks

Part = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Round:
    """One run of the work with one set of settings, and how it ends: for good, or to begin anew."""

    settings: AgentSettings
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    again: bool = False

    def end(self) -> None:
        """For good."""
        self.over = True
        self.stop.set()

    def begin_anew(self, why: str, settings: AgentSettings | None = None) -> None:
        """End this run and begin another in the same process, under the same lock."""
        log.info("beginning anew", why=why)
        self.settings, self.again = settings or self.settings, True
        self.stop.set()


async def serve_rounds(
    settings: AgentSettings,
    once: Callable[[Round], Coroutine[Any, Any, None]],
    *,
    wait: bool,
    reload: Callable[[], AgentSettings] | None = None,
) -> None:
    """Hold the state directory's lock and run `once` until SIGTERM or SIGINT; anew on SIGHUP, with what `reload` brings.

    `wait`: until another agent has ended, touching nothing; otherwise Refused is raised while one lives. Settings that
    cannot be used are said, and the work goes on with those before.
    """
    run = Round(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, run.end)
    reloading: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        if reload is not None and not reloading:
            task = asyncio.create_task(_reload(run, reload))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    lock = await _wait_for_lock(settings.state_dir, run.stop, wait=wait)
    if lock is None:
        return
    with contextlib.closing(lock):
        while not run.over:
            run.again = False
            run.stop.clear()
            await once(run)
            if not run.again:
                return


async def _reload(run: Round, reload: Callable[[], AgentSettings]) -> None:
    """Read settings again, whole or not at all."""
    try:
        fresh = await asyncio.to_thread(reload)
    except GridpivotError as error:
        log.error("settings refused, those before stay", why=str(error))
        return
    before = run.settings
    if (fresh.site, fresh.role, fresh.node, fresh.state_dir) != (
        before.site,
        before.role,
        before.node,
        before.state_dir,
    ):
        log.error(
            "settings refused, those before stay", why="site, role, node and state_dir change with a restart only"
        )
        return
    run.begin_anew("settings were read again", fresh)


async def serve_pages(routes: Mapping[str, Route], settings: HttpSettings) -> tuple[HttpServer, str]:
    """/metrics and its neighbours, and their address; raises GridpivotError where the port cannot be had."""
    http = HttpServer(routes, settings.host, settings.port)
    try:
        port = await http.start()
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise GridpivotError(f"{where}: {error.strerror}; change http.port or stop what listens there") from error
    return http, f"http://{settings.host}:{port}/metrics"


async def run_parts(stop: asyncio.Event, http: HttpServer, parts: Sequence[Part]) -> None:
    """Run all parts until we are to stop; a part that ends on its own has failed, and its error ends the process."""
    tasks = [asyncio.ensure_future(part()) for part in parts]
    stopping = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
        await http.stop()


async def keep_status(state_dir: Path, shape_now: Callable[[], AgentStatusShape | None]) -> None:
    """Leave a status behind for `gridpivot-agent status`, which works while the agent is down.

    A disk that refuses is said once and costs the file, never the agent.
    """
    said = False
    while True:
        shape = shape_now()
        if shape is not None:
            try:
                await asyncio.to_thread(replace_text, state_dir / "status.json", shape.model_dump_json())
                said = False
            except OSError as error:
                if not said:
                    log.warning("status not written", why=str(error))
                said = True
        await asyncio.sleep(STATUS_BEAT_S if shape is not None else FIRST_LOOK_S)


def take_lock(state_dir: Path) -> TextIO:
    """One agent per state directory; raises Refused while another lives."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("a+")
    except OSError as error:
        raise SettingsError(f"{state_dir}: {error.strerror}; correct its owner, or give --state-dir") from error
    if not _locked(lock):
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise Refused(f"{state_dir}: another agent (pid {holder}) is running here; stop it first")
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _locked(lock: TextIO) -> bool:
    """Take the lock; `status` holds it for a moment when it looks, so one try is not enough."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.05)
    return False


async def _wait_for_lock(state_dir: Path, stop: asyncio.Event, *, wait: bool) -> TextIO | None:
    """The lock, once whoever holds it has ended; nothing is touched meanwhile. None when we are to stop."""
    if not wait:
        return take_lock(state_dir)
    said = ""
    while not stop.is_set():
        try:
            return take_lock(state_dir)
        except Refused as error:
            if str(error) != said:
                log.warning("waiting for another agent to end", why=str(error))
            said = str(error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOCK_LOOK_S):
                await stop.wait()
    return None


def replace_text(path: Path, text: str) -> None:
    """Write whole or not at all; the same neighbour each time, so that a full disk is not littered."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def read_status(state_dir: Path) -> dict[str, Any] | None:
    """What the agent left behind, None when it never ran here."""
    try:
        loaded = json.loads((state_dir / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def is_running(state_dir: Path) -> bool:
    """Whether an agent holds the state directory now."""
    try:
        with (state_dir / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file, or none that we may read: nobody is known to run here
    return False
