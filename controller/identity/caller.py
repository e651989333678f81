"""Who calls: name, role, where from; and what each role may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gridpivot.vocabulary import Role

_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whom the controller has recognised. `origin` is the address of the connection."""

    name: str
    role: Role
    origin: str = ""

    def may(self, least: Role) -> bool:
        """Whether the role covers what only `least` and above may do."""
        return _RANK[self.role] >= _RANK[least]
