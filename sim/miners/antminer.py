"""A stock Antminer on the wire: cgminer on one port, a web server with digest authentication on another.

Joined commands are refused, watts are nowhere, and the work mode hides in the configuration behind the web page.
After a write the mining daemon restarts and its port is deaf for a while.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.fault import WireFault
from sim.miners.web import DigestGuard, WebAnswer, WebPort, WebRequest
from sim.miners.wire import WireMiner, status

REALM = "antMiner Configuration"
COMPILED = "Tue Dec  6 16:12:30 CST 2022"
RESTART_S = 1.5
MODES = {0: Mode.NORMAL, 1: Mode.SLEEP, 2: Mode.TURBO, 3: Mode.LOW}
_NAME = "cgminer 1.0.0"


class PowerPage:
    """The web server of newer models on a third port: one page, `power:<watts>`, for anybody."""

    def __init__(self, miner: SimAntminer) -> None:
        self._miner = miner

    @property
    def fault(self) -> WireFault:
        """The machine's."""
        return self._miner.fault

    @fault.setter
    def fault(self, fault: WireFault) -> None:
        self._miner.fault = fault

    def web(self, request: WebRequest) -> WebAnswer:
        """`GET /miner_power`."""
        self._miner.power_page_hits += 1
        if request.path != "/miner_power" or not self._miner.has_power_page:
            return WebAnswer(status=404)
        watts = self._miner.machine.reported_power_w(self._miner.clock())
        return WebAnswer(f"power:{watts:.0f}\n".encode(), headers=(("Content-Type", "text/plain"),))


