"""What is done when somebody at the site orders something: obeyed at once, made durable, said upwards.

Holds `LocalOrders` and their file. The file is written in a thread and waited for, at most `DISK_S`: with a disk that
refuses the order stands all the same, in memory, and the answer says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog

from agent.governor.lease import PlanBook
from agent.governor.local_orders import LocalOrder, LocalOrders
from agent.local_control import Asker, Handler
from gridpivot.clock import Clock, Instant
from gridpivot.errors import Refused
from gridpivot.vocabulary import EventKind

FILE = "local_orders.json"
DISK_S = 3.0
log = structlog.get_logger("agent.by_hand")


class Tell(Protocol):
    """Says an event upwards."""

    def __call__(
        self, kind: EventKind, message: str, figures: Mapping[str, float] | None, *, actor: str, order_id: str
    ) -> None:
        """Say it."""
        ...


class ByHand:
    """Local orders of one site."""

    def __init__(
        self, state_dir: Path, book: PlanBook, clock: Clock, power_w: Callable[[], float | None], tell: Tell
    ) -> None:
        self.orders = LocalOrders()
        self._path, self._book, self._clock = state_dir / FILE, book, clock
        self._power_w, self._tell = power_w, tell
        self._writing = asyncio.Lock()
        self.trouble = ""
        self._restore(clock.now())

    def _restore(self, now: Instant) -> None:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self.orders.restore(found["orders"], self._path.stat().st_mtime, now)
            self._book.remember_released({str(k): float(v) for k, v in found["released_events"].items()})
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.trouble = f"{self._path}: {error}; orders of before the restart are not known"
            log.error("local orders not read", path=str(self._path), why=str(error))

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the socket may be asked."""
        return {"shed": self._shed, "hold": self._hold, "release": self._release, "orders": self._list}

    def tick(self, now: Instant) -> None:
        """Take away what has ended."""
        gone = self.orders.ended(now)
        for order in gone:
            self._tell(
                EventKind.LOCAL_RELEASE, f"local order {order.order_id} has ended", None, actor="", order_id=order.order_id
            )
        if gone:
            self._save_later()

    def _save_later(self) -> None:
        task = asyncio.ensure_future(self._keep())
        task.add_done_callback(lambda done: done.exception())

    async def _shed(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        power_w = self._power_w()
        if request.get("to_w") is not None:
            ceiling_w = _number(request, "to_w")
        elif power_w is None:
            raise Refused("the site's power is not known yet; give a ceiling with --to")
        else:
            ceiling_w = power_w - _number(request, "shed_w")
        return await self._give("shed", max(0.0, ceiling_w), request, asker)

    async def _hold(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        power_w = self._power_w()
        if power_w is None:
            raise Refused("the site's power is not known yet; wait for the first reading")
        return await self._give("hold", power_w, request, asker)

    async def _give(self, kind: str, ceiling_w: float, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        now = self._clock.now()
        for_s = None if request.get("for_s") is None else _number(request, "for_s")
        reason = str(request.get("reason") or "")
        order = self.orders.give(f"local-{secrets.token_hex(4)}", kind, ceiling_w, for_s, asker.name, reason, now)
        until = "until released" if for_s is None else f"for {for_s:.0f} s"
        told = f"{asker.name} ordered {kind} to {ceiling_w / 1e6:.3f} MW {until}" + (f": {reason}" if reason else "")
        figures = {"ceiling_w": ceiling_w} | ({} if for_s is None else {"for_s": for_s})
        log.warning("local order", order_id=order.order_id, kind=kind, ceiling_w=round(ceiling_w), by=asker.name)
        self._tell(EventKind.LOCAL_ORDER, told, figures, actor=asker.name, order_id=order.order_id)
        durable = await self._keep()
        return {"order": _shown(order), "durable": durable, "power_w": self._power_w()}

    async def _release(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        reason = str(request.get("reason") or "")
        suffix = f": {reason}" if reason else ""
        event_id = request.get("event_id")
        if event_id is not None:
            if not self._book.release(str(event_id)):
                raise Refused(f"no grid event {event_id!r} is known here; see gridpivot-agent orders")
            told = f"{asker.name} ended grid event {event_id} at the site{suffix}"
            released = [str(event_id)]
            self._tell(EventKind.LOCAL_RELEASE, told, None, actor=asker.name, order_id=str(event_id))
        else:
            wanted = request.get("order_id")
            gone = self.orders.release(None if wanted is None else str(wanted))
            released = [order.order_id for order in gone]
            for order_id in released:
                told = f"{asker.name} released {order_id}{suffix}"
                self._tell(EventKind.LOCAL_RELEASE, told, None, actor=asker.name, order_id=order_id)
        log.warning("local release", released=released, by=asker.name)
        return {"released": released, "durable": await self._keep()}

    async def _list(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        now = self._clock.now()
        return {
            "orders": [_shown(order) for order in self.orders.orders.values()],
            "events": [{"event_id": i, "ceiling_w": w} for i, w in self._book.active_events(now).items()],
            "power_w": self._power_w(),
        }

    async def _keep(self) -> bool:
        """Write and fsync; False when the disk refused or did not answer in time. The order stands either way."""
        content = {"orders": self.orders.to_json(), "released_events": dict(self._book.released)}
        try:
            async with asyncio.timeout(DISK_S), self._writing:
                await asyncio.to_thread(_replace, self._path, json.dumps(content))
        except (OSError, TimeoutError) as error:
            self.trouble = f"{self._path}: {error or 'the disk does not answer'}; local orders are in memory only"
            return False
        self.trouble = ""
        return True


def _number(request: Mapping[str, Any], name: str) -> float:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e15 < value < 1e15 or value < 0:
        raise Refused(f"{name}: a number of zero or more is wanted")
    return float(value)


def _shown(order: LocalOrder) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "kind": order.kind,
        "ceiling_w": order.ceiling_w,
        "by": order.by,
        "reason": order.reason,
        "set_at_unix_s": order.set_at_unix_s,
        "ends_unix_s": order.ends_unix_s,
    }


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
