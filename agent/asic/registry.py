"""The families this agent knows: one line each, the most particular first, since recognition asks in this order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.asic.antminer import Antminer
from agent.asic.auradine import Auradine
from agent.asic.avalon import Avalon
from agent.asic.braiins import Braiins
from agent.asic.epic import Epic
from agent.asic.family import Capabilities, Family
from agent.asic.luxos import LuxOs
from agent.asic.other import Other
from agent.asic.vnish import VNish
from agent.asic.whatsminer import Whatsminer
from agent.asic.whatsminer_v3 import WhatsminerV3

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