class SimAntminer(WireMiner):
    """Stock firmware of an S19. `erases_pools` makes the next write lose the pools, as a careless firmware may.

    A newer model (`newer_model`) says its watts on a page of its own, on the port given as `aux_port`, and knows the
    newer stats alone. `trouble` are items of the web summary in the firmware's words: (type, message).
    """

    family = "antminer"
    factory_password = "root"  # noqa: S105 public knowledge

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.username = "root"
        self.writes = 0
        self.erases_pools = False
        self.malformed_stats = False
        self.newer_model = False
        self.has_power_page = True
        self.power_page_hits = 0
        self.trouble: list[tuple[str, str]] = []
        self.serial = ""
        self.conf: dict[str, Any] = {
            "pools": [
                {"url": "stratum+tcp://pool.example:3333", "user": "site.worker", "pass": "x"},
                {"url": "stratum+tcp://backup.example:3333", "user": "site.worker", "pass": "x"},
            ],
            "api-listen": True,
            "api-network": True,
            "api-allow": "A:0/0,W:*",
            "bitmain-fan-ctrl": False,
            "bitmain-fan-pwm": "100",
            "bitmain-use-vil": True,
            "bitmain-freq": "525",
            "bitmain-voltage": "1320",
            "bitmain-work-mode": "0",
            "bitmain-freq-level": "100",
        }
        self._deaf_until_s = float("-inf")
        self._guard = DigestGuard(REALM, self.username, self.password)

    async def start_aux(self, loop: asyncio.AbstractEventLoop, aux_port: int) -> None:
        """The power page of newer models."""
        if self.newer_model:
            page = PowerPage(self)
            self.aux_port = await self._listen(lambda: WebPort(page), aux_port)

    # -- cgminer port ----------------------------------------------------------------------------------------------

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Single reads only; closed without a word while the daemon restarts."""
        self.requests += 1
        if self.clock() < self._deaf_until_s:
            return None
        command = request.get("command")
        read = getattr(self, f"_read_{command}", None) if isinstance(command, str) and "+" not in command else None
        if read is None:
            return orjson.dumps({"STATUS": status(14, "Invalid command", "E", _NAME), "id": 1})
        if command == "stats" and request.get("new_api"):
            return orjson.dumps(self._modern_stats())
        if command == "stats" and self.newer_model:
            return orjson.dumps({"STATUS": status(70, "CGMiner stats", "S", _NAME), "STATS": [{}], "id": 1})
        reply = orjson.dumps(read())
        if command == "stats" and self.malformed_stats:
            return reply.replace(b"},{", b"}{")
        return reply

    def _read_version(self) -> dict[str, Any]:
        row = {"API": "3.1", "BMMiner": "1.0.0", "CompileTime": COMPILED, "Miner": "49.0.1.3", "Type": self.kind.model}
        return {"STATUS": status(22, "CGMiner versions", "S", _NAME), "VERSION": [row], "id": 1}

    def _read_summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        gigahash = round(machine.hashrate_hs(now_s) / 1e9, 2)
        row = {
            "Accepted": machine.accepted_shares(now_s),
            "Rejected": 0,
            "Elapsed": machine.uptime_s(now_s),
            "GHS 5s": gigahash,
            "GHS av": gigahash,
            "GHS 30m": gigahash,
        }
        return {"STATUS": status(11, "Summary", "S", _NAME), "SUMMARY": [row], "id": 1}

    def _read_stats(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        gigahash = round(machine.hashrate_hs(now_s) / 1e9, 2)
        hot = int(machine.temp_c(now_s))
        head = {"BMMiner": "1.0.0", "CompileTime": COMPILED, "Miner": "49.0.1.3", "Type": self.kind.model}
        row: dict[str, Any] = {
            "STATS": 0,
            "ID": "BTM_SOC0",
            "Elapsed": machine.uptime_s(now_s),
            "GHS 5s": gigahash,
            "GHS av": gigahash,
            "Mode": 2,
            "fan_num": 4,
            "rate_unit": "GH",
            "total_rateideal": self.kind.modes[Mode.NORMAL].hashrate_hs / 1e9,
        }
        for board in (1, 2, 3):
            row[f"chain_acn{board}"] = 114
            row[f"chain_rate{board}"] = f"{gigahash / 3:.2f}"
            row[f"temp_chip{board}"] = f"{hot}-{hot - 20}-{hot - 9}-{hot - 8}"
            row[f"temp_pcb{board}"] = f"{hot - 5}-{hot - 25}-{hot - 14}-{hot - 13}"
            row[f"fan{board}"] = 5880
        return {"STATUS": status(70, "CGMiner stats", "S", _NAME), "STATS": [head, row], "id": 1}

    def _modern_stats(self) -> dict[str, Any]:
        now_s = self.clock()
        gigahash = round(self.machine.hashrate_hs(now_s) / 1e9, 2)
        hot = int(self.machine.temp_c(now_s))
        chains = [
            {"index": n, "rate_real": gigahash / 3, "temp_chip": [hot, hot - 20], "temp_pcb": [hot - 5]}
            for n in range(3)
        ]
        row = {"elapsed": self.machine.uptime_s(now_s), "rate_5s": gigahash, "rate_avg": gigahash, "chain": chains}
        row["fan"] = [5880, 5890, 5870, 5880]
        return {"STATUS": status(70, "CGMiner stats", "S", _NAME), "STATS": [row], "id": 1}

    def _read_pools(self) -> dict[str, Any]:
        rows = [
            {"POOL": n, "URL": pool["url"], "User": pool["user"], "Status": "Alive", "Accepted": 0, "Rejected": 0}
            for n, pool in enumerate(self.conf["pools"])
        ]
        return {"STATUS": status(7, f"{len(rows)} Pool(s)", "S", _NAME), "POOLS": rows, "id": 1}

    # -- web server ------------------------------------------------------------------------------------------------

    def web(self, request: WebRequest) -> WebAnswer:
        """The CGI pages, behind digest authentication."""
        if not self._guard.admits(request):
            return self._guard.challenge()
        page = request.path.rsplit("/", 1)[-1].removesuffix(".cgi")
        if page == "set_miner_conf" and request.method == "POST":
            return WebAnswer(orjson.dumps(self._write(request.body)))
        read = getattr(self, f"_page_{page}", None)
        return WebAnswer(status=404) if read is None else WebAnswer(orjson.dumps(read()))

    def _page_get_miner_conf(self) -> dict[str, Any]:
        return self.conf

    def _page_get_system_info(self) -> dict[str, Any]:
        return {
            "minertype": self.kind.model,
            "nettype": "DHCP",
            "macaddr": self.mac,
            "hostname": "Antminer",
            "ipaddress": self.host,
            "serinum": self.serial,
            "firmware_type": "Release",
        }

    def _page_miner_type(self) -> dict[str, Any]:
        return {"miner_type": self.kind.model}

    def _page_get_blink_status(self) -> dict[str, Any]:
        return {"blink": False}

    def _page_summary(self) -> dict[str, Any]:
        now_s = self.clock()
        gigahash = round(self.machine.hashrate_hs(now_s) / 1e9, 2)
        info = {"miner_version": "49.0.1.3", "CompileTime": COMPILED, "type": self.kind.model}
        row = {"elapsed": self.machine.uptime_s(now_s), "rate_5s": gigahash, "rate_avg": gigahash, "rate_unit": "GH/s"}
        return {
            "STATUS": {"STATUS": "S", "Msg": "summary"},
            "INFO": info,
            "SUMMARY": [{**row, "status": self._items()}],
        }

    def _items(self) -> list[dict[str, Any]]:
        troubled = dict(self.trouble)
        return [
            {"type": kind, "status": "e" if kind in troubled else "s", "code": 0, "msg": troubled.get(kind, "")}
            for kind in ("rate", "network", "fans", "temp")
        ]

    def _write(self, body: bytes) -> dict[str, Any]:
        try:
            wanted = orjson.loads(body)
            code = int(wanted.get("miner-mode", wanted.get("bitmain-work-mode", 0)))
            mode = MODES[code]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            return {"stats": "error", "code": "M001", "msg": "Illegal request!"}
        if mode not in self.machine.modes:
            return {"stats": "error", "code": "M002", "msg": "Unsupported mode!"}
        self.writes += 1
        pools = wanted.get("pools", [])  # what is not sent is gone
        if self.erases_pools:
            pools, self.erases_pools = [], False
        self.conf = {**self.conf, "pools": pools, "bitmain-work-mode": str(code)}
        now_s = self.clock()
        self._deaf_until_s = now_s + RESTART_S
        self.machine.command(mode, now_s, restart=True)
        return {"stats": "success", "code": "M000", "msg": "OK!"}
