"""Which login to try on a device, and when to stop trying. Pure but for reading one file of mode 0600.

Candidates go from the particular to the general: the device's (by MAC), its family's, the site's, and the factory's
only where settings allow it. A login that was refused is not tried again until the file changes or half an hour has
passed, and after three refusals in half an hour nothing is tried at all: firmware locks accounts, and a technician
then stands before a machine that nobody can open.

    # /etc/gridpivot/credentials.toml, mode 0600
    [[site]]
    username = "root"
    password = "..."

    [[family.whatsminer]]
    username = "super"
    password = "..."

    [[device."02:00:00:00:01:11"]]
    username = "root"
    password = "..."
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.asic.family import Login
from gridpivot.errors import SettingsError

MAX_WRONG = 3
BACK_OFF_S = 1800.0


class Logins:
    """Every login that a site knows, by what it is for. Holds passwords: has no repr of its own content."""

    __slots__ = ("device", "family", "site")

    def __init__(
        self,
        device: Mapping[str, Sequence[Login]] | None = None,
        family: Mapping[str, Sequence[Login]] | None = None,
        site: Sequence[Login] = (),
    ) -> None:
        self.device = {mac.lower(): tuple(logins) for mac, logins in (device or {}).items()}
        self.family = {name: tuple(logins) for name, logins in (family or {}).items()}
        self.site = tuple(site)

    def __repr__(self) -> str:
        return f"Logins({len(self.device)} devices, {len(self.family)} families, {len(self.site)} of the site)"

    def __or__(self, other: Logins) -> Logins:
        """Both, the left one's first."""
        return Logins(
            {m: self.device.get(m, ()) + other.device.get(m, ()) for m in self.device | other.device},
            {f: self.family.get(f, ()) + other.family.get(f, ()) for f in self.family | other.family},
            self.site + other.site,
        )


class Keyring:
    """The logins in force and their generation, which rises with each change of the file."""

    def __init__(self, logins: Logins, factory: Mapping[str, Login] | None = None) -> None:
        self.generation = 0
        self._logins = logins
        self._factory = dict(factory or {})

    def __repr__(self) -> str:
        return f"Keyring({self._logins!r})"

    @classmethod
    def of(cls, by_family: Mapping[str, Login | None]) -> Keyring:
        """A keyring of one login per family."""
        return cls(Logins(family={name: (login,) for name, login in by_family.items() if login is not None}))

    def replace(self, logins: Logins) -> None:
        """Take what a changed file holds; what was refused before may be tried again."""
        self._logins = logins
        self.generation += 1

    def candidates(self, family: str, mac: str) -> tuple[Login, ...]:
        """Logins for a device in the order in which they are tried."""
        ours = self._logins
        every = (*ours.device.get(mac.lower(), ()), *ours.family.get(family, ()), *ours.site)
        if family in self._factory:
            every = (*every, self._factory[family])
        return tuple(dict.fromkeys(every))

    def device(self, family: str, mac: str = "") -> DeviceKeys:
        """The state of one device's tries."""
        return DeviceKeys(self, family, mac)


