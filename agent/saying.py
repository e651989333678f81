"""How parts of the agent say what happened: an event for the controller, the log and whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gridpivot.vocabulary import EventKind


class Say(Protocol):
    """Says an event upwards."""

    def __call__(
        self,
        kind: EventKind,
        message: str,
        figures: Mapping[str, float] | None = None,
        *,
        actor: str = "",
        order_id: str = "",
    ) -> None:
        """Say it."""
        ...
