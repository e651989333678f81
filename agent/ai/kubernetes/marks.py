"""How what we hold in a cluster says that it is ours: one annotation with every order that wants it held. Pure.

`gridpivot/orders: "ai-1=1795421935@train"` is ORDER=UNTIL@NAMESPACE, UNTIL in Unix seconds, several with a blank between. A thing
goes back into service when the last of them is gone. A text of another shape is not ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.ai.kubernetes.records import Metadata
from agent.ai.work import OWNER
from agent.ai.workload import Order, WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

ORDERS = f"{OWNER}/orders"
_ORDER = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_MARK = re.compile(rf"({_ORDER})=([0-9]{{1,12}})@([a-z0-9][a-z0-9-]{{0,62}})(\+drain)?")


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Which order of which namespace's pool holds something, until when at most [Unix s]. `drain`: what runs goes too."""

    order_id: str
    until_unix_s: int
    namespace: str
    drain: bool = False

    def __str__(self) -> str:
        return f"{self.order_id}={self.until_unix_s}@{self.namespace}{'+drain' if self.drain else ''}"


Marks = tuple[Mark, ...]


def mark_of(order: Order, namespace: str, drain: bool = False) -> Mark:
    """An order's mark; raises WorkloadRefused for an id that cannot stand in an annotation of this shape."""
    if re.fullmatch(_ORDER, order.order_id) is None:
        raise WorkloadRefused(
            LeverOutcome.FAILED, f"order {order.order_id!r}: use letters, digits, '_', '.', '-', 64 at most"
        )
    return Mark(order.order_id, math.ceil(order.until_unix_s), namespace, drain)


def marks_on(metadata: Metadata) -> Marks:
    """Marks of ours on an object; none when there is no annotation, or not one of ours."""
    words = metadata.annotations.get(ORDERS, "").split()
    found = [_MARK.fullmatch(word) for word in words]
    if not all(found):
        return ()
    return tuple(Mark(m[1], int(m[2]), m[3], bool(m[4])) for m in found if m is not None)


def text_of(marks: Iterable[Mark]) -> str | None:
    """The annotation's value; None takes it off."""
    return " ".join(map(str, sorted(marks))) or None


def with_mark(marks: Marks, new: Mark) -> Marks:
    """`new` added, or its order's end moved later; never earlier."""
    same = [m for m in marks if (m.order_id, m.namespace) == (new.order_id, new.namespace)]
    until = max([new.until_unix_s, *(m.until_unix_s for m in same)])
    drain = new.drain or any(m.drain for m in same)
    others = [m for m in marks if m not in same]
    return tuple(sorted([*others, Mark(new.order_id, until, new.namespace, drain)]))


def without_order(marks: Marks, order_id: str | None, namespace: str) -> Marks:
    """What stays when an order of this namespace ends; None = all orders of this namespace."""
    return tuple(m for m in marks if m.namespace != namespace or order_id not in (None, m.order_id))


def held_by(marks: Marks) -> str:
    """For people, and for `WorkNode.ours`."""
    return " ".join(f"{OWNER}:{mark.order_id}" for mark in marks)
