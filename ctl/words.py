"""What people type: durations such as 30m, moments such as 2024-08-20T19:00Z or +15m. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gridpivot.errors import SettingsError

UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """A duration [s]: 90s, 30m, 1.5h, 2d, or several such as 1h30m; raises SettingsError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        raise SettingsError(f"duration {text!r}: write it as 90s, 30m, 2h or 1h30m")
    return sum(float(number) * UNIT_S[unit] for number, unit in parts)


def moment_unix_ms(text: str, now: datetime) -> int:
    """A moment [ms since the Unix epoch]: RFC 3339 (no offset = UTC), `now`, or +duration; raises SettingsError."""
    if text == "now":
        return round(now.timestamp() * 1000)
    if text.startswith("+"):
        return round((now.timestamp() + seconds(text[1:])) * 1000)
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"time {text!r}: write it as 2024-08-20T19:00Z, now or +15m") from error
    return round((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