class DeviceKeys:
    """What one device has accepted and refused. Times are monotonic [s]; nothing here blocks or does I/O."""

    __slots__ = ("_candidates", "_family", "_generation", "_good", "_mac", "_refused", "_ring", "_tries_s")

    def __init__(self, ring: Keyring, family: str, mac: str) -> None:
        self._ring, self._family, self._mac = ring, family, mac
        self._generation = ring.generation
        self._candidates = ring.candidates(family, mac)
        self._good: Login | None = None
        self._refused: dict[Login, float] = {}
        self._tries_s: list[float] = []  # of refusals inside the last half hour

    def __repr__(self) -> str:
        return f"DeviceKeys({self._family}, {len(self._tries_s)} refused)"

    @property
    def known_good(self) -> bool:
        """A login has worked here and was not refused since."""
        return self._good is not None

    def any(self) -> bool:
        """Whether there is a login for this device at all, tried or not."""
        self._renew()
        return bool(self._candidates)

    def login(self, now_s: float) -> Login | None:
        """The login to use now; None when there is none, or when trying more could lock the account."""
        self._renew()
        if self._good is not None:
            return self._good
        if self._tries_s:
            self._forget(now_s)
        if len(self._tries_s) >= MAX_WRONG:
            return None
        return next((login for login in self._candidates if login not in self._refused), None)

    def wait_s(self, now_s: float) -> float:
        """How long until another login may be tried [s]; 0 = now, or nothing was refused."""
        if self.login(now_s) is not None or not self._refused:
            return 0.0
        ends_s = min((*self._refused.values(), *self._tries_s)) + BACK_OFF_S
        return max(0.0, ends_s - now_s)

    def accepted(self, login: Login) -> None:
        """The device took it: it comes first from now on."""
        if login in self._candidates:
            self._good = login
            self._refused.pop(login, None)

    def refused(self, login: Login, now_s: float) -> None:
        """The device did not take it: counted, and not tried again for now."""
        self._tries_s.append(now_s)
        self._refused[login] = now_s
        if self._good == login:
            self._good = None

    def _forget(self, now_s: float) -> None:
        since_s = now_s - BACK_OFF_S
        self._tries_s = [at_s for at_s in self._tries_s if at_s > since_s]
        self._refused = {login: at_s for login, at_s in self._refused.items() if at_s > since_s}

    def _renew(self) -> None:
        if self._generation == self._ring.generation:
            return
        self._generation = self._ring.generation
        self._candidates = self._ring.candidates(self._family, self._mac)
        # A changed file is a person's word that these are right now. What was tried still counts towards the three:
        # the device's own counter knows nothing of our file.
        self._refused.clear()
        if self._good not in self._candidates:
            self._good = None


# -- the file ------------------------------------------------------------------------------------------------------


def read_logins(path: Path, families: Sequence[str]) -> Logins:
    """Logins of a credentials file; raises SettingsError, which never quotes what stands in it."""
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise SettingsError(f"{path}: mode {mode:04o} lets others read the passwords; run chmod 600 on it")
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: credentials cannot be read: {type(error).__name__}; correct asic.credentials_file"
        ) from None
    except tomllib.TOMLDecodeError as error:
        # The parser's sentence may quote a character of a password: only its place is told.
        where = str(error).rpartition("(")[2].rstrip(")")
        raise SettingsError(f"{path}: not valid TOML ({where}); correct it") from None
    unknown = tree.keys() - {"site", "family", "device"}
    if unknown:
        raise SettingsError(f"{path}: unknown table {min(unknown)!r}; known: site, family, device")
    by_family, by_device = _tables(path, tree, "family"), _tables(path, tree, "device")
    for name in by_family:
        if name not in families:
            raise SettingsError(f"{path}: family {name!r} is unknown; known: {', '.join(families)}")
    for mac in by_device:
        if len(mac) != 17 or mac.count(":") != 5:
            raise SettingsError(f"{path}: device {mac!r} is no MAC; write it as aa:bb:cc:dd:ee:ff")
    return Logins(
        {mac: _logins(path, f"device {mac}", entries) for mac, entries in by_device.items()},
        {name: _logins(path, f"family {name}", entries) for name, entries in by_family.items()},
        _logins(path, "site", tree.get("site", [])),
    )


def _tables(path: Path, tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    held = tree.get(name, {})
    if not isinstance(held, dict):
        raise SettingsError(f"{path}: {name} must be tables like [[{name}.NAME]]; correct it")
    return held


def _logins(path: Path, place: str, entries: Any) -> list[Login]:
    """Logins of one place; one table is as good as a list of one."""
    listed = [entries] if isinstance(entries, dict) else entries
    if not isinstance(listed, list):
        raise SettingsError(f"{path}: {place}: must be tables with username and password; correct it")
    logins: list[Login] = []
    for entry in listed:
        keys = set(entry) if isinstance(entry, dict) else set()
        if keys != {"username", "password"} or not all(isinstance(value, str) for value in entry.values()):
            raise SettingsError(f"{path}: {place}: needs exactly username and password, both in quotes; correct it")
        logins.append(Login(entry["username"], entry["password"]))
    return logins
