"""The networks that a family's shared parameters ask for, sized by the columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from diabolo.checks import Range, refuse
from diabolo.joint import JointLikelihood
from diabolo.keys import children
from diabolo.model import Decoder, Encoder
from diabolo.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder, NetworkFactory
from diabolo.priors import Mixture
from diabolo.table import Schema

__all__ = ["Parts", "layer_sizes", "networks", "width_of"]

_HIDDEN = (128, 128)  # where hidden_layer_sizes is "auto" and the rows are no images
_SMALLEST_IMAGE = 8  # pixels a side, from which convolutions are chosen


@dataclass(frozen=True)
class Parts:
    """What every family with an encoder and a decoder starts from."""

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    code_widths: tuple[tuple[str, int], ...]

    @classmethod
    def of(
        cls,
        estimator: Any,
        schema: Schema,
        key: Array,
        n_said: Callable[[int], int],
        code_widths: tuple[tuple[str, int], ...] | None = None,
    ) -> Parts:
        """Networks of the sizes that the estimator's parameters ask for.

        Parameters
        ----------
        estimator : has the shared parameters
        schema : the columns
        key : random key of the initial weights
        n_said : number of components to the numbers that the encoder says of a row: as many for a point, twice as
            many for means and scales
        code_widths : names and widths of the code's groups, where a family has several; None makes one of them, as
            wide as `n_components` says
        """
        likelihood, width = schema.likelihood(), schema.width
        if code_widths is None:
            code_widths = (("code", width_of(estimator.n_components, width)),)
        n_components = sum(n for _, n in code_widths)
        gap_columns = tuple(int(i) for i in np.flatnonzero(schema.gaps))
        by_row: tuple[int, ...] = ()
        if getattr(estimator, "dispersion", "column") == "row":
            by_row = tuple(int(i) for i in np.flatnonzero(likelihood.scale[likelihood.n_free :]))
        blocks = (likelihood.n_free, len(by_row))
        key_encoder, key_decoder = children(key, 2)
        inner, outer = networks(estimator, schema, blocks)
        n_inputs = Encoder.n_inputs(width, gap_columns, schema.given_width)
        encoder = Encoder(inner(n_inputs, n_said(n_components), key_encoder), gap_columns)
        network = outer(n_components + schema.given_width, sum(blocks), key_decoder)
        decoder = Decoder.starting_at(network, np.asarray(likelihood.initial), likelihood.n_shared, by_row)
        return cls(likelihood, encoder, decoder, code_widths)

    @property
    def n_components(self) -> int:
        return sum(width for _, width in self.code_widths)

    def fields(self) -> dict[str, Any]:
        """By name, as a model's fields."""
        return dict(vars(self))

    def borrowed(self) -> dict[str, Any]:
        """The further fields of a deterministic model, before a prior is fitted."""
        law, n_free = self.likelihood, self.likelihood.n_free
        with_scale = law.column_of_param[law.scale]
        is_level = ~np.isin(law.column_of_param[:n_free], with_scale)
        return {
            "prior": Mixture.standard(self.n_components),
            "is_scale": np.asarray(law.scale[n_free:], np.float32),
            "is_level": np.asarray(is_level, np.float32),
            "sharpness": np.ones((), np.float32),
            "level_shift": np.zeros(n_free, np.float32),
        }


def width_of(n_components: Any, width: int) -> int:
    """Components of a code: "auto" is half of the encoded width, between 2 and 16."""
    return int(np.clip(width // 2, 2, 16)) if n_components == "auto" else int(n_components)


def networks(
    estimator: Any, schema: Schema, blocks: tuple[int, ...]
) -> tuple[NetworkFactory, NetworkFactory]:
    """The factories of encoder and decoder; `blocks` are the sizes of what the decoder says of a row."""
    if estimator.network is not None:
        return estimator.network, estimator.network
    sizes, activation, shape = estimator.hidden_layer_sizes, estimator.activation, schema.image_shape
    if isinstance(sizes, str) and shape is not None and min(shape[:2]) >= _SMALLEST_IMAGE:
        height, width, depth = (*shape, 1)[:3]
        image = (height, width, depth)
        n_cells = schema.width // (height * width * depth)
        return (
            lambda n_in, n_out, key: ConvolutionalEncoder(n_in, n_out, image, activation, key, n_cells),
            lambda n_in, n_out, key: ConvolutionalDecoder(n_in, blocks, image, activation, key),
        )
    hidden = layer_sizes(sizes, _HIDDEN)
    return (
        lambda n_in, n_out, key: MLP(n_in, n_out, hidden, activation, key),
        lambda n_in, n_out, key: MLP(n_in, n_out, hidden[::-1], activation, key),
    )


def layer_sizes(
    sizes: Any, auto: tuple[int, ...], name: str = "hidden_layer_sizes", what: str = "a layer"
) -> tuple[int, ...]:
    """Widths as a parameter gives them: one or several, or "auto"."""
    if isinstance(sizes, str):
        return auto
    listed = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    for size in listed:
        if size not in Range(1, whole=True):
            raise refuse(f"parameter {name!r}", got=f"{what} of {size!r}", want="whole numbers at least 1")
    return tuple(int(size) for size in listed)
