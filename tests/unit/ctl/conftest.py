"""Commands as a shell would run them, beside a running controller."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from controller.service import ControllerService
from ctl.cli import app
from gridpivot import console


class Operator:
    """Runs commands as a shell would, in a thread beside the controller's loop."""

    def __init__(self, service: ControllerService, capsys: pytest.CaptureFixture[str]) -> None:
        assert service.ports is not None
        state, tls = service.settings.state_dir, service.settings.tls
        self.access = [
            f"--controller=127.0.0.1:{service.ports.operator}",
            f"--ca={state / tls.ca}",
            f"--token-file={state / tls.operator_token_file}",
        ]
        self._capsys = capsys

    async def __call__(self, *words: str, access: list[str] | None = None) -> tuple[int, str, str]:
        args = [*words, *(self.access if access is None else access)]
        code = await asyncio.to_thread(console.exit_code, lambda: app(args=args))
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    async def document(self, *words: str) -> dict[str, Any]:
        code, out, err = await self(*words, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
async def operator(controller: ControllerService, capsys: pytest.CaptureFixture[str]) -> Operator:
    async with asyncio.timeout(30):
        while controller.loop.last is None:
            await asyncio.sleep(0.01)
    return Operator(controller, capsys)
