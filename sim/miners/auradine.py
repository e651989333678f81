"""An Auradine Teraflux on the wire: gcminer single reads on one port, FluxOS pages behind a token on another."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.web import WebAnswer, WebRequest
from sim.miners.wire import WireMiner, status

_RPC = "GCMiner-2024-06.11-sim"
_WEB = "FluxOS-2024-06.11-sim"
VERSION = "2024-06.11"


class SimAuradine(WireMiner):
    """Auradine. `expire_tokens` makes the web server forget who signed in; `lamp` is the front panel's code."""

    family = "auradine"
    username = "admin"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lamp = (2, "Normal")
        self.tokens_given = 0
        self._tokens: set[str] = set()
        self._word = "normal"
        self._limit_w: int | None = None

    def expire_tokens(self) -> None:
        """Forget every token, as a reboot would."""
        self._tokens.clear()

    def _model(self) -> str:
        return self.kind.model.removeprefix("Auradine ")

    # -- 4028 ------------------------------------------------------------------------------------------------------

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Single reads only."""
        self.requests += 1
        command = request.get("command")
        read = getattr(self, f"_read_{command}", None) if isinstance(command, str) else None
        if read is None:
            return orjson.dumps({"STATUS": status(14, "Invalid command", "E", _RPC), "id": 1})
        return orjson.dumps(read())

    def _read_version(self) -> dict[str, Any]:
        return {
            "STATUS": status(22, "GCMiner versions", "S", _RPC),
            "VERSION": [{"API": "1.0", "GCMiner": "0.5"}],
            "id": 1,
        }

    def _read_devdetails(self) -> dict[str, Any]:
        rows = [
            {"DEVDETAILS": n, "ID": n, "Name": "ASICBoard", "Driver": "", "Model": self._model()} for n in (1, 2, 3)
        ]
        return {"STATUS": status(69, "Device Details", "S", _RPC), "DEVDETAILS": rows, "id": 1}

    def _read_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        megahash = machine.hashrate_hs(now_s) / 1e6
        row = {
            "Accepted": machine.accepted_shares(now_s),
            "Elapsed": machine.uptime_s(now_s),
            "MHS 15m": megahash,
            "MHS 1m": megahash,
            "MHS 5s": megahash,
            "MHS av": megahash,
            "Rejected": 0,
        }
        return {"STATUS": status(11, "Summary", "S", _RPC), "SUMMARY": [row], "id": 1}

    def _read_devs(self) -> dict[str, Any]:
        now_s = self.clock()
        share, hot = self.machine.hashrate_hs(now_s) / 3e6, self.machine.temp_c(now_s)
        rows = [
            {
                "DEV": n,
                "Enabled": True,
                "ID": n,
                "MHS 5s": share,
                "Name": "ASICBoard",
                "Status": "Alive",
                "Temperature": hot - 3 + n,
            }
            for n in (1, 2, 3)
        ]
        return {"STATUS": status(9, "3 Dev(s)", "S", _RPC), "DEVS": rows, "id": 1}

    def _read_asccount(self) -> dict[str, Any]:
        return {
            "STATUS": status(104, "ASC count", "S", _WEB),
            "ASCCount": [{"AsicCount": 396, "BoardCount": 3}],
            "id": 1,
        }

    def _read_pools(self) -> dict[str, Any]:
        alive = self.machine.pool_alive
        row = {
            "POOL": 0,
            "Priority": 0,
            "Status": "Alive" if alive else "Dead",
            "Stratum Active": alive,
            "URL": self.machine.pool_url,
            "User": "site.worker",
            "Accepted": self.machine.accepted_shares(self.clock()),
            "Rejected": 0,
        }
        return {"STATUS": status(7, "1 Pool(s)", "S", _RPC), "POOLS": [row], "id": 1}

    # -- 8080 ------------------------------------------------------------------------------------------------------

    def web(self, request: WebRequest) -> WebAnswer:
        """`POST /token` for anybody with the password, everything else with a Token header."""
        page = request.path.strip("/")
        try:
            body = orjson.loads(request.body) if request.body else {}
        except orjson.JSONDecodeError:
            return WebAnswer(status=400)
        if page == "token" and request.method == "POST":
            return self._sign_in(body)
        if request.headers.get("token", "") not in self._tokens:
            return WebAnswer(_said("Token", [], 401, "Invalid token", "E"), 401)
        if page == "mode" and request.method == "POST":
            return WebAnswer(self._set_mode(body))
        read = getattr(self, f"_page_{page}", None)
        return WebAnswer(status=404) if read is None else WebAnswer(read())

    def _sign_in(self, body: dict[str, Any]) -> WebAnswer:
        if body.get("user") != self.username or body.get("password") != self.password:
            return WebAnswer(_said("Token", [], 401, "Invalid user or password", "E"), 401)
        token = secrets.token_hex(16)
        self._tokens.add(token)
        self.tokens_given += 1
        return WebAnswer(_said("Token", [{"Token": token}], 700, "Token"))

    def _page_mode(self) -> bytes:
        asleep = self.machine.mode is Mode.SLEEP
        row: dict[str, Any] = {"Mode": self._word, "Sleep": "on" if asleep else "off"}
        if self._limit_w is not None:
            row["Power"] = self._limit_w
        told = f"Operating mode: '{self._word}', sleep: '{str(asleep).lower()}'"
        return _said("Mode", [row], 540, told)

    def _page_psu(self) -> bytes:
        watts = self.machine.reported_power_w(self.clock())
        row = {"PowerIn": f"{watts:.2f}W", "PowerOut": f"{watts * 0.95:.2f}W", "PoutMax": "3452.00W", "Vin": "245.00V"}
        return _said("PSU", [{**row, "FanSpeed1": "4052.00 RPM"}], 570, "PSU status")

    def _page_fan(self) -> bytes:
        rows = [{"ID": n, "Max": 7700, "Speed": 7000 + n, "Target": 7000} for n in (1, 2, 3, 4)]
        return _said("Fan", rows, 510, "Total fans: 4")

    def _page_led(self) -> bytes:
        return _said("LED", [{"Code": self.lamp[0], "LED1": 1, "LED2": 1, "Msg": self.lamp[1]}], 530, "Total LEDs 2")

    def _page_temperature(self) -> bytes:
        hot = self.machine.temp_c(self.clock())
        boards = [
            {
                "ID": n,
                "Name": f"Hash Board {n}",
                "BoardTemp": [{"ID": 0, "Temperature": hot - 10}],
                "ChipTemp": [{"ID": 0, "Temperature": hot}],
            }
            for n in (1, 2, 3)
        ]
        return _said("Temperature", boards, 590, "System temperature")

    def _page_ipreport(self) -> bytes:
        row = {
            "SerialNo": "SIM" + self.mac.replace(":", ""),
            "HBSerialNo": ["SIMBOARD1", "SIMBOARD2", "SIMBOARD3"],
            "InternalType": "T0",
            "hostname": "teraflux-sim",
            "ip": self.host,
            "mac": self.mac.lower(),
            "model": self._model(),
            "version": VERSION,
        }
        return _said("IPReport", [row], 620, "IP Report")

    def _set_mode(self, body: dict[str, Any]) -> bytes:
        now_s = self.clock()
        by_word = {"eco": Mode.LOW, "normal": Mode.NORMAL, "turbo": Mode.TURBO}
        word, sleep = body.get("mode"), body.get("sleep")
        if sleep in ("on", "off"):
            awake = by_word.get(self._word, Mode.NORMAL)
            self.machine.command(Mode.SLEEP if sleep == "on" else awake, now_s)
        elif word == "custom" and body.get("tune") == "power" and isinstance(body.get("power"), int):
            self._word, self._limit_w = "custom", body["power"]
        elif word in by_word and by_word[word] in self.machine.modes:
            self._word, self._limit_w = word, None
            if self.machine.mode is not Mode.SLEEP:
                self.machine.command(by_word[word], now_s)
        else:
            return _said("Mode", [], 541, "Invalid parameter", "E")
        return _said("Mode", [{"Mode": self._word, "Sleep": sleep or "off"}], 540, "Mode set")


def _said(section: str, rows: list[dict[str, Any]], code: int, message: str, letter: str = "S") -> bytes:
    return orjson.dumps({"STATUS": status(code, message, letter, _WEB), section: rows, "id": 1})
