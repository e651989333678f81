"""Slurm's way to write many hosts in one word: `gpu[1-3,07-09],login` is seven names. Pure."""

from __future__ import annotations

import itertools
import re

MOST = 65_536  # more names than a pool can have is garbage, not a list

_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def expand(text: str) -> tuple[str, ...]:
    """Names in order, leading zeros kept; empty text, `(null)` and `N/A` are none. Raises ValueError for anything else."""
    if text in ("", "(null)", "None", "N/A"):
        return ()
    names: list[str] = []
    for word in _words(text):
        literals = _BRACKET.split(word)
        choices = [(part,) if at % 2 == 0 else _numbers(part) for at, part in enumerate(literals)]
        for combination in itertools.islice(itertools.product(*choices), MOST + 1):
            names.append("".join(combination))
            if len(names) > MOST:
                raise ValueError(f"more than {MOST} hosts")
    if any(_NAME.fullmatch(name) is None for name in names):
        raise ValueError("not a list of hosts")
    return tuple(names)


def _words(text: str) -> list[str]:
    """Parts between commas that stand outside brackets."""
    return re.findall(r"(?:[^,\[]|\[[^\]]*\]?)+", text)


def _numbers(text: str) -> tuple[str, ...]:
    numbers: list[str] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError("not a range of hosts")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MOST:
            raise ValueError("not a range of hosts")
        numbers.extend(str(number).zfill(len(found[1])) for number in range(first, last + 1))
    return tuple(numbers)
