"""Miner replies that are not quite JSON: strict first, then one small repair per malformed form, each counted.

Every form here was seen in recordings of real firmware; none is a guess. Bytes come in, a parsed value and the names
of the repairs that were needed come out. What no repair can save raises BadReply and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from gridpivot.errors import BadReply

_STRING = re.compile(r'("(?:[^"\\]|\\.)*")', re.DOTALL)
_NOT_FINITE = re.compile(r"([:\[,]\s*)[-+]?(?:inf(?:inity)?|nan)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Repaired:
    """A parsed reply and the repairs it needed (empty when it was valid JSON)."""

    value: Any
    repairs: tuple[str, ...] = ()


def _outside_strings(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to what stands between string literals only."""
    return "".join(part if index % 2 else change(part) for index, part in enumerate(_STRING.split(text)))


def missing_comma(text: str) -> str:
    """`}{` between the objects of a list (stock Antminer `stats`)."""
    return _outside_strings(text, lambda part: re.sub(r"\}(\s*)\{", r"},\1{", part))


def trailing_comma(text: str) -> str:
    """`,}` and `,]`."""
    return _outside_strings(text, lambda part: re.sub(r",(\s*[}\]])", r"\1", part))


def leading_list_comma(text: str) -> str:
    """`[,{`."""
    return _outside_strings(text, lambda part: re.sub(r"\[(\s*),", r"[\1", part))


def control_characters(text: str) -> str:
    """Raw control characters and newlines inside strings become blanks."""
    return _STRING.sub(lambda match: re.sub(r"[\x00-\x1f]", " ", match.group(0)), text)


def doubled_quote(text: str) -> str:
    """`""temp0"` for `"temp0"`."""
    return re.sub(r'([{,]\s*)""(?=[A-Za-z_])', r'\1"', text)


def not_finite(text: str) -> str:
    """Bare inf and nan become null: unknown, never zero."""
    return _outside_strings(text, lambda part: _NOT_FINITE.sub(r"\1null", part))


def leading_comma(text: str) -> str:
    """A reply that begins with `,"id":1}`."""
    return re.sub(r"^\s*,\s*", "{", text) if text.lstrip().startswith(",") else text


def pair_in_list(text: str) -> str:
    """`"error_code":["329":"..."]` (Whatsminer): a key and value in a list become an object in it."""
    return re.sub(
        r'\[\s*("\d{1,6}"\s*:\s*"[^"\[\]]{0,200}"(?:\s*,\s*"\d{1,6}"\s*:\s*"[^"\[\]]{0,200}")*)\s*\]', r"[{\1}]", text
    )


def invalid_escape(text: str) -> str:
    r"""`\'` and other escapes that JSON does not know lose their backslash."""
    return re.sub(
        r"\\(.)",
        lambda match: match.group(0) if match.group(1) in '"\\/bfnrtu' else match.group(1),
        text,
        flags=re.DOTALL,
    )


REPAIRS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "leading_comma": leading_comma,
        "doubled_quote": doubled_quote,
        "invalid_escape": invalid_escape,
        "control_characters": control_characters,
        "missing_comma": missing_comma,
        "trailing_comma": trailing_comma,
        "leading_list_comma": leading_list_comma,
        "pair_in_list": pair_in_list,
        "not_finite": not_finite,
    }
)


def parse_reply(data: bytes, *, salvage_truncated: bool = False) -> Repaired:
    """Parse one reply of a miner; raises BadReply when it stays unreadable.

    `salvage_truncated` also closes what was cut off. The poller leaves it off, since half a reply is no evidence;
    `decode` turns it on for a person who looks at a recording.
    """
    body = data.rstrip(b"\x00 \r\n\t").lstrip(b"\x00 \r\n\t")
    if not body:
        raise BadReply("empty reply")
    try:
        return Repaired(_structured(orjson.loads(body)))
    except orjson.JSONDecodeError:
        pass
    done: list[str] = []
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
        done.append("encoding")
    for name, repair in REPAIRS.items():
        changed = repair(text)
        if changed != text:
            text = changed
            done.append(name)
    value = _loads(text)
    if value is None and salvage_truncated:
        value = _loads(_closed(text))
        done.append("truncated")
    if value is None:
        raise BadReply(f"not JSON after repairs ({', '.join(done) or 'none applied'}); begins {_glimpse(text)}")
    return Repaired(_structured(value), tuple(done))


def _structured(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        raise BadReply(f"reply is a bare {type(value).__name__}, not an object")
    return value


def _loads(text: str) -> Any:
    try:
        return orjson.loads(text.encode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        return None


def _closed(text: str) -> str:
    """Cut back to the last complete member and close every bracket still open."""
    closers: list[str] = []
    best, best_closers = 0, ""
    position = 0
    for index, part in enumerate(_STRING.split(text)):
        if index % 2 == 0:
            for offset, character in enumerate(part):
                if character == '"':
                    break  # an unfinished string: nothing behind it is complete
                if character in "{[":
                    closers.append("}" if character == "{" else "]")
                elif character in "}]" and closers:
                    closers.pop()
                if character == "," or character in "{[}]":
                    keep = position + offset + (0 if character == "," else 1)
                    best, best_closers = keep, "".join(reversed(closers))
        position += len(part)
    return text[:best] + best_closers


def _glimpse(text: str) -> str:
    return repr(text[:40])
