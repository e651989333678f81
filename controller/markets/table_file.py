"""A table from a file, as it stands there: CSV in its many dialects, plain or .gz, or Parquet.

Cells come out as they went in (text from CSV; numbers, times and nothing from Parquet); what they mean is decided by
`moments` and `series`. Blocking: for threads and command lines.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gridpivot.errors import SettingsError

MAX_BYTES = 512 * 1024 * 1024  # a small .gz can unpack to anything
Cell = str | float | int | datetime | None


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name in the file's order, and where each row stands."""

    path: Path
    names: tuple[str, ...]
    columns: tuple[Sequence[Cell], ...]
    lines: Sequence[int]  # of each row: line of a CSV (from 1), row of a Parquet file (from 1)
    decimal_comma: bool  # the delimiter leaves the comma free for decimals

    def column(self, name: str) -> Sequence[Cell]:
        """Cells of one column; raises KeyError."""
        if name not in self.names:
            raise KeyError(name)
        return self.columns[self.names.index(name)]

    def reversed(self) -> Table:
        """The same with its last row first."""
        columns = tuple(column[::-1] for column in self.columns)
        return Table(self.path, self.names, columns, self.lines[::-1], self.decimal_comma)

    def where(self, row: int, last: int | None = None) -> str:
        """file:line of a row (from 0), or file:line-line of a run of rows."""
        if last is None or last == row:
            return f"{self.path}:{self.lines[row]}"
        return f"{self.path}:{self.lines[row]}-{self.lines[last]}"


def read_table(path: Path) -> Table:
    """The whole file; raises SettingsError, one line with file, line and remedy, for one that cannot be read."""
    if path.suffix in (".parquet", ".pq"):
        return _parquet(path)
    return _csv(path, _text(path))


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SettingsError(f"{path}: cannot be read: {error}; give a CSV file, plain or .gz, or Parquet") from error
    if len(raw) > MAX_BYTES:
        raise SettingsError(f"{path}: unpacks to over {MAX_BYTES >> 20} MiB; give a shorter file")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    return raw.decode("utf-8-sig", errors="replace")


def _csv(path: Path, text: str) -> Table:
    lines = io.StringIO(text)
    first = lines.readline()
    skipped = 0
    if first.lower().startswith("sep="):  # spreadsheets say their delimiter so
        first, skipped = lines.readline(), 1
    delimiter = max((",", ";", "\t"), key=first.count)
    names = tuple(cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), []))
    if not any(names):
        raise SettingsError(f"{path}:1: the file is empty; give a CSV with a line of column names")
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise SettingsError(f"{path}:{skipped + 1}: column {twice!r} stands twice; rename one of the two")
    reader = csv.reader(lines, delimiter=delimiter)
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        for row in reader:
            if not row:
                continue
            if len(row) < len(names):
                line = reader.line_num + 1 + skipped
                raise SettingsError(f"{path}:{line}: too few columns; the row looks cut off: complete or remove it")
            rows.append(row)
            numbers.append(reader.line_num + 1 + skipped)
    except csv.Error as error:
        line = reader.line_num + 1 + skipped
        raise SettingsError(f"{path}:{line}: not CSV: {error}; repair the row") from error
    columns = tuple(zip(*rows, strict=False))[: len(names)] if rows else tuple(() for _ in names)
    return Table(path, names, columns, numbers, decimal_comma=delimiter != ",")


def _parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise SettingsError(
            f"{path}: Parquet files need pyarrow, which is not installed; pip install 'gridpivot[parquet]', or give CSV"
        ) from None
    try:
        table = pq.read_table(path)
        names = tuple(str(name) for name in table.column_names)
        columns = tuple(table.column(at).to_pylist() for at in range(len(names)))
    except (OSError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(f"{path}: cannot be read: {reason}; give a Parquet file") from error
    return Table(path, names, columns, range(1, table.num_rows + 1), decimal_comma=False)
