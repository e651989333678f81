"""Absurd numbers in every numeric field of a message, one field at a time, from its descriptor. Pure.

In: a sane example. Out: copies of it in which one field (of the message or of any message inside it) holds what no
meter, clock or counter ever says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
Reach = Callable[[Any], Any]
DEEPEST = 8
_FLOATS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, -1e308, 2.0**63, -(2.0**63))
_INT64 = (0, -1, 2**63 - 1, -(2**63), 2**53 + 1)
_INT32 = (0, -1, 2**31 - 1, -(2**31))
_UINT64 = (0, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
_UINT32 = (0, 2**31, 2**32 - 1)
_VALUES: dict[int, tuple[float, ...]] = {
    FieldDescriptor.TYPE_DOUBLE: _FLOATS,
    FieldDescriptor.TYPE_FLOAT: _FLOATS,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_ENUM: _INT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
}


@dataclass(frozen=True, slots=True)
class Case(Generic[M]):
    """An example with one field spoilt."""

    field: str  # path, such as classes.power_w
    value: float
    message: M


def cases(example: M) -> Iterator[Case[M]]:
    """Every numeric field with every absurd value of its type; what the example lacks is added to be spoilt."""
    for path, value, spoil in _walk(example.DESCRIPTOR, lambda message: message, "", 0):
        message = type(example)()
        message.CopyFrom(example)
        spoil(message)
        yield Case(path, value, message)


def _walk(descriptor: Any, reach: Reach, prefix: str, depth: int) -> Iterator[tuple[str, float, Reach]]:
    if depth > DEEPEST:
        return
    for field in descriptor.fields:
        path, inner = f"{prefix}{field.name}", field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            for value in _VALUES.get(inner.fields_by_name["value"].type, ()):
                yield path, value, _in_map(reach, field.name, value)
        elif inner is not None:
            yield from _walk(inner, _inside(reach, field), f"{path}.", depth + 1)
        else:
            for value in _VALUES.get(field.type, ()):
                yield path, value, _setting(reach, field, value)


def _inside(reach: Reach, field: FieldDescriptor) -> Reach:
    def inside(message: Any) -> Any:
        found = getattr(reach(message), field.name)
        if not field.is_repeated:
            return found
        return found[0] if len(found) else found.add()

    return inside


def _in_map(reach: Reach, name: str, value: float) -> Reach:
    def spoil(message: Any) -> None:
        held = getattr(reach(message), name)
        held[next(iter(held), "absurd")] = value

    return spoil


def _setting(reach: Reach, field: FieldDescriptor, value: float) -> Reach:
    def spoil(message: Any) -> None:
        target = reach(message)
        if field.is_repeated:
            getattr(target, field.name)[:] = [value]
        else:
            setattr(target, field.name, value)

    return spoil
