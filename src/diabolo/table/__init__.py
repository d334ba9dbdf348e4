"""Tables in and out: containers, the schema of their columns, encoded rows."""

from diabolo.table.filling import centres, fill, missing
from diabolo.table.layout import Column, Layout, Rows
from diabolo.table.reading import Source, as_array, read_table, rows_at
from diabolo.table.schema import Schema
from diabolo.table.survey import Survey, position

__all__ = [
    "Column",
    "Layout",
    "Rows",
    "Schema",
    "Source",
    "Survey",
    "as_array",
    "centres",
    "fill",
    "missing",
    "position",
    "read_table",
    "rows_at",
]
