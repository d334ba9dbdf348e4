"""Delimited text: what separates its cells, how it is encoded, and which line a row starts on."""

from __future__ import annotations

import codecs
import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from diabolo.checks import InputError, refuse

__all__ = ["Dialect", "dialect_of", "parse", "records"]

# pandas' own list (read_csv, na_values), so that a file it wrote reads the same here
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)


class Dialect(NamedTuple):
    """How a text file spells its cells."""

    encoding: str = "utf-8"
    separator: str = ","
    decimal: str = "."
    grouped: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What was guessed otherwise than usual, to be shown to the user."""
        notes = []
        if self.encoding != "utf-8":
            notes.append(f"read as {self.encoding.upper()}")
        if self.separator not in {",", "\t"}:
            notes.append(f"cells separated by {self.separator!r}")
        if self.decimal != ".":
            notes.append("decimal comma")
        if self.grouped:
            more = ", ..." if len(self.grouped) > 5 else ""
            notes.append(f"digits in groups of three in {', '.join(self.grouped[:5])}{more}")
        return notes


def parse(path: Path, missing: Sequence[str] = ()) -> tuple[pa.Table, Dialect]:
    """Read a whole text table; `missing` are further spellings of a gap."""
    if path.stat().st_size == 0:
        raise refuse(str(path), got="an empty file", want="a header and rows")
    dialect = dialect_of(path)
    table = _parse(path, dialect, missing)
    if dialect.separator == ";":  # a semicolon between cells often means a comma inside numbers
        comma = _parse(path, dialect._replace(decimal=","), missing)
        if _n_numeric(comma) > _n_numeric(table):
            table, dialect = comma, dialect._replace(decimal=",")
    return _ungrouped(table, dialect)


def _ungrouped(table: pa.Table, dialect: Dialect) -> tuple[pa.Table, Dialect]:
    """Columns whose numbers are written in groups of three (`1,234.50`) as numbers."""
    mark, point = (".", ",") if dialect.decimal == "," else (",", ".")
    plain = rf"[+-]?\d+(?:{re.escape(point)}\d+)?"
    grouped = rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+(?:{re.escape(point)}\d+)?"
    found = []
    for number, field in enumerate(table.schema):
        cells = table.column(number)
        if not pa.types.is_string(field.type) or not len(seen := cells.drop_null()):
            continue
        if not pc.all(pc.match_substring_regex(seen, rf"^(?:{plain}|{grouped})$")).as_py():
            continue
        digits = pc.replace_substring(pc.replace_substring(cells, mark, ""), point, ".")
        table = table.set_column(number, field.name, digits.cast(pa.float64()))
        found.append(field.name)
    return table, dialect._replace(grouped=tuple(found))


def dialect_of(path: Path) -> Dialect:
    """Guess encoding and separator; the decimal mark is only known after parsing."""
    encoding = _encoding(path)
    if path.suffix.lower() == ".tsv":
        return Dialect(encoding, "\t")
    with path.open(encoding=encoding, newline="") as file:
        header = re.sub(r'"[^"]*"', "", file.readline())
    return Dialect(encoding, max((",", ";", "\t", "|"), key=header.count))  # the first of equals


def records(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it starts on, header first; empty lines are no records, as for the parser."""
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=dialect.separator)
        line = 1
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1


def _encoding(path: Path) -> str:
    """UTF-8 if the whole file is, then Korean CP949, then Latin-1, which fits every file."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise refuse(str(path), got="bytes that are no text", want="a text file, as its ending says")
    for encoding in ("utf-8", "cp949"):
        decoder = codecs.getincrementaldecoder(encoding)()
        with path.open("rb") as file, contextlib.suppress(UnicodeDecodeError):
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
            return encoding
    return "latin-1"


def _parse(path: Path, dialect: Dialect, missing: Sequence[str]) -> pa.Table:
    # one block for the whole file: pyarrow decides each column's type on the first block alone
    block = min(2 * path.stat().st_size + 1024, 2**31 - 1)
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(encoding=dialect.encoding, block_size=block),
            parse_options=pyarrow.csv.ParseOptions(delimiter=dialect.separator, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                null_values=[*MISSING, *missing], strings_can_be_null=True, decimal_point=dialect.decimal
            ),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable(path, dialect, error) from None
    for number, field in enumerate(table.schema):
        if pa.types.is_time(field.type):  # a time of day without its date is a label here
            table = table.set_column(number, field.name, table.column(number).cast(pa.string()))
    return table


def _n_numeric(table: pa.Table) -> int:
    return sum(pa.types.is_floating(t) or pa.types.is_integer(t) for t in table.schema.types)


def _unreadable(path: Path, dialect: Dialect, error: Exception) -> InputError:
    """Find the line that stopped the parser."""
    wanted = 0
    for line, cells in records(path, dialect):
        wanted = wanted or len(cells)
        if len(cells) != wanted:
            got = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
            fix = "Quote cells that contain the separator." if len(cells) > wanted else ""
            if len(cells) < wanted and "\n" in cells[-1]:
                fix = "A quote opens its last cell and is not closed on that line."
            return refuse(f"{path} line {line:,}", got=got, want=f"{wanted}, as in the header", fix=fix)
    got = str(error).strip().rstrip(".")
    return refuse(str(path), got=got, want="a header and rows of as many cells each")
