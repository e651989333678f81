"""A Canaan Avalon on the wire: cgminer whose figures travel packed in one string, and a switch that is dated ahead."""

from __future__ import annotations

import time
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.wire import WireMiner, status

DELIVERED = 0.94  # of the wall's watts behind the supply, about what the recorded pairs of PS figures show
VERSION = "25052801_14a19a2"
_WORK = {0: Mode.LOW, 1: Mode.NORMAL, 2: Mode.TURBO}


class SimAvalon(WireMiner):
    """Avalon. `wall_s` is the device's own clock; `silent_softon` closes without a word, as some firmware does.

    A model named Q, Nano or Mini has three work modes. `knows_estats` off is a firmware with `stats` alone.
    """

    family = "avalon"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wall_s = time.time
        self.silent_softon = False
        self.joins = True
        self.knows_estats = True
        self.errors = {"ECHU": "0 0 0", "ECMM": "0"}
        self.orders: list[str] = []
        self._work = 1
        self._due: tuple[float, Mode] | None = None
        self._on_s = 0

    @property
    def levelled(self) -> bool:
        """Whether this model has work modes."""
        return any(word in self.kind.model for word in ("Q", "Nano", "Mini"))

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Reads, joined ones too, and `ascset`."""
        self.requests += 1
        self.settle()
        command, parameter = str(request.get("command", "")), request.get("parameter")
        if command == "ascset":
            text = ",".join(map(str, parameter)) if isinstance(parameter, list) else str(parameter)
            return self._set(text)
        if "+" in command:
            if not self.joins:
                return self._packed_status(14, "Invalid command", "E")
            parts = {name: [self._read(name)] for name in command.split("+")}
            return orjson.dumps({**parts, "id": 1})
        return orjson.dumps(self._read(command))

    def settle(self) -> None:
        """Carry out a switch whose time has come."""
        if self._due is not None and self.wall_s() >= self._due[0]:
            self.machine.command(self._due[1], self.clock())
            self._due = None

    def _read(self, command: str) -> dict[str, Any]:
        read = getattr(self, f"_read_{command}", None)
        if read is None or (command == "estats" and not self.knows_estats):
            return {"STATUS": self._status(14, "Invalid command", "E"), "id": 1}
        reply: dict[str, Any] = read()
        return {**reply, "id": 1}

    def _status(self, code: int, message: str, letter: str = "S") -> list[dict[str, Any]]:
        rows = status(code, message, letter)
        rows[0]["When"] = int(self.wall_s())
        return rows

    def _packed_status(self, code: int, message: str, letter: str) -> bytes:
        return orjson.dumps({"STATUS": self._status(code, message, letter), "id": 1})

    def _read_version(self) -> dict[str, Any]:
        short = self.kind.model.removeprefix("Avalon").removeprefix("Miner").strip()
        row = {
            "API": "3.7",
            "CGMiner": "4.11.1",
            "DNA": "0201" + self.mac.replace(":", "").lower(),
            "HWTYPE": "MM4v1_X3",
            "LVERSION": VERSION,
            "MAC": self.mac.replace(":", "").lower(),
            "MODEL": short,
            "PROD": self.kind.model,
            "SWTYPE": "MM319",
        }
        return {"STATUS": self._status(22, "CGMiner versions"), "VERSION": [row]}

    def _read_devdetails(self) -> dict[str, Any]:
        row = {"DEVDETAILS": 0, "Driver": "avalon", "ID": 0, "Kernel": "", "Model": "", "Name": "AVALON"}
        return {"STATUS": self._status(69, "Device Details"), "DEVDETAILS": [row]}

    def _megahash(self) -> float:
        return round(self.machine.hashrate_hs(self.clock()) / 1e6, 2)

    def _read_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        megahash = self._megahash()
        row = {
            "Elapsed": machine.uptime_s(now_s),
            "MHS av": megahash,
            "MHS 5s": megahash,
            "MHS 1m": megahash,
            "Accepted": machine.accepted_shares(now_s),
            "Rejected": 0,
        }
        return {"STATUS": self._status(11, "Summary"), "SUMMARY": [row]}

    def _read_devs(self) -> dict[str, Any]:
        megahash = self._megahash()
        row = {"ASC": 0, "Name": "AVALON", "ID": 0, "Status": "Alive", "MHS 5s": megahash, "MHS 1m": megahash}
        return {"STATUS": self._status(9, "1 ASC(s)"), "DEVS": [{**row, "MHS av": megahash}]}

    def _read_pools(self) -> dict[str, Any]:
        alive = self.machine.pool_alive
        row = {
            "POOL": 0,
            "URL": self.machine.pool_url,
            "Status": "Alive" if alive else "Dead",
            "User": "site.worker",
            "Accepted": self.machine.accepted_shares(self.clock()),
            "Rejected": 0,
            "Stratum Active": alive,
        }
        return {"STATUS": self._status(7, "1 Pool(s)"), "POOLS": [row]}

    def _read_stats(self) -> dict[str, Any]:
        row = {"STATS": 0, "ID": "AVA100", "Elapsed": self.machine.uptime_s(self.clock()), "MM Count": 1}
        return {"STATUS": self._status(70, "CGMiner stats"), "STATS": [{**row, "MM ID0": self._packed()}]}

    _read_estats = _read_stats

    def _packed(self) -> str:
        now_s, machine = self.clock(), self.machine
        gigahash, hot = machine.hashrate_hs(now_s) / 1e9, round(machine.temp_c(now_s))
        off = machine.mode is Mode.SLEEP
        wall_w = machine.reported_power_w(now_s)
        delivered_w = round(wall_w * DELIVERED)
        limit_w = round(self.kind.modes[machine.mode if not off else Mode.NORMAL].power_w)
        pairs = {
            "Ver": f"{self.kind.model.split()[-1]}-83-{VERSION}",
            "DNA": "0201" + self.mac.replace(":", "").lower(),
            "SYSTEMSTATU": f"Work: In {'Idle' if off else 'Work'}, Hash Board: 3 ",
            "Elapsed": machine.uptime_s(now_s),
            "HW": 2735,
            "Temp": 30,
            "TMax": 0 if off else hot,
            "TAvg": 0 if off else hot - 10,
            "HBITemp": hot - 20,
            "HBOTemp": hot - 12,
            **{f"Fan{n}": 0 if off else 5300 + n for n in range(1, 5)},
            "PS": f"0 1214 1316 242 {delivered_w} 1320 {round(wall_w)}",
            "WALLPOWER": round(wall_w),
            "GHSspd": f"{gigahash:.2f}",
            "GHSmm": f"{self.kind.modes[Mode.NORMAL].hashrate_hs / 1e9:.2f}",
            "GHSavg": f"{gigahash:.2f}",
            "MGHS": " ".join(f"{gigahash / 3:.2f}" for _ in range(3)),
            "MTmax": " ".join("0" if off else str(hot) for _ in range(3)),
            "MTavg": " ".join("0" if off else str(hot - 10) for _ in range(3)),
            "Led": 0,
            "SoftOnTime": self._on_s,
            "SoftOFF": 4 if off else 0,
            **self.errors,
            "WORKMODE": self._work,
            "MPO": limit_w,
        }
        return " ".join(f"{key}[{value}]" for key, value in pairs.items())

    def _set(self, text: str) -> bytes | None:
        """`0,softoff,1:<unix>`, `0,softon,1:<unix>`, `0,workmode,set,N`, `0,worklevel,set,N`."""
        self.orders.append(text)
        parts = text.split(",")
        word = parts[1] if len(parts) > 2 else ""
        if word in ("softoff", "softon"):
            kind, _, at = parts[2].partition(":")
            if kind != "1" or not at.isdecimal() or not 0 <= int(at) - self.wall_s() + 1 <= 3600:
                return self._packed_status(120, f"ASC 0 set failed: {word} invalid time", "E")
            awake = _WORK[self._work] if self.levelled else Mode.NORMAL
            self._due = (float(at), Mode.SLEEP if word == "softoff" else awake)
            if word == "softon":
                self._on_s = int(at)
                if self.silent_softon:
                    return None
            return self._packed_status(118, f"ASC 0 set info: success {word}:{at}", "I")
        if word in ("workmode", "worklevel") and parts[2:3] == ["set"] and parts[3:4] in (["0"], ["1"], ["2"]):
            if not self.levelled:
                return self._packed_status(120, f"ASC 0 set failed: {word}", "E")
            if word == "workmode":
                self._work = int(parts[3])
                if self._due is not None and self._due[1] is not Mode.SLEEP:
                    self._due = (self._due[0], _WORK[self._work])
                elif self.machine.mode is not Mode.SLEEP:
                    self.machine.command(_WORK[self._work], self.clock())
            return self._packed_status(119, "ASC 0 set OK", "S")
        return self._packed_status(120, "ASC 0 set failed: Invalid parameter", "E")
