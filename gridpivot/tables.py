"""Figures as people read them: units, dashes for what is unknown, tables without boxes."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table

DASH = "-"


def yes(known: bool | None) -> str:
    """yes, no, or a dash for what is not known."""
    return DASH if known is None else "yes" if known else "no"


def mw(watts: float | None) -> str:
    """Megawatts with two digits; kilowatts below 100 kW."""
    if watts is None:
        return DASH
    return f"{watts / 1e6:.2f} MW" if abs(watts) >= 1e5 else f"{watts / 1e3:.1f} kW"


def hashes(hashrate_hs: float | None) -> str:
    """PH/s, or EH/s from a thousand of them."""
    if hashrate_hs is None:
        return DASH
    return f"{hashrate_hs / 1e18:.2f} EH/s" if hashrate_hs >= 1e18 else f"{hashrate_hs / 1e15:.1f} PH/s"


def age(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def at(moment: datetime | None) -> str:
    """A moment to the second, UTC."""
    return DASH if moment is None else moment.strftime("%Y-%m-%d %H:%M:%SZ")


def usd(value: float | None) -> str:
    """Dollars with two digits."""
    return DASH if value is None else f"{value:,.2f}"


def show(*parts: RenderableType) -> None:
    """Print to standard output; without a terminal the width is that of a wide one, so that nothing is cut."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=200)
    out.print(Group(*parts))


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; columns in `numbers` stand to the right."""
    out = Table(title=title or None, box=None, header_style="bold", pad_edge=False, title_justify="left")
    for column in columns:
        out.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return out
