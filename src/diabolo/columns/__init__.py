"""The nine kinds of columns: scaling, log-Jacobians, support, and which law a column has."""

from diabolo.columns.inference import KINDS, infer_kind, kind_of
from diabolo.columns.kind import Cells, Kind, merge_summaries, summarise_values
from diabolo.columns.levels import Binary, Categorical, Constant, Identifier, Ordinal
from diabolo.columns.quantities import Count, Pixels, Positive, Real

__all__ = [
    "KINDS",
    "Binary",
    "Categorical",
    "Cells",
    "Constant",
    "Count",
    "Identifier",
    "Kind",
    "Ordinal",
    "Pixels",
    "Positive",
    "Real",
    "infer_kind",
    "kind_of",
    "merge_summaries",
    "summarise_values",
]
