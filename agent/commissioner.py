"""Runs step tests in a live agent, feeder by feeder: the one exception to "a site that only watches commands nothing".

The control socket calls `handle`, the governor's beat calls `tick`. A test is asked for by a person, bounded to 5 % of a
feeder at a time, recorded before it commands, and refused where the governor itself acts. Machines that a run which was
cut off left asleep are known from the disk and woken by `restore`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agent import stage_record
from agent.backends import SiteInventory
from agent.commissioning import (
    FRESH_S,
    LEAST_PERCENT,
    MEANING,
    MOST_PERCENT,
    Chosen,
    FeederResult,
    Phase,
    Seen,
    StepTest,
    choose,
)
from agent.durable import replace_file
from agent.governor.reconcile import issue
from agent.governor.state import Actions, GovernorState, Sensed
from agent.local_control import Asker, Handler
from agent.stage_record import StageRecord
from gridpivot.clock import Instant
from gridpivot.errors import Refused
from gridpivot.shapes_site import CommissionShape, FeederTestFigures
from gridpivot.vocabulary import DeviceState, EventKind, MeterTrust, Mode, Reason, Stage

OPEN_FILE = "commission-open.json"  # machines that are asleep for a test
_HANDS_OFF = (Reason.LOCKED.code, Reason.MAINTENANCE.code)
_ACTING = (Stage.SHED_ONLY, Stage.FULL)

Say = Callable[[EventKind, str, Mapping[str, float] | None], None]
Command = Callable[[np.ndarray, Mode, float], None]  # rows, mode, watts that should move


class Commissioner:
    """One site's step tests. `highest` is the stage that the settings allow, `meter` says which meter it is; with
    `required` the stage has to be earned."""

    def __init__(
        self,
        inventory: SiteInventory,
        state_dir: Path,
        highest: Stage,
        meter: str = "",
        *,
        required: bool = False,
    ) -> None:
        self._inventory, self._state_dir, self._highest, self._required = inventory, state_dir, highest, required
        self._meter, self._feeders = meter, stage_record.feeder_mark(inventory)
        self._record = stage_record.load(state_dir)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="commission")
        self._writing: Future[None] | None = None
        self._waiting: list[int] = []  # feeders still to test
        self._to_wake: Chosen | None = None
        self._percent, self._by = 3.0, ""
        self._test: StepTest | None = None
        self._results: list[FeederResult] = []
        self._told_stage = False
        self._open = self._read_open()
        self.trouble = ""

    # ---- the stage --------------------------------------------------------------------------------------------

    def stage(self) -> tuple[Stage, str]:
        """The stage to stand on now, and why it is lower than the settings allow."""
        if not self._required:
            return self._highest, ""
        return stage_record.standing(self._highest, self._record, self._meter, self._feeders)

    # ---- what a person asks -----------------------------------------------------------------------------------

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket may be asked."""
        return {"commission": self._asked}

    async def _asked(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        return self.handle({**request, "by": asker.name}).model_dump(mode="json")

    def handle(self, request: Mapping[str, Any]) -> CommissionShape:
        """`do`: start (feeders, percent, by), look, stop, restore. Raises Refused with one sentence."""
        match request.get("do"):
            case "start":
                self._start(request)
            case "stop":
                self._waiting.clear()
                if self._test is not None:
                    self._test.stop()
            case "restore":
                self._restore()
            case "look":
                pass
            case other:
                raise Refused(f"commission: {other!r} is not one of start, look, stop, restore")
        return self.shape()

    def _restore(self) -> None:
        """Wake what a test that was cut off left asleep."""
        self._may_run()
        if self._open is None:
            raise Refused("no machine is known to sleep for a step test")
        rows = np.array([row for row, _ in self._open], dtype=np.int64)
        modes = tuple(mode for _, mode in self._open)
        classes = [self._inventory.classes[self._inventory.class_index[row]] for row in rows.tolist()]
        peak_w = sum(max(c.boot_w, c.modes[m].power_w) for c, m in zip(classes, modes, strict=True))
        wake_s = max(c.wake_s for c in classes)
        feeder = self._inventory.feeders[int(self._inventory.feeder_index[rows[0]])]
        self._results, self.trouble = [], ""
        self._to_wake = Chosen(feeder, rows, modes, 0.0, 0.0, 0.0, wake_s, peak_w)

    def _may_run(self) -> None:
        stage = self.stage()[0]
        if stage in _ACTING:
            raise Refused(
                f'a step test needs a site that only watches; this one is {stage.value}: set stage = "shadow"'
            )
        if self.running:
            raise Refused("a step test is running; look at it, or stop it first")

    def _start(self, request: Mapping[str, Any]) -> None:
        self._may_run()
        if self._open is not None:
            raise Refused(f"{len(self._open)} machines still sleep for an earlier test; wake them first: --restore")
        if not self._inventory.device_count:
            raise Refused("no miners in the inventory: there is nothing to shed")
        percent, names = request.get("percent", 3.0), request.get("feeders") or list(self._inventory.feeders)
        if isinstance(percent, bool) or not isinstance(percent, (int, float)):
            raise Refused(f"percent {percent!r} is not a number")
        if not LEAST_PERCENT <= percent <= MOST_PERCENT:
            raise Refused(f"percent {percent:g} is not between {LEAST_PERCENT:g} and {MOST_PERCENT:g}")
        unknown = [name for name in names if name not in self._inventory.feeders]
        if unknown:
            raise Refused(f"no feeder {unknown[0]!r} here; there are {', '.join(self._inventory.feeders)}")
        self._waiting = [self._inventory.feeders.index(name) for name in names]
        self._percent, self._by = float(percent), str(request.get("by", ""))[:64]
        self._results, self.trouble = [], ""

    @property
    def running(self) -> bool:
        """Whether a test is going on or waits."""
        return self._test is not None or bool(self._waiting) or self._to_wake is not None

    def shape(self) -> CommissionShape:
        """How it stands, for a person."""
        stage, why = self.stage()
        test = self._test
        return CommissionShape(
            running=self.running,
            feeder=None if test is None else test.chosen.feeder,
            phase=None if test is None else test.phase.value,
            feeders_left=len(self._waiting),
            stage=stage.value,
            stage_reason=why,
            trouble=self.trouble,
            results=[
                FeederTestFigures(**asdict(r) | {"verdict": r.verdict.value, "meaning": MEANING[r.verdict]})
                for r in self._results
            ],
        )

    # ---- the beat ---------------------------------------------------------------------------------------------

    def tick(
        self,
        state: GovernorState,
        sensed: Sensed,
        actions: Actions,
        ceiling_w: float,
        now: Instant,
        command: Command,
        say: Say,
    ) -> None:
        """One turn, after the governor's."""
        if not self._told_stage:
            self._told_stage = True
            stage, why = self.stage()
            if why:
                say(EventKind.STAGE_CHANGED, f"standing on {stage.value}: {why}", None)
            if self._open is not None:
                told = (
                    f"{len(self._open)} machines may still sleep for a step test that was cut off: commission --restore"
                )
                say(EventKind.COMMISSIONED, told, None)
        if not self.running or not self._written():
            return
        if self._to_wake is not None:
            self._test, self._to_wake = StepTest.to_wake(self._to_wake, now.monotonic_s), None
        if self._test is None:
            chosen = choose(state, sensed.table, self._waiting.pop(0), self._percent, state.correction)
            if isinstance(chosen, FeederResult):
                self._add(chosen, now, say)
                return
            self._test = StepTest(chosen, now.monotonic_s)
            self._open = list(zip(chosen.rows.tolist(), chosen.modes, strict=True))
            self._write(lambda: self._keep_open(chosen))  # before anything sleeps
            return
        test = self._test
        due = test.tick(self._see(test.chosen, sensed, actions, ceiling_w, now))
        if due is Phase.SHED:
            self._order(state, test.chosen, [Mode.SLEEP] * len(test.chosen.rows), now, command)
        elif due is Phase.WAKE:
            self._order(state, test.chosen, list(test.chosen.modes), now, command)
        if test.phase is Phase.DONE:
            self._test = None
            if not test.result.left_asleep:
                self._open = None
                self._write(lambda: (self._state_dir / OPEN_FILE).unlink(missing_ok=True))
            self._add(test.result, now, say)

    def _see(self, chosen: Chosen, sensed: Sensed, actions: Actions, ceiling_w: float, now: Instant) -> Seen:
        rows, table, meter = chosen.rows, sensed.table, sensed.meter
        fresh = table["age_s"][rows] <= FRESH_S
        states = table["state"][rows]
        picture = actions.picture
        believed = picture.meter_trust is MeterTrust.TRUSTED and meter is not None
        return Seen(
            now.monotonic_s,
            meter.read_at_s if meter is not None else now.monotonic_s,
            meter.power_w - picture.ai_w if believed and meter is not None else None,
            ceiling_w - picture.assumed_w,
            int((fresh & (states == DeviceState.SLEEPING.code)).sum()),
            int((fresh & (states == DeviceState.HASHING.code)).sum()),
            bool(np.isin(table["reason"][rows], _HANDS_OFF).any()),
        )

    def _order(self, state: GovernorState, chosen: Chosen, modes: list[Mode], now: Instant, command: Command) -> None:
        for mode in dict.fromkeys(modes):
            rows = chosen.rows[[wanted is mode for wanted in modes]]
            command(rows, mode, issue(state, rows, mode, now.monotonic_s))

    def _add(self, result: FeederResult, now: Instant, say: Say) -> None:
        self._results.append(result)
        figures = {k: v for k, v in asdict(result).items() if isinstance(v, float)}
        asleep = f"; {result.left_asleep} machines still sleep: wake them by hand" if result.left_asleep else ""
        text = f"step test of feeder {result.feeder} by {self._by or 'unknown'}: {MEANING[result.verdict]}{asleep}"
        say(EventKind.COMMISSIONED, text, figures)
        stage = None if self._waiting else stage_record.earned(self._results, self._inventory.feeders)
        if stage is None:
            return
        record = stage_record.record_now(stage, self._meter, self._feeders, now.unix_s, self._by)
        results = list(self._results)
        self._write(lambda: self._advance(record, results))
        say(EventKind.STAGE_CHANGED, f"the step test earned {stage.value}", None)

    # ---- the disk ---------------------------------------------------------------------------------------------

    def _advance(self, record: StageRecord, results: list[FeederResult]) -> None:
        stage_record.save(self._state_dir, record, results)
        self._record = record

    def _keep_open(self, chosen: Chosen) -> None:
        macs = self._inventory.mac_addresses.ljust(6 * self._inventory.device_count, b"\0")
        asleep = [
            {"row": row, "mac": macs[6 * row : 6 * row + 6].hex(":"), "mode": mode.value}
            for row, mode in zip(chosen.rows.tolist(), chosen.modes, strict=True)
        ]
        content = json.dumps({"format": 1, "feeder": chosen.feeder, "asleep": asleep})
        replace_file(self._state_dir / OPEN_FILE, content.encode())

    def _read_open(self) -> list[tuple[int, Mode]] | None:
        """Rows that an earlier run put to sleep and did not wake: by MAC, by place where no MAC is known."""
        macs, count = self._inventory.mac_addresses, self._inventory.device_count
        place = {macs[6 * row : 6 * row + 6].hex(":"): row for row in range(count)}
        found: list[tuple[int, Mode]] = []
        try:
            for one in json.loads((self._state_dir / OPEN_FILE).read_bytes())["asleep"]:
                known = one["mac"].strip("0:") != ""
                row = place.get(one["mac"]) if known else int(one["row"])
                if row is not None and 0 <= row < count:
                    found.append((row, Mode(one["mode"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found or None

    def _write(self, job: Callable[[], None]) -> None:
        before = self._writing

        def after() -> None:
            if before is not None:
                before.result()
            job()

        self._writing = self._disk.submit(after)

    def _written(self) -> bool:
        """Whether the disk has taken what was handed to it; where it refuses, everything ends here."""
        if self._writing is None:
            return True
        if not self._writing.done():
            return False
        writing, self._writing = self._writing, None
        error = writing.exception()
        if error is not None:
            self.trouble = f"{self._state_dir}: {error}; nothing was commanded without a record"
            self._waiting.clear()
            if self._test is not None:
                self._test.stop()
        return True
