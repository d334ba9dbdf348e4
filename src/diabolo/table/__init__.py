"""Tables in and out: containers, the schema of their columns, encoded rows."""

from diabolo.table.reading import Source, read_table
from diabolo.table.schema import Column, Rows, Schema
from diabolo.table.survey import Survey

__all__ = ["Column", "Rows", "Schema", "Source", "Survey", "read_table"]
