"""Options that the agent's commands share, and the settings they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridpivot.errors import SettingsError

if TYPE_CHECKING:
    from agent.settings import AgentSettings

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file.  [default: /etc/gridpivot/agent.toml]")
]
StateDir = Annotated[Path | None, typer.Option("--state-dir", help="Where the agent keeps its state.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_settings(config: Path | None, state_dir: Path | None) -> AgentSettings:
    """Settings from the file, the default file, or the environment alone; raises SettingsError."""
    from agent.settings import DEFAULT_CONFIG, ENV_PREFIX, AgentSettings
    from gridpivot.settings import load

    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if path is None and f"{ENV_PREFIX}__SITE" not in os.environ:
        raise SettingsError(
            f"{DEFAULT_CONFIG}: no such file; give --config FILE, or set {ENV_PREFIX}__SITE to report this host alone"
        )
    settings = load(AgentSettings, path, ENV_PREFIX)
    return settings if state_dir is None else settings.model_copy(update={"state_dir": state_dir})
