"""A Whatsminer of API V3 on the wire: length-prefixed JSON, and writes that must be signed for this second.

The signature is computed here a second time, from the protocol's description. Where firmware really listens on 4028
too (discovery still asks there), only version and details are answered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from typing import Any

import orjson

from gridpivot.vocabulary import Mode
from sim.miners.fault import MAX_REQUEST_BYTES, WireFault
from sim.miners.wire import ApiPort, WireMiner, status

FIRMWARE = "20251209.16.Rel2"
CLOCK_SLACK_S = 60  # how old a signature may be


class FramedPort(asyncio.Protocol):
    """One connection: a little-endian length and JSON, both ways; the client closes."""

    def __init__(self, miner: SimWhatsminerV3) -> None:
        self._miner = miner
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole frame."""
        self._data += data
        transport = self._transport
        fault = self._miner.fault
        if transport is None or fault is WireFault.SILENT or len(self._data) < 4:
            return
        length = int.from_bytes(self._data[:4], "little")
        if length > MAX_REQUEST_BYTES:
            transport.abort()
            return
        if len(self._data) < 4 + length:
            return
        body = bytes(self._data[4 : 4 + length])
        del self._data[: 4 + length]
        if fault in (WireFault.HUGE, WireFault.ENDLESS):
            transport.write((100 << 20).to_bytes(4, "little") + b"y" * (2 << 20))
            return
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            request = {}
        reply = self._miner.framed(request if isinstance(request, dict) else {})
        if fault is WireFault.GARBAGE:
            reply = b"<html>no miner here</html>"
        frame = len(reply).to_bytes(4, "little") + reply
        if fault is WireFault.TRUNCATED:
            transport.write(frame[: len(frame) // 2])
            transport.close()
            return
        transport.write(frame)


class SimWhatsminerV3(WireMiner):
    """Whatsminer, API V3. `wall_s` is the device's own clock; `old_port` is where it also answers the old dialect."""

    family = "whatsminer_v3"
    factory_password = "super"  # noqa: S105 public knowledge

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wall_s = time.time
        self.errors: list[dict[str, str]] = []
        self.orders: list[str] = []
        self.old_port = 0
        self._salt = secrets.token_urlsafe(6)
        self._percent = 0
        self.limit_w = round(self.kind.modes[Mode.NORMAL].power_w)

    def api_protocol(self) -> asyncio.Protocol:
        """Framed JSON."""
        return FramedPort(self)

    async def start_aux(self, loop: asyncio.AbstractEventLoop, aux_port: int) -> None:
        """The old dialect, on the port given as `aux_port`."""
        if aux_port:
            self.old_port = self.aux_port = await self._listen(lambda: ApiPort(self), aux_port)

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """The old dialect: who this is, and nothing more."""
        match request.get("cmd", request.get("command")):
            case "get_version":
                message = {"api_ver": "3.0.2", "fw_ver": FIRMWARE, "platform": "H616", "chip": "K88"}
                return orjson.dumps({"STATUS": "S", "When": 0, "Code": 131, "Msg": message, "Description": ""})
            case "devdetails":
                row = {"DEVDETAILS": 0, "Name": "SM", "ID": 0, "Driver": "bitmicro", "Model": self._type()}
                return orjson.dumps({"STATUS": status(69, "Device Details"), "DEVDETAILS": [row], "id": 1})
            case _:
                return orjson.dumps({"STATUS": "E", "When": 0, "Code": 14, "Msg": "invalid cmd", "Description": ""})

    def framed(self, request: dict[str, Any]) -> bytes:
        """Reply to one framed request."""
        self.requests += 1
        command, part = str(request.get("cmd", "")), request.get("param")
        if command == "get.device.info":
            info = self._device_info()
            return self._reply(command, {part: info[part]} if isinstance(part, str) and part in info else info)
        if command == "get.miner.status" and part in ("summary", "pools", "edevs"):
            return self._reply(command, {part: getattr(self, f"_{part}")()})
        if command.startswith("set."):
            return self._signed(command, request)
        return self._reply(command, "invalid command", -2)

    def _reply(self, command: str, message: Any, code: int = 0) -> bytes:
        return orjson.dumps({"code": code, "when": int(self.wall_s()), "msg": message, "desc": command})

    def _type(self) -> str:
        return self.kind.model.removeprefix("Whatsminer ") + "_VK40"

    def _device_info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "miner": {
                "board-num": "3",
                "hash-percent": str(self._percent),
                "miner-sn": "SIM" + self.mac.replace(":", ""),
                "pcbsn0": "SIMBOARD0",
                "pcbsn1": "SIMBOARD1",
                "pcbsn2": "SIMBOARD2",
                "type": self._type(),
                "working": "false" if self.machine.mode is Mode.SLEEP else "true",
            },
            "network": {"hostname": "WhatsMiner", "ip": self.host, "mac": self.mac, "proto": "dhcp"},
            "power": {"fanspeed": 6344, "mode": "1", "model": "P221B", "sn": "SIMPSU"},
            "salt": self._salt,
            "system": {
                "api": "3.0.2",
                "apiswitch": "1",
                "fwversion": FIRMWARE,
                "ledstatus": "auto",
                "platform": "H616",
            },
        }
        return {"error-code": self.errors, **info} if self.errors else info

    def _summary(self) -> dict[str, Any]:
        now_s, machine = self.clock(), self.machine
        terahash = round(machine.hashrate_hs(now_s) / 1e12, 3)
        power_w = machine.reported_power_w(now_s)
        return {
            "board-temperature": [41.1, 40.1, 41.5],
            "chip-temp-avg": machine.temp_c(now_s) - 8,
            "chip-temp-max": machine.temp_c(now_s),
            "chip-temp-min": machine.temp_c(now_s) - 15,
            "elapsed": machine.uptime_s(now_s),
            "environment-temperature": 28.5,
            "factory-hash": self.kind.modes[Mode.NORMAL].hashrate_hs / 1e12,
            "fan-speed-in": 5400,
            "fan-speed-out": 5280,
            "hash-15min": terahash,
            "hash-1min": terahash,
            "hash-average": terahash,
            "hash-realtime": terahash,
            "power-5min": power_w,
            "power-limit": self.limit_w,
            "power-realtime": power_w,
            "up-freq-finish": 1,
        }

    def _pools(self) -> list[dict[str, Any]]:
        alive = self.machine.pool_alive
        row = {"account": "site.worker", "pool-priority": 0, "url": self.machine.pool_url}
        return [{**row, "status": "alive" if alive else "dead", "stratum-active": alive}]

    def _edevs(self) -> list[dict[str, Any]]:
        now_s = self.clock()
        share = round(self.machine.hashrate_hs(now_s) / 3e12, 3)
        hot = self.machine.temp_c(now_s)
        row = {"chip-temp-avg": hot - 8, "chip-temp-max": hot, "chip-temp-min": hot - 15, "effective-chips": 75}
        return [{**row, "id": n, "hash-average": share, "hash-realtime": share, "status": "alive"} for n in range(3)]

    def _signed(self, command: str, request: dict[str, Any]) -> bytes:
        stamp = request.get("ts")
        text = f"{command}{self.password}{self._salt}{stamp}".encode()
        right = base64.b64encode(hashlib.sha256(text).digest())[:8].decode()
        if request.get("account") != "super" or not secrets.compare_digest(str(request.get("token")), right):
            return self._reply(command, "invalid token", -4)
        if not isinstance(stamp, int) or abs(stamp - self.wall_s()) > CLOCK_SLACK_S:
            return self._reply(command, "token expired", -4)
        message = self._obey(command, request.get("param"))
        self.orders.append(command)
        return self._reply(command, message, 0 if message == "ok" else -1)

    def _obey(self, command: str, parameter: Any) -> str:
        now_s = self.clock()
        match command, parameter:
            case "set.miner.service", "stop":
                self.machine.command(Mode.SLEEP, now_s)
            case "set.miner.service", "start":
                self.machine.command(Mode.LOW if 0 < self._percent <= 80 else Mode.NORMAL, now_s)
            case "set.miner.power_limit", int() | float():
                if not 0 < parameter <= 99_999:
                    return "parameter error"
                self.limit_w = round(parameter)
            case "set.miner.power_percent", {"percent": str() as percent, "mode": "fast" | "normal"}:
                if not percent.isdecimal() or not 0 < int(percent) <= 100:
                    return "parameter error"
                self._percent = int(percent) % 100
                if self.machine.mode is not Mode.SLEEP:
                    self.machine.command(Mode.LOW if 0 < self._percent <= 80 else Mode.NORMAL, now_s)
            case _:
                return "parameter error"
        return "ok"
