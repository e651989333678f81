"""What people type: moments such as 2024-08-20T19:00Z, now or +15m. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from gridpivot.durations import seconds
from gridpivot.errors import SettingsError


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
