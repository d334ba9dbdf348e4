"""Tables and pictures from files, results back into files: CSV, Parquet, npy, npz, folders of images.

What is read keeps its row order; an index is set aside on reading and written back beside the results.
Every file is written beside its place and then renamed, so nothing half-written is ever found there.
"""

from diabolo.files.pictures import as_bytes
from diabolo.files.reading import FileTable, nearest_file, read_table
from diabolo.files.writing import as_table, check_output, replacing, write_table

__all__ = [
    "FileTable",
    "as_bytes",
    "as_table",
    "check_output",
    "nearest_file",
    "read_table",
    "replacing",
    "write_table",
]
