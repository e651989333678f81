"""What node-off orders say of themselves: as events, as levers in roll-ups and metrics, as a command shows them. Pure."""

from __future__ import annotations

from typing import Any

from agent.ai.desk import Pull, PullState
from agent.ai.lever import Promise
from agent.off.order import Do, OffOrder, OffState
from agent.saying import Say
from gridpivot.vocabulary import EventKind, LeverName, LeverOutcome

_GOING, _COMING = (OffState.CHECKING, OffState.STOPPING), (OffState.STARTING,)


def tell_promise(order: OffOrder, say: Say) -> None:
    """Before the node is asked to shut down."""
    promised = f"{order.promised_w / 1e3:.1f} kW in {order.promised_s:.0f} s, no work lost"
    told = f"{order.pool}: {LeverName.NODE_OFF} of {order.node} promises {promised}"
    say(EventKind.AI_LEVER, told, figures_of(order), order_id=order.order_id)


def tell_step(order: OffOrder, step: Do, say: Say) -> None:
    """What was proven, or was not."""
    name, figures = f"{order.pool}: {LeverName.NODE_OFF} of {order.node}", figures_of(order)
    if step is Do.TELL_OFF:
        brought = f"{order.delivered_w / 1e3:.1f} of {order.promised_w / 1e3:.1f} kW"
        say(EventKind.AI_LEVER, f"{name} brought {brought}", figures, order_id=order.order_id)
    elif step is Do.TELL_SHORT:
        told = f"{name} brought nothing in {order.promised_s:.0f} s: it did not shut down"
        say(EventKind.AI_SHORT, told, figures, order_id=order.order_id)
    elif step is Do.TELL_UP:
        say(EventKind.AI_LEVER, f"{name}: it came up by itself, and is charged its most", order_id=order.order_id)
    elif step is Do.TELL_LATE:
        told = f"{name}: switched on {order.on_within_s:.0f} s ago, and its limits were not read back"
        say(EventKind.AI_SHORT, told, order_id=order.order_id)


def figures_of(order: OffOrder) -> dict[str, float]:
    """For an event. Work is lost in none of these orders, or they were refused."""
    return {
        "promised_w": order.promised_w,
        "promised_s": order.promised_s,
        "delivered_w": order.delivered_w,
        "work_lost_gpu_h": 0.0,
    }


def as_pull(order: OffOrder) -> Pull:
    """An order as a lever that was pulled."""
    promise = Promise(LeverName.NODE_OFF, order.promised_w, order.promised_w, order.promised_s, subjects=(order.node,))
    pull = Pull(order.order_id, LeverName.NODE_OFF, promise, order.commanded_s, order.before_w)
    pull.delivered_w, pull.detail = order.delivered_w, order.detail
    if order.state in _GOING:
        pull.state = PullState.SHORT if order.short else PullState.ACTING
        pull.outcome = LeverOutcome.IGNORED if order.short else LeverOutcome.UNDER_WAY
    else:
        pull.state = PullState.RESTORING if order.state in _COMING else PullState.KEPT
        pull.outcome, pull.verified = LeverOutcome.DONE, True
    return pull


def shown(order: OffOrder) -> dict[str, Any]:
    """For the local control."""
    return {
        "order_id": order.order_id,
        "node": order.node,
        "state": order.state.value,
        "by": order.by,
        "reason": order.why,
        "set_at_unix_s": order.set_at_unix_s,
        "ends_unix_s": order.ends_unix_s,
        "coming_back": order.on_wanted,
        "promised_w": order.promised_w,
        "delivered_w": order.delivered_w,
        "short": order.short,
        "detail": order.detail,
    }
