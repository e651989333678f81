"""Settings: TOML, overridden by the environment, checked whole, with errors that name file, line and remedy.

`load(AgentSettings, path, "GRIDPIVOT_AGENT")` reads the file, lays `GRIDPIVOT_AGENT__UPLINK__ADDRESS` and its like
over it, and validates. An unknown key is an error with its line and the nearest known key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gridpivot.errors import SettingsError

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Base of every settings table: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load(model: type[Model], path: Path | None, env_prefix: str, environ: Mapping[str, str] | None = None) -> Model:
    """Validated settings from `path` (None = defaults) and the environment; raises SettingsError, one line per fault."""
    text, tree = "", {}
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            tree = tomllib.loads(text)
        except FileNotFoundError as error:
            raise SettingsError(
                f"{path}: no such file; give --config, or create it from the example in docs/"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from error
    _overlay(tree, env_prefix, os.environ if environ is None else environ)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_sentence(model, path, text, fault) for fault in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _overlay(tree: dict[str, Any], env_prefix: str, environ: Mapping[str, str]) -> None:
    """Put PREFIX__A__B=value at tree[a][b]; values are read as TOML where they parse, else as strings."""
    for name, raw in sorted(environ.items()):
        if not name.startswith(env_prefix + "__"):
            continue
        *tables, key = name[len(env_prefix) + 2 :].lower().split("__")
        place = tree
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise SettingsError(f"environment {name}: {table} is not a table; correct the variable's name")
        try:
            place[key] = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            place[key] = raw


def _sentence(model: type[BaseModel], path: Path | None, text: str, fault: Mapping[str, Any]) -> str:
    location: Sequence[str | int] = list(fault["loc"])
    where = f"{path}:{line_of(text, location)}" if path is not None else "settings"
    key = ".".join(str(part) for part in location) or "(whole)"
    if fault["type"] == "extra_forbidden":
        known = list(_known_keys(model, location[:-1]))
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{where}: unknown key {key!r}; {hint}"
    if fault["type"] == "missing":
        return f"{where}: {key} is missing; add it"
    message = fault["msg"].removeprefix("Value error, ")
    given = "" if isinstance(fault.get("input"), (dict, list)) or _secret(key) else f" (is {fault.get('input')!r})"
    return f"{where}: {key}: {message}{given}"


def _secret(key: str) -> bool:
    return re.search(r"password|credential|login|token|secret|key$", key) is not None


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> Iterator[str]:
    """Keys allowed at a place of the settings tree, as far as annotations tell."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(here, "model_fields", {}).get(part)
        if field is None:
            continue
        here = next(iter(_models(field.annotation)), None)
    yield from getattr(here, "model_fields", {})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


def line_of(text: str, location: Sequence[str | int]) -> int:
    """Line (from 1) of a key in TOML text, found by scanning headers and keys; the nearest parent's line otherwise."""
    best, best_depth = 1, 0
    table: list[str | int] = []
    counts: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        header = re.match(r"^\[(\[)?\s*([^\[\]]+?)\s*\]", line)
        if header:
            names: list[str | int] = [part.strip().strip("\"'") for part in header.group(2).split(".")]
            if header.group(1):
                dotted = ".".join(map(str, names))
                counts[dotted] = counts.get(dotted, -1) + 1
                names.append(counts[dotted])
            table = names
            path = table
        else:
            key = re.match(r"^([A-Za-z0-9_\-.\"']+)\s*=", line)
            if not key:
                continue
            path = [*table, *(part.strip("\"'") for part in key.group(1).split("."))]
        depth = 0
        for ours, wanted in zip(path, location, strict=False):
            if str(ours) != str(wanted):
                break
            depth += 1
        if depth > best_depth and depth == len(path):
            best, best_depth = number, depth
    return best
