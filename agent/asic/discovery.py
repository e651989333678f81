"""Where to look, and what was found there: address ranges in, findings out. Pure; `probing` does the looking."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gridpivot.errors import SettingsError
from gridpivot.vocabulary import Reason

MAX_ADDRESSES = 1 << 17  # a /15; more wants a person's word


@dataclass(frozen=True, slots=True)
class Ranges:
    """IPv4 addresses as inclusive spans of integers, ascending and apart."""

    spans: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many addresses."""
        return sum(last - first + 1 for first, last in self.spans)

    def __iter__(self) -> Iterator[str]:
        for first, last in self.spans:
            for number in range(first, last + 1):
                yield str(ipaddress.IPv4Address(number))

    def __contains__(self, host: object) -> bool:
        try:
            number = int(ipaddress.IPv4Address(str(host)))
        except ValueError:
            return False  # a name: nobody knows where it stands without asking
        return any(first <= number <= last for first, last in self.spans)


def parse_ranges(texts: Sequence[str]) -> Ranges:
    """Ranges of `10.0.0.0/18`, `10.0.0.1-10.0.3.254`, `10.0.0.1-254` or single addresses; raises SettingsError.

    Network and broadcast addresses of a CIDR are left out, as no device stands there.
    """
    spans = sorted(_span(text.strip()) for text in texts)
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return Ranges(tuple(joined))


def _span(text: str) -> tuple[int, int]:
    try:
        if "/" in text:
            network = ipaddress.IPv4Network(text, strict=False)
            first, last = int(network.network_address), int(network.broadcast_address)
            return (first + 1, last - 1) if network.prefixlen < 31 else (first, last)
        begin, dash, end = text.partition("-")
        first = int(ipaddress.IPv4Address(begin))
        if not dash:
            return first, first
        last = (first & ~0xFF) + int(end) if end.isdecimal() and int(end) < 256 else int(ipaddress.IPv4Address(end))
    except ValueError as error:
        raise SettingsError(f"{text!r}: {error}; write 10.0.0.0/18, 10.0.0.1-10.0.3.254 or one address") from None
    if last < first:
        raise SettingsError(f"{text!r}: ends before it begins; turn it round")
    return first, last


@dataclass(frozen=True, slots=True)
class Finding:
    """One address that answered. `family` is empty for what is no known miner; None is unknown.

    `mac` in lower case; `power_w` and `hashrate_hs` as the device gave them once.
    """

    host: str
    family: str = ""
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    power_w: float | None = None
    hashrate_hs: float | None = None
    reason: Reason = Reason.NONE
    open_ports: tuple[int, ...] = ()


def parse_neighbours(text: str) -> dict[str, str]:
    """MAC by address out of Linux's /proc/net/arp; incomplete entries (flags 0x0) are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4 and int(fields[2], 16) & 2 and fields[3] != "00:00:00:00:00:00":
            found[fields[0]] = fields[3].lower()
    return found
