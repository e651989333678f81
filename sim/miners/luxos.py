"""A LuxOS machine on the wire: joined reads, one session at a time, curtailment and profiles."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.wire import WireMiner, status

VERSION = "2025.4.8.220305-57b389c7"
SESSION_LIFE_S = 60.0
PROFILES = {Mode.LOW: "340MHz", Mode.NORMAL: "default", Mode.TURBO: "690MHz"}


class SimLuxOs(WireMiner):
    """LuxOS, API 3.7."""

    family = "luxos"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._session = ""
        self._session_ends_s = 0.0
        self._atm = True
        self.events: list[dict[str, Any]] = []
        self._profile = PROFILES[Mode.NORMAL]

    @property
    def session_open(self) -> bool:
        """Whether somebody is logged on."""
        return bool(self._session) and self._session_ends_s > self.clock()

    @property
    def atm_enabled(self) -> bool:
        """Whether thermal management governs the profile."""
        return self._atm

    def open_foreign_session(self) -> None:
        """Somebody else logs on and stays."""
        self._session, self._session_ends_s = secrets.token_hex(4), self.clock() + SESSION_LIFE_S

    def close_foreign_session(self) -> None:
        """They log off."""
        self._session = ""

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Single and joined commands; writes need the session's id as first parameter."""
        self.requests += 1
        command = request.get("command")
        if not isinstance(command, str):
            return orjson.dumps(self._error(14, "Invalid command"))
        if "+" in command:
            joined = {name: [self._one(name, "")] for name in command.split("+")}
            return orjson.dumps({**joined, "id": 1})
        return orjson.dumps({**self._one(command, str(request.get("parameter", ""))), "id": 1})

    def _one(self, command: str, parameter: str) -> dict[str, Any]:
        if command in ("curtail", "atmset", "profileset", "logoff"):
            return self._privileged(command, parameter)
        action = getattr(self, f"_do_{command}", None)
        if action is None:
            return self._error(14, f"Invalid command {command}")
        reply: dict[str, Any] = action()
        return reply

    def _said(self, code: int, message: str, **sections: Any) -> dict[str, Any]:
        return {"STATUS": status(code, message, description=f"LUXminer {VERSION}"), **sections}

    def _error(self, code: int, message: str) -> dict[str, Any]:
        return {"STATUS": status(code, message, "E", f"LUXminer {VERSION}")}

    def _do_version(self) -> dict[str, Any]:
        row = {"API": "3.7", "LUXminer": VERSION, "Miner": VERSION.split("-")[0], "Type": self.kind.model}
        return self._said(22, "LUXminer versions", VERSION=[row])

    def _do_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        gigahash = round(machine.hashrate_hs(now_s) / 1e9, 2)
        row = {
            "Accepted": machine.accepted_shares(now_s),
            "Rejected": 0,
            "Elapsed": machine.uptime_s(now_s),
            "GHS 5s": gigahash,
            "GHS 1m": gigahash,
            "GHS av": gigahash,
        }
        return self._said(11, "Summary", SUMMARY=[row])

    def _do_power(self) -> dict[str, Any]:
        return self._said(
            311, "Power usage", POWER=[{"PSU": True, "Watts": int(self.machine.reported_power_w(self.clock()))}]
        )

    def _do_temps(self) -> dict[str, Any]:
        hot = self.machine.temp_c(self.clock())
        rows = [
            {"ID": n, "TEMP": n, "TopLeft": hot, "BottomLeft": hot - 1, "TopRight": 34.0, "BottomRight": 33.0}
            for n in range(3)
        ]
        return self._said(201, "3 Temp(s)", TEMPS=rows)

    def _do_fans(self) -> dict[str, Any]:
        rows = [{"FAN": f"FAN{n + 1}", "ID": n, "RPM": 4200, "Speed": 60} for n in range(4)]
        return self._said(202, "4 Fan(s)", FANS=rows)

    def _do_config(self) -> dict[str, Any]:
        row = {
            "CurtailMode": "Sleep" if self.machine.mode is Mode.SLEEP else "None",
            "IsAtmEnabled": self._atm,
            "IsTuning": False,
            "MACAddr": self.mac,
            "Model": self.kind.model,
            "OS": "LuxOS",
            "Hostname": "sim",
            "IPAddr": self.host,
            "Profile": self._profile,
            "SerialNumber": f"SIM{self.mac.replace(':', '')}",
            "SystemStatus": "Normal",
            "NameplateTHS": self.kind.modes[Mode.NORMAL].hashrate_hs / 1e12,
        }
        return self._said(33, "LUXminer config", CONFIG=[row])

    def _do_profiles(self) -> dict[str, Any]:
        rows = [
            {
                "Profile Name": name,
                "Hashrate": self.kind.modes[mode].hashrate_hs / 1e12,
                "Watts": round(self.kind.modes[mode].power_w),
                "Step": str(step),
                "Frequency": 500,
                "Voltage": 12.0,
                "IsTuned": True,
                "IsDynamic": True,
            }
            for step, (mode, name) in enumerate(PROFILES.items(), start=-1)
            if mode in self.kind.modes
        ]
        return self._said(326, "Profiles", PROFILES=rows)

    def _do_groups(self) -> dict[str, Any]:
        return self._said(319, "Group info", GROUPS=[{"GROUP": 0, "Name": "default", "Quota": 1}])

    def _do_tempctrl(self) -> dict[str, Any]:
        row = {"Mode": "Automatic", "Target": 60.0, "Hot": 75.0, "Dangerous": 85.0}
        return self._said(205, "Temperature control", TEMPCTRL=[row])

    def _do_events(self) -> dict[str, Any]:
        return self._said(357, "Miner Events", EVENTS=self.events)

    def _do_atm(self) -> dict[str, Any]:
        return self._said(339, "ATM configuration values", ATM=[{"Enabled": self._atm}])

    def _do_devs(self) -> dict[str, Any]:
        share = round(self.machine.hashrate_hs(self.clock()) / 3e6, 2)
        rows = [
            {"ASC": n, "ID": n, "Status": "Alive", "MHS 5s": share, "MHS av": share, "Nominal MHS": share}
            for n in range(3)
        ]
        return self._said(9, "3 ASC(s)", DEVS=rows)

    def _do_stats(self) -> dict[str, Any]:
        gigahash = round(self.machine.hashrate_hs(self.clock()) / 1e9, 2)
        head = {"Type": self.kind.model, "Miner": VERSION.split("-")[0]}
        row = {"Elapsed": self.machine.uptime_s(self.clock()), "GHS 5s": gigahash, "GHS av": gigahash, "fan1": 4200}
        return self._said(70, "LUXminer stats", STATS=[head, row])

    def _do_pools(self) -> dict[str, Any]:
        alive = self.machine.pool_alive
        row = {
            "POOL": 0,
            "GROUP": 0,
            "URL": self.machine.pool_url,
            "User": "site.worker",
            "Status": "Alive" if alive else "Dead",
            "Stratum Active": alive,
            "Accepted": self.machine.accepted_shares(self.clock()),
            "Rejected": 0,
            "Quota": 1.0,
        }
        return self._said(7, "1 Pool(s)", POOLS=[row])

    def _do_session(self) -> dict[str, Any]:
        return self._said(
            316, "Session information", SESSION=[{"SessionID": self._session if self.session_open else ""}]
        )

    def _do_logon(self) -> dict[str, Any]:
        if self.session_open:
            return self._error(402, "Another session is active")
        self.open_foreign_session()
        return self._said(316, "Session created", SESSION=[{"SessionID": self._session}])

    def _privileged(self, command: str, parameter: str) -> dict[str, Any]:
        session, _, argument = parameter.partition(",")
        if not self.session_open or not secrets.compare_digest(session, self._session):
            return self._error(401, "Session does not exist or is not valid")
        if command == "logoff":
            self._session = ""
            return self._said(316, "Session terminated")
        if command == "atmset":
            self._atm = argument != "enabled=false"
            return self._said(338, "ATM configuration updated")
        if command == "profileset":
            return self._set_profile(argument)
        if argument not in ("sleep", "wakeup"):
            return self._error(335, f"Invalid curtail mode {argument}")
        self.machine.command(Mode.SLEEP if argument == "sleep" else self._profile_mode(), self.clock())
        return self._said(335, f"Curtail {argument}")

    def _profile_mode(self) -> Mode:
        return next(mode for mode, name in PROFILES.items() if name == self._profile)

    def _set_profile(self, name: str) -> dict[str, Any]:
        mode = next((mode for mode, known in PROFILES.items() if known == name and mode in self.kind.modes), None)
        if mode is None:
            return self._error(329, f"Unknown profile {name}")
        if self._atm:
            return self._error(329, "Profile is governed by ATM")
        self._profile = name
        if self.machine.mode is not Mode.SLEEP:
            self.machine.command(mode, self.clock())
        return self._said(328, "Profile set", PROFILE=[{"Board": -1, "Profile": name}])
