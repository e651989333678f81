"""The families this agent knows: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.asic.antminer import Antminer
from agent.asic.family import Family
from agent.asic.luxos import LuxOs
from agent.asic.whatsminer import Whatsminer

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "whatsminer": Whatsminer(),
        "luxos": LuxOs(),
        "antminer": Antminer(),
    }
)
