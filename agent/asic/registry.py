"""The families this agent knows: one line each, the most particular first, since recognition asks in this order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.asic.families.antminer import Antminer
from agent.asic.families.auradine import Auradine
from agent.asic.families.avalon import Avalon
from agent.asic.families.braiins import Braiins
from agent.asic.families.epic import Epic
from agent.asic.families.luxos import LuxOs
from agent.asic.families.other import Other
from agent.asic.families.vnish import VNish
from agent.asic.families.whatsminer import Whatsminer
from agent.asic.families.whatsminer_v3 import WhatsminerV3
from agent.asic.family import Capabilities, Family

_ALL: tuple[Family, ...] = (
    LuxOs(),
    Braiins(),
    VNish(),
    Epic(),
    WhatsminerV3(),
    Whatsminer(),
    Auradine(),
    Avalon(),
    Antminer(),
    Other(),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})
CAPABILITIES: Mapping[str, Capabilities] = MappingProxyType({name: f.capabilities for name, f in FAMILIES.items()})
