"""An ePIC machine on the wire: HTTP on the API port, the password inside every write."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.web import WebAnswer, WebPort, WebRequest
from sim.miners.wire import WireMiner

FAN_RPM = 5971
_HASHING = (Mode.LOW, Mode.NORMAL, Mode.TURBO)
_FLOOR, _STEP = "Min Throttle Target", "Throttle Step"


class SimEpic(WireMiner):
    """PowerPlay. `power_tune` offers the algorithm that takes watts, which the one recorded machine did not have."""

    family = "epic"
    factory_password = "letmein"  # noqa: S105 public knowledge

    def __init__(self, *args: Any, power_tune: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.power_tune = power_tune
        normal = self.kind.modes[Mode.NORMAL]
        self.algorithm = "PowerTune" if power_tune else "VoltageOptimizer"
        self.tuner: dict[str, Any] = {
            "Target": round(normal.power_w) if power_tune else int(normal.hashrate_hs / 1e12),
            "Unit": "W" if power_tune else "TH/s",
            _FLOOR: 50,
            _STEP: 5,
            "Optimized": True,
        }
        self.last_error: str | None = None

    def api_protocol(self) -> asyncio.Protocol:
        """HTTP speaks on the API port too."""
        return WebPort(self)

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """cgminer's API is not there."""
        return None

    def web(self, request: WebRequest) -> WebAnswer:
        """The dashboard's page, reads, writes."""
        self.requests += 1
        path = request.path.strip("/")
        if not path:
            return WebAnswer(b"<title>Miner Web Dashboard</title>", headers=(("Content-Type", "text/html"),))
        if request.method == "GET":
            read = getattr(self, f"_get_{path}", None)
            return WebAnswer(status=404) if read is None else WebAnswer(orjson.dumps(read()))
        try:
            asked = orjson.loads(request.body)
            if asked.get("password") != self.password:
                return _said(False, "Incorrect password")
            return self._post(path, asked.get("param"))
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            return _said(False, f"bad request: {error}")

    def _post(self, path: str, asked: Any) -> WebAnswer:
        if path == "miner" and asked in ("Stop", "Autostart"):
            self.machine.command(Mode.SLEEP if asked == "Stop" else self._mode(), self.clock())
            return _said(True)
        if path == "perpetualtune/algo":
            names = {row["algorithm"] for row in self._get_capabilities()["PerpetualTune"]}
            if asked["algo"] not in names:
                return _said(False, f"unknown algorithm {asked['algo']}")
            before = (self.algorithm, self.tuner)
            self.algorithm = asked["algo"]
            unit = "W" if self.algorithm == "PowerTune" else "TH/s"
            settings = {"Target": int(asked["target"]), "Unit": unit, "Optimized": False}
            self.tuner = {**settings, _FLOOR: asked["min_throttle"], _STEP: asked["throttle_step"]}
            try:
                mode = self._mode()
            except ValueError:
                self.algorithm, self.tuner = before
                raise
            if self.machine.mode is not Mode.SLEEP:
                self.machine.command(mode, self.clock())
            return _said(True)
        return _said(False, "unknown command")

    def _mode(self) -> Mode:
        """The machine's highest mode within the tuner's target."""
        target = self.tuner["Target"]
        points = {mode: self.kind.modes[mode] for mode in _HASHING if mode in self.kind.modes}
        if self.algorithm == "PowerTune":
            within = [mode for mode, point in points.items() if point.power_w <= target + 1]
        else:
            within = [mode for mode, point in points.items() if int(point.hashrate_hs / 1e12) <= target]
        if not within:
            raise ValueError("target too low")
        return within[-1]

    def _get_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        megahash, hot = machine.hashrate_hs(now_s) / 1e6, machine.temp_c(now_s)
        board = {
            "Core Clock Avg": 485.0,
            "Hashrate": [megahash / 3, 100.0, 0.8],
            "Input Voltage": 12.6,
            "Input Power": 0.0,
            "Temperature": hot,
        }
        operating = "Idling" if machine.mode is Mode.SLEEP else "Mining"
        return {
            "Software": "PowerPlay-BMS v1.5.13",
            "Hostname": "sim",
            "Fans": {"Fan Mode": {"Auto": {"Idle Speed": 20, "Target Temperature": 60}}, "Fans Speed": 100},
            "Fans Rpm": {"Fans Speed 1": FAN_RPM, "Fans Speed 2": FAN_RPM - 60, "Fans Speed 3": None},
            "HBs": [{**board, "Index": n} for n in (0, 1, 2)],
            "HBStatus": [{"Detected": True, "Enabled": True, "Index": n} for n in (0, 1, 2)],
            "Mining": {"Algorithm": "SHA-256", "Coin": "BTC"},
            "Misc": {"Critical Temp": 100.0, "Locate Miner State": False, "Shutdown Temp": 85.0},
            "PerpetualTune": {"Algorithm": {self.algorithm: self.tuner}, "Running": True},
            "Power Supply Stats": {"Input Power": machine.reported_power_w(now_s), "Input Current": 0.0},
            "PresetInfo": {"Target Power": 3000},
            "Session": {
                "Accepted": machine.accepted_shares(now_s),
                "Active HBs": 3,
                "Average MHs": megahash,
                "Rejected": 0,
                "Submitted": machine.accepted_shares(now_s),
                "Uptime": machine.uptime_s(now_s),
            },
            "Status": {"Last Command": None, "Last Error": self.last_error, "Operating State": operating},
            "Stratum": {"Current Pool": "pool.example:3333", "Current User": "site.worker", "IsPoolConnected": True},
            "StratumConfigs": [{"login": "site.worker", "password": "x", "pool": "stratum+tcp://pool.example:3333"}],
        }

    def _get_capabilities(self) -> dict[str, Any]:
        algorithms = ["VoltageOptimizer", "ChipTune", *(["PowerTune"] if self.power_tune else [])]
        presets = [
            {"clk": 400, "voltage": 12500, "hashrate": p.hashrate_hs / 1e12, "power": int(p.power_w)}
            for p in (self.kind.modes[mode] for mode in _HASHING if mode in self.kind.modes)
        ]
        return {
            "Model": self.kind.model,
            "Model Subtype": "BHB56801",
            "Coins": ["BTC"],
            "Board Serial Numbers": ["SIMBOARD0", "SIMBOARD1", "SIMBOARD2"],
            "Control Board Version": {"cpuSerial": "SIMCPU", "cpuHardware": "sim"},
            "Max HBs": 3,
            "Performance Estimator": {"Chip Count": 110},
            "PerpetualTune": [{"algorithm": name, "name": name, "min": 60, "max": 9000} for name in algorithms],
            "Tune Presets": presets,
        }

    def _get_network(self) -> dict[str, Any]:
        return {"dhcp": {"address": self.host, "mac_address": self.mac, "netmask": "255.255.255.0"}}

    def _get_temps(self) -> list[Any]:
        hot = self.machine.temp_c(self.clock())
        return [{"Data": [hot - 12, hot], "Index": n, "Total": 0.0} for n in (0, 1, 2)]


def _said(result: bool, error: str | None = None) -> WebAnswer:
    return WebAnswer(orjson.dumps({"result": result, "error": error}))
