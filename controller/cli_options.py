"""Options that the controller's commands share, and the settings they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from controller.settings import ControllerSettings

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file; default /etc/gridpivot/controller.toml if it exists.")
]
StateDir = Annotated[Path | None, typer.Option(help="Directory of the database and the keys; over the settings' own.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def load_settings(config: Path | None, state_dir: Path | None) -> ControllerSettings:
    """Settings from the file, the default file, or the environment alone; raises SettingsError."""
    import os

    from controller.settings import DEFAULT_CONFIG, ENV_PREFIX, ControllerSettings
    from gridpivot.settings import load

    environ = dict(os.environ)
    if state_dir is not None:
        environ[f"{ENV_PREFIX}__STATE_DIR"] = str(state_dir)
    path = config if config is not None else (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    return load(ControllerSettings, path, ENV_PREFIX, environ)
