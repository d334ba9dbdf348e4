"""Models of rows and labels: M2, and M1 + M2."""

from diabolo.labels.labelled import LabelledModel
from diabolo.labels.model import LabelModel
from diabolo.labels.stacked import StackedModel, side_by_side, starting_at_zero

__all__ = ["LabelModel", "LabelledModel", "StackedModel", "side_by_side", "starting_at_zero"]
