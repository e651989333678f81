"""What a host process is told, as a file: the controller's address, identities, the sites it plays."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What a host process is told: where the controller is, where identities lie, which sites it plays."""

    address: str
    directory: Path
    parent_pid: int
    speed: float
    sites: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """For the child."""
        raw = {"address": self.address, "directory": str(self.directory), "parent_pid": self.parent_pid}
        path.write_text(json.dumps({**raw, "speed": self.speed, "sites": self.sites}), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> HostSpec:
        """From the parent."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(raw["address"], Path(raw["directory"]), raw["parent_pid"], raw["speed"], raw["sites"])
