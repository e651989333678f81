"""Settings of the ASIC side: beat, deadlines, concurrency, and where credentials come from.

Passwords come from the environment (`GRIDPIVOT_AGENT__ASIC__CREDENTIALS__WHATSMINER__PASSWORD`) or from files that
only their owner can read. They are SecretStr here and `Login` (without repr) beyond, so no log or error shows them.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from agent.asic.family import Login
from agent.asic.keyring import Keyring, Logins, read_logins
from gridpivot.errors import SettingsError
from gridpivot.settings import Section

SITE = "site"  # beside the families' names: a login for every device


class CredentialSettings(Section):
    """Login of one firmware family, or of the site. Give `password_file` (mode 0600), or `password` through the
    environment."""

    username: str | None = Field(default=None, max_length=64)  # none = the factory's, else root
    password: SecretStr | None = None
    password_file: Path | None = None

    def login(self, usual: str = "root") -> Login | None:
        """The login, None when no password is set; raises SettingsError for a file that others can read."""
        username = self.username or usual
        if self.password_file is not None:
            return Login(username, read_secret(self.password_file))
        return None if self.password is None else Login(username, self.password.get_secret_value())


class DiscoverySettings(Section):
    """Looking for new, moved and lost miners in the background. Off without ranges."""

    ranges: tuple[str, ...] = ()  # as `gridpivot-agent discover` takes them
    interval_s: float = Field(default=3600.0, ge=60, le=86_400)
    rate_per_s: float = Field(default=100.0, gt=0, le=10_000)  # addresses looked at
    concurrency: int = Field(default=32, ge=1, le=1024)

    @field_validator("ranges")
    @classmethod
    def _parse(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        from agent.asic.ranges import parse_ranges

        try:
            parse_ranges(ranges)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return ranges


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
    credentials: dict[str, CredentialSettings] = Field(default={})
    credentials_file: Path | None = None
    try_factory_logins: bool = False
    discovery: DiscoverySettings = DiscoverySettings()

    @field_validator("credentials")
    @classmethod
    def _known_family(cls, given: dict[str, CredentialSettings]) -> dict[str, CredentialSettings]:
        from agent.asic.registry import FAMILIES

        for name in given:
            if name != SITE and name not in FAMILIES:
                near = difflib.get_close_matches(name, [*FAMILIES, SITE], n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(FAMILIES)}, {SITE}"
                raise ValueError(f"unknown family {name!r}; {hint}")
        return given

    def logins(self) -> Logins:
        """Every login that settings name, the file's before the keys'; raises SettingsError."""
        from agent.asic.registry import FAMILIES

        by_family: dict[str, tuple[Login, ...]] = {}
        for name, entry in self.credentials.items():
            usual = "root"
            if name in FAMILIES and (factory := FAMILIES[name].factory_login) is not None:
                usual = factory.username
            login = entry.login(usual)
            if login is not None:
                by_family[name] = (login,)
        named = Logins(site=by_family.pop(SITE, ()), family=by_family)
        if self.credentials_file is None:
            return named
        return read_logins(self.credentials_file, tuple(FAMILIES)) | named

    def keyring(self) -> Keyring:
        """The keyring of these settings; raises SettingsError."""
        from agent.asic.registry import FAMILIES

        factory: dict[str, Login] = {}
        if self.try_factory_logins:
            factory = {name: f.factory_login for name, f in FAMILIES.items() if f.factory_login is not None}
        return Keyring(self.logins(), factory)


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
