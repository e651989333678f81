"""Any other miner, through pyasic-rs: slow and less sure, so that no machine is invisible. Pure; `foreign` does the I/O.

Named in the inventory, never recognised. The library's `is_mining` is true for want of better knowledge, so a state rests
on the hashrate, and its word alone only tells sleeping from idle. Its yes to a command is no confirmation.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agent.asic.family import (
    ACCEPTED,
    Capabilities,
    Dialogue,
    Family,
    LibraryRequest,
    Login,
    Memory,
    Outcome,
    Reading,
    Request,
    answered,
)
from agent.asic.figures import ABSURD_C, bounded, require_mapping, scaled, text_or_none
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

DATA = LibraryRequest("data", "data")
_UNITS = {"H/s": 1.0, "KH/s": 1e3, "MH/s": 1e6, "GH/s": 1e9, "TH/s": 1e12, "PH/s": 1e15, "EH/s": 1e18}
_SHA256 = "SHA256"
_MODES = {"low": Mode.LOW, "normal": Mode.NORMAL, "high": Mode.TURBO}


class Other(Family):
    """Whatever pyasic-rs can read."""

    name = "other"
    capabilities = Capabilities(
        sleep=True,
        low=False,
        turbo=False,
        watt_limit=True,
        percent=False,
        has_power=False,
        shed_s=120.0,
        wake_s=900.0,
        persists=None,
        cost="unknown; some models answer that they cannot be paused or limited",
        source="assumed at worst: the firmware is unknown",
        connections=12,
    )

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """All data; the library opens as many connections as the firmware wants."""
        return (DATA,)

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Never: this family is chosen, not found."""
        return False

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """A mapping of the library's; nothing else is this family's."""
        return {DATA.name: value} if isinstance(value, Mapping) and "is_mining" in value else {}

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """From the library's own field names and units."""
        if DATA.name not in replies:
            raise BadReply("no data of the library")
        said = require_mapping(replies[DATA.name], "library data")
        hashrate_hs = _hashrate(said.get("hashrate"))
        power_w = scaled(said.get("wattage"))
        if power_w == 0 and hashrate_hs:
            power_w = None
        boards = [row for row in _list(said.get("hashboards")) if isinstance(row, Mapping)]
        fans = [row for row in _list(said.get("fans")) if isinstance(row, Mapping)]
        device = said.get("device_info")
        info: Mapping[str, Any] = device if isinstance(device, Mapping) else {}
        names = (text_or_none(info.get("make")), text_or_none(info.get("model")))
        codes = _codes(said.get("messages"))
        state = _state(said.get("is_mining"), hashrate_hs, codes)
        target = said.get("tuning_target")
        tuning: Mapping[str, Any] = target if isinstance(target, Mapping) else {}
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_hottest(boards, said.get("average_temperature")),
            state=state,
            mode=_mode(state, tuning),
            reason=Reason.FAULT if state is DeviceState.FAULT else Reason.NONE,
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.DEVICE,
            accepted_shares=_shares(said.get("pools")),
            uptime_s=_seconds(said.get("uptime")),
            fan_rpm=max((rpm for row in fans if (rpm := scaled(row.get("rpm"))) is not None), default=None),
            power_limit_w=scaled(tuning.get("value")) if tuning.get("type") == "power" else None,
            model=" ".join(name for name in names if name is not None) or None,
            firmware=text_or_none(said.get("firmware_version")) or text_or_none(info.get("firmware")),
            mac=text_or_none(said.get("mac")),
            serial=text_or_none(said.get("serial_number")),
            pool_url=_pool(said.get("pools")),
            board_serials=tuple(s for row in boards if (s := text_or_none(row.get("serial_number"))) is not None),
            fault_codes=codes,
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Pause and resume; nothing else is common to what the library knows."""
        if mode not in (Mode.SLEEP, Mode.NORMAL):
            return answered(
                Outcome(Reason.UNSUPPORTED, f"a miner of family other cannot be commanded into mode {mode}")
            )
        action = "pause" if mode is Mode.SLEEP else "resume"
        return _order(LibraryRequest(action, action))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets a power limit [W] where the library can."""
        return _order(LibraryRequest("limit_power", "limit_power", float(int(limit_w))))


def _order(request: LibraryRequest) -> Dialogue:
    reply = require_mapping((yield request), request.action)
    if not reply.get("supported"):
        return Outcome(Reason.UNSUPPORTED, f"pyasic-rs cannot {request.action} this miner")
    if not reply.get("said"):
        return Outcome(Reason.FAILED, f"pyasic-rs was refused to {request.action} this miner", retry=True)
    return ACCEPTED


def _state(mining: Any, hashrate_hs: float | None, codes: tuple[str, ...]) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if hashrate_hs > 0:
        return DeviceState.STOPPING if mining is False else DeviceState.HASHING
    if mining is False:
        return DeviceState.SLEEPING
    return DeviceState.FAULT if codes else DeviceState.IDLE


def _mode(state: DeviceState, tuning: Mapping[str, Any]) -> Mode:
    if state in (DeviceState.SLEEPING, DeviceState.STOPPING):
        return Mode.SLEEP
    if tuning.get("type") == "mode":
        return _MODES.get(str(tuning.get("value")).lower(), Mode.UNKNOWN)
    return Mode.NORMAL if state is DeviceState.HASHING else Mode.UNKNOWN


def _hashrate(raw: Any) -> float | None:
    """H/s; a rate of another algorithm than SHA-256 is no bitcoin mining and stays unknown."""
    if not isinstance(raw, Mapping) or raw.get("algo", _SHA256) != _SHA256:
        return None
    scale = _UNITS.get(str(raw.get("unit")))
    return None if scale is None else scaled(raw.get("value"), scale)


def _hottest(boards: list[Mapping[str, Any]], average: Any) -> float | None:
    keys = ("outlet_chip_temperature", "inlet_chip_temperature", "board_temperature")
    known = [t for row in boards for key in keys if (t := bounded(row.get(key), 1, ABSURD_C)) is not None]
    return max(known, default=bounded(average, 1, ABSURD_C))


def _seconds(raw: Any) -> float | None:
    return raw.total_seconds() if isinstance(raw, timedelta) else scaled(raw)


def _list(raw: Any) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _pools(raw: Any) -> list[Mapping[str, Any]]:
    groups = [group for group in _list(raw) if isinstance(group, Mapping)]
    return [pool for group in groups for pool in _list(group.get("pools")) if isinstance(pool, Mapping)]


def _shares(raw: Any) -> int | None:
    """Over all pools; None when none of them tells."""
    known = [shares for pool in _pools(raw) if isinstance(shares := pool.get("accepted_shares"), int)]
    return sum(known) if known else None


def _pool(raw: Any) -> str | None:
    pools = _pools(raw)
    active = next((pool for pool in pools if pool.get("active")), None)
    chosen = active or next((pool for pool in pools if pool.get("alive")), None)
    return None if chosen is None else text_or_none(chosen.get("url"))


def _codes(raw: Any) -> tuple[str, ...]:
    """Codes and words of what the library calls errors; its other messages are no faults."""
    errors = [row for row in _list(raw) if isinstance(row, Mapping) and "error" in str(row.get("severity", "")).lower()]
    return tuple(f"{row.get('code')} {text_or_none(row.get('message')) or ''}".rstrip() for row in errors)[:16]
