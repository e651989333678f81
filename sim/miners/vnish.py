"""A VNish machine on the wire: its JSON API on the web port, cgminer's replies on the other.

Reading is open, writing wants a token, with or without `Bearer` (clients differ). The write of settings answers the
same whether or not the preset was taken, as the firmware is said to.
"""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.web import WebAnswer, WebRequest
from sim.miners.wire import WireMiner, status

VERSION = "1.2.7"
POOL = "pool.example:3333"
FAN_RPM = 5940
_HASHING = (Mode.LOW, Mode.NORMAL, Mode.TURBO)


class SimVNish(WireMiner):
    """VNish 1.2.7. `ignores_presets` makes it answer writes and change nothing; `needs_restart` applies them late."""

    family = "vnish"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tokens: set[str] = set()
        self.unlocks = 0
        self.restarts = 0
        self.ignores_presets = False
        self.needs_restart = False
        self.failed = False
        self.presets = {str(int(self.kind.modes[m].power_w)): m for m in _HASHING if m in self.kind.modes}
        self.preset = str(int(self.kind.modes[Mode.NORMAL].power_w))
        self.overclock: dict[str, Any] = {"modded_psu": False, "globals": {"volt": 1270, "freq": 555}}

    # -- what it does ----------------------------------------------------------------------------------------------

    def _state(self) -> str:
        hashing = self.machine.hashrate_hs(self.clock()) > 0
        if self.failed:
            return "failure"
        if self.machine.mode is Mode.SLEEP:
            return "shutting-down" if hashing else "stopped"
        return "mining" if hashing else "initializing"

    def _start(self) -> None:
        self.machine.command(self.presets[self.preset], self.clock())

    # -- web server ------------------------------------------------------------------------------------------------

    def web(self, request: WebRequest) -> WebAnswer:
        """The page and the API."""
        self.requests += 1
        if request.path == "/":
            return WebAnswer(b"<title>AnthillOS</title>", headers=(("Content-Type", "text/html"),))
        path = request.path.removeprefix("/api/v1/")
        if path == "unlock":
            return self._unlock(request.body)
        if request.method == "GET":
            read = getattr(self, f"_get_{path.replace('/', '_').replace('-', '_')}", None)
            return WebAnswer(b'{"err":"not found"}', 404) if read is None else WebAnswer(orjson.dumps(read()))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return WebAnswer(b'{"err":"locked"}', 401)
        return self._post(path, request.body)

    def _unlock(self, body: bytes) -> WebAnswer:
        self.unlocks += 1
        if orjson.loads(body).get("pw") != self.password:
            return WebAnswer(b'{"err":"invalid password"}', 401)
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return WebAnswer(orjson.dumps({"token": token}))

    def _post(self, path: str, body: bytes) -> WebAnswer:
        match path:
            case "mining/stop" | "mining/pause":
                self.machine.command(Mode.SLEEP, self.clock())
            case "mining/start" | "mining/resume":
                self.failed = False
                self._start()
            case "mining/restart":
                self.restarts += 1
                self._start()
            case "settings":
                return self._settle(orjson.loads(body))
            case _:
                return WebAnswer(b'{"err":"not found"}', 404)
        return WebAnswer(b'{"success":true}')

    def _settle(self, wanted: dict[str, Any]) -> WebAnswer:
        overclock = wanted.get("miner", {}).get("overclock", {})
        preset = str(overclock.get("preset"))
        if preset in self.presets and not self.ignores_presets:
            self.preset = preset
            self.overclock = {key: value for key, value in overclock.items() if key != "preset"}
            if self.machine.mode is not Mode.SLEEP and not self.needs_restart:
                self._start()
        return WebAnswer(orjson.dumps({"restart_required": self.needs_restart, "reboot_required": False}))

    def _get_status(self) -> dict[str, Any]:
        return {"miner_state": self._state(), "miner_state_time": self._state_time(), "find_miner": False}

    def _state_time(self) -> int:
        return self.machine.uptime_s(self.clock())

    def _get_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        rate_hs, watts, hot = machine.hashrate_hs(now_s), machine.reported_power_w(now_s), machine.temp_c(now_s)
        pool = {"id": 0, "url": POOL, "pool_type": "UserPool", "user": "site.worker", "status": "active"}
        fee = {"id": 1, "url": "DevFee", "pool_type": "DevFee", "user": "DevFee", "status": "active", "accepted": 9}
        chain = {
            "power_consumption": round(watts / 3),
            "hashrate_rt": rate_hs / 3e9,
            "hashrate_ideal": rate_hs / 3e9,
            "chip_temp": {"min": int(hot) - 10, "max": int(hot)},
            "pcb_temp": {"min": int(hot) - 25, "max": int(hot) - 15},
            "status": {"state": "failure", "description": "chain break"} if self.failed else {"state": "mining"},
        }
        return {
            "miner": {
                "miner_status": {"miner_state": self._state(), "miner_state_time": self._state_time()},
                "miner_type": f"{self.kind.model} (Vnish {VERSION})",
                "hr_stock": self.kind.modes[Mode.NORMAL].hashrate_hs / 1e9,
                "average_hashrate": rate_hs / 1e12,
                "instant_hashrate": rate_hs / 1e12,
                "hr_realtime": rate_hs / 1e9,
                "hr_average": rate_hs / 1e9,
                "chip_temp": {"min": int(hot) - 10, "max": int(hot)},
                "pcb_temp": {"min": int(hot) - 25, "max": int(hot) - 15},
                "power_consumption": int(watts),
                "power_usage": int(watts),
                "pools": [{**pool, "accepted": machine.accepted_shares(now_s), "rejected": 0}, fee],
                "cooling": {"fan_num": 4, "fans": [{"id": n, "rpm": FAN_RPM, "status": "ok"} for n in range(4)]},
                "chains": [{**chain, "id": n} for n in (1, 2, 3)],
            }
        }

    def _get_info(self) -> dict[str, Any]:
        minutes = self._state_time() // 60
        network = {"mac": self.mac, "dhcp": True, "ip": self.host, "hostname": "sim"}
        return {
            "miner": self.kind.model,
            "model": "sim",
            "fw_name": "Vnish",
            "fw_version": VERSION,
            "hr_measure": "GH/s",
            "system": {"network_status": network, "uptime": f"{minutes // 60}:{minutes % 60:02}"},
            "serial": "N/A",
        }

    def _get_perf_summary(self) -> dict[str, Any]:
        return {"current_preset": self._preset(self.preset), "preset_switcher": {"enabled": False}}

    def _preset(self, name: str) -> dict[str, Any]:
        return {"name": name, "pretty": f"{name} watt", "status": "tuned", "modded_psu_required": False}

    def _get_autotune_presets(self) -> list[dict[str, Any]]:
        modded = {**self._preset("9990"), "modded_psu_required": True}
        return [{**self._preset("disabled"), "status": "untuned"}, *map(self._preset, self.presets), modded]

    def _get_settings(self) -> dict[str, Any]:
        return {"miner": {"overclock": {**self.overclock, "preset": self.preset}, "misc": {}, "pools": []}}

    def _get_chains(self) -> list[Any]:
        return []

    # -- cgminer port ----------------------------------------------------------------------------------------------

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Single reads; `version` is refused, as recorded."""
        self.requests += 1
        now_s, gigahash = self.clock(), self.machine.hashrate_hs(self.clock()) / 1e9
        uptime_s, hot = self._state_time(), int(self.machine.temp_c(now_s))
        match request.get("command"):
            case "summary":
                rows: dict[str, Any] = {"SUMMARY": [{"Elapsed": uptime_s, "GHS 5s": gigahash, "GHS av": gigahash}]}
            case "stats":
                head = {"Type": f"{self.kind.model} (Vnish {VERSION})", "Miner": "0.0.0", "Cgminer": VERSION}
                row: dict[str, Any] = {
                    "Elapsed": uptime_s,
                    "GHS 5s": f"{gigahash:.2f}",
                    "GHS av": gigahash,
                    "fan_num": 4,
                    "total_rate": gigahash,
                    "total_rateideal": gigahash,
                    "state": self._state(),
                }
                for n in (1, 2, 3):
                    row |= {f"chain_rate{n}": gigahash / 3, f"chain_acn{n}": 65, f"fan{n}": FAN_RPM}
                    row |= {f"temp_chip{n}": f"{hot}-{hot - 10}-{hot}-{hot}", f"temp{n}": hot - 15, f"temp2_{n}": hot}
                rows = {"STATS": [head, row]}
            case "pools":
                rows = {"POOLS": [{"POOL": 0, "URL": POOL, "User": "site.worker", "Status": "Alive"}]}
            case _:
                return orjson.dumps({"STATUS": status(0, "Invalid command", "E")})
        return orjson.dumps({"STATUS": status(11, "ok"), **rows, "id": 1})
