"""Figures out of firmware replies: finite numbers, counts, sections, clean text. Pure; None is unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gridpivot.errors import BadReply

ABSURD_C = 10_000.0  # parsers pass hot nonsense on up to here, so that belief refuses and counts it


def number(value: Any) -> float | None:
    """A finite number from what firmware sends (int, float, "12.5", "1,234"), else None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        result = float(value.replace(",", "")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def scaled(value: Any, scale: float = 1.0) -> float | None:
    """A finite number times `scale`, else None. Whether it is plausible is for `belief` to say, which counts."""
    result = number(value)
    return None if result is None else result * scale


def bounded(value: Any, low: float, high: float, scale: float = 1.0) -> float | None:
    """A number times `scale`, inside [low, high]; outside it is unknown rather than believed."""
    result = number(value)
    if result is None:
        return None
    result *= scale
    return result if low <= result <= high else None


def count(value: Any) -> int | None:
    """A non-negative whole number below 2**53, else None."""
    result = bounded(value, 0, 2**53)
    return None if result is None else int(result)


def first(reply: Any, section: str, index: int = 0) -> Mapping[str, Any] | None:
    """Object `index` of a section (`SUMMARY`, `STATS`, ...), None when it is not there."""
    if not isinstance(reply, Mapping):
        return None
    rows = reply.get(section)
    if isinstance(rows, list) and len(rows) > index and isinstance(rows[index], Mapping):
        row: Mapping[str, Any] = rows[index]
        return row
    return None


def status_of(reply: Any) -> tuple[str, int | None, str]:
    """(`S`, `E`, ..., code, message) of a cgminer-style reply; empty when it carries none."""
    if not isinstance(reply, Mapping):
        return "", None, ""
    row = first(reply, "STATUS")
    if row is None:
        row = reply
    code = number(row.get("Code"))
    message = row.get("Msg")
    return str(row.get("STATUS", "")), None if code is None else int(code), message if isinstance(message, str) else ""


def text_or_none(value: Any) -> str | None:
    """A non-empty string of sane length, control characters removed."""
    if not isinstance(value, str):
        return None
    clean = value.strip("' \t")
    if not clean.isprintable():
        clean = "".join(character for character in clean if character.isprintable())
    clean = clean[:64]
    return clean or None


def require_mapping(reply: Any, what: str) -> Mapping[str, Any]:
    """The reply as a mapping; raises BadReply naming `what` otherwise."""
    if not isinstance(reply, Mapping):
        raise BadReply(f"{what}: expected an object, got {type(reply).__name__}")
    return reply
