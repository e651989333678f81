"""Time zones from the pinned tzdata package, so that every host reads a local clock alike.

`ZoneInfo(name)` takes the host's own table first, and hosts have old ones: Paraguay stopped changing its clocks in
October 2024, and a table from before that moves every Asuncion winter by an hour.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from gridpivot.errors import SettingsError


@cache
def zone(name: str) -> ZoneInfo:
    """The IANA zone of this name; raises SettingsError for a name that is none."""
    parts = name.split("/")
    if name and all(part and not part.startswith(".") and "\\" not in part for part in parts):
        resource = files("tzdata.zoneinfo").joinpath(*parts)
        try:
            with resource.open("rb") as table:
                return ZoneInfo.from_file(table, key=name)
        except (OSError, ValueError):
            pass
    raise SettingsError(f"{name!r} is not a time zone; use a name such as America/Chicago")
