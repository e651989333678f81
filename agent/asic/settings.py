"""Settings of the ASIC side: beat, deadlines, concurrency, and where credentials come from.

Passwords come from the environment (`GRIDPIVOT_AGENT__ASIC__CREDENTIALS__WHATSMINER__PASSWORD`) or from a file that
only its owner can read. They are SecretStr here and `Login` (without repr) beyond, so no log or error shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr

from agent.asic.family import Login
from gridpivot.errors import SettingsError
from gridpivot.settings import Section


class CredentialSettings(Section):
    """Login of one firmware family. Give `password_file` (mode 0600), or `password` through the environment."""

    username: str = Field(default="root", max_length=64)
    password: SecretStr | None = None
    password_file: Path | None = None

    def login(self) -> Login | None:
        """The login, None when no password is set; raises SettingsError for a file that others can read."""
        if self.password_file is not None:
            return Login(self.username, read_secret(self.password_file))
        return None if self.password is None else Login(self.username, self.password.get_secret_value())


class Credentials(Section):
    """Logins by family. LuxOS asks for none on its API."""

    whatsminer: CredentialSettings = CredentialSettings(username="super")
    luxos: CredentialSettings = CredentialSettings()
    antminer: CredentialSettings = CredentialSettings()

    def logins(self) -> Mapping[str, Login | None]:
        """Login by family name."""
        return {
            "whatsminer": self.whatsminer.login(),
            "luxos": self.luxos.login(),
            "antminer": self.antminer.login(),
        }


class AsicSettings(Section):
    """How miners are polled and commanded. Times in seconds."""

    inventory: Path | None = None
    beat_s: float = Field(default=10.0, ge=0.2, le=600)
    slow_beat_s: float = Field(default=60.0, ge=1, le=3600)
    deadline_s: float = Field(default=3.0, gt=0, le=60)
    concurrency: int = Field(default=256, ge=1, le=1024)
    command_concurrency: int = Field(default=256, ge=1, le=1024)
    command_attempts: int = Field(default=4, ge=1, le=20)
    command_backoff_s: float = Field(default=0.5, gt=0, le=60)
    silent_backoff_s: float = Field(default=30.0, ge=1, le=600)
    prepare_per_s: float = Field(default=20.0, ge=0, le=10_000)  # tokens fetched ahead of a shed
    no_pool_after_s: float = Field(default=300.0, ge=1, le=3600)
    credentials: Credentials = Credentials()


def read_secret(path: Path) -> str:
    """First line of a file that only its owner can read; raises SettingsError otherwise."""
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise SettingsError(f"{path}: mode {mode:04o} lets others read the password; run chmod 600 on it")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: password file cannot be read: {type(error).__name__}; correct password_file"
        ) from None
    if not lines or not lines[0].strip():
        raise SettingsError(f"{path}: password file is empty; put the password on its first line")
    return lines[0].strip()
