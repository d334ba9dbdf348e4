"""Networks: every one maps a single row to a single vector, and is vmapped by whoever calls it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo.keys import host_generator

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Convolution",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "Linear",
    "Network",
    "NetworkFactory",
    "convolve",
]

#: Activations by name: a name pickles and saves, a function need not.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


class Network(Protocol):
    """What every encoder and decoder is: one row in, one vector out."""

    def __call__(self, row: Array) -> Array: ...


NetworkFactory = Callable[[int, int, Array], Network]


class Linear(eqx.Module):
    """Affine map of one row, weights drawn with variance gain² / n_inputs (LeCun et al. 1998).

    Initial weights come from a generator on the host: on the device, each shape would compile a program of its own.
    """

    weight: Array  # (n_inputs, n_outputs): the layout XLA's CPU matrix product wants
    bias: Array  # (n_outputs,)

    def __init__(self, n_inputs: int, n_outputs: int, rng: np.random.Generator, gain: float = 1.0) -> None:
        spread = gain / math.sqrt(max(n_inputs, 1))
        weight = rng.normal(0.0, spread, (n_inputs, n_outputs))
        self.weight = np.asarray(weight, np.float32)  # type: ignore[assignment]
        self.bias = np.zeros(n_outputs, np.float32)  # type: ignore[assignment]

    def __call__(self, row: Array) -> Array:
        return row @ self.weight + self.bias


class MLP(eqx.Module):
    """Fully connected network; from three equal hidden layers on, each later one is a residual block.

    Parameters
    ----------
    n_inputs, n_outputs : widths of the row and of the answer
    hidden_layer_sizes : widths between; empty makes the map affine
    activation : a key of `ACTIVATIONS`
    key : random key of the initial weights

    Source: He et al. 2016, arXiv:1512.03385 (identity shortcuts), on fully connected layers.
    """

    layers: tuple[Linear, ...]
    activation: str = eqx.field(static=True)
    residual: bool = eqx.field(static=True)

    def __init__(
        self, n_inputs: int, n_outputs: int, hidden_layer_sizes: Sequence[int], activation: str, key: Array
    ) -> None:
        widths = [n_inputs, *hidden_layer_sizes, n_outputs]
        rng = host_generator(key)
        hidden_gain = math.sqrt(2.0) if activation in ("relu", "gelu", "silu") else 1.0
        gains = [hidden_gain] * (len(widths) - 2) + [1.0]
        self.layers = tuple(
            Linear(a, b, rng, gain) for a, b, gain in zip(widths[:-1], widths[1:], gains, strict=True)
        )
        self.activation = activation
        self.residual = len(hidden_layer_sizes) >= 3

    def __call__(self, row: Array) -> Array:
        activate = ACTIVATIONS[self.activation]
        *hidden, last = self.layers
        for layer in hidden:
            out = activate(layer(row))
            row = row + out if self.residual and out.shape == row.shape else out
        return last(row)


def convolve(image: Array, weight: Array, stride: int = 1) -> Array:
    """Convolve one image, zero-padded ("same").

    Parameters
    ----------
    image : (height, width, n_in)
    weight : (side, side, n_in, n_out), side odd

    Returns
    -------
    (ceil(height / stride), ceil(width / stride), n_out)

    On a CPU the patches are cut out and multiplied as one matrix product: XLA's own CPU convolution is 10 to 30
    times slower inside a scan. On an accelerator the native convolution runs.
    """
    return lax.platform_dependent(image, weight, cpu=_by_patches(stride), default=_natively(stride))


def _by_patches(stride: int) -> Callable[[Array, Array], Array]:
    def run(image: Array, weight: Array) -> Array:
        side, _, n_in, n_out = weight.shape
        height, width, _ = image.shape
        pad = side // 2
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        cuts = [
            padded[i : i + height : stride, j : j + width : stride] for i in range(side) for j in range(side)
        ]
        patches = jnp.concatenate(cuts, axis=-1)  # (height', width', side * side * n_in)
        return patches @ weight.reshape(side * side * n_in, n_out)

    return run


def _natively(stride: int) -> Callable[[Array, Array], Array]:
    def run(image: Array, weight: Array) -> Array:
        pad = weight.shape[0] // 2
        return lax.conv_general_dilated(
            image[None],
            weight,
            (stride, stride),
            [(pad, pad), (pad, pad)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]

    return run


class Convolution(eqx.Module):
    """A 3 x 3 convolution with bias."""

    weight: Array  # (3, 3, n_in, n_out)
    bias: Array  # (n_out,)
    stride: int = eqx.field(static=True)

    def __init__(
        self, n_in: int, n_out: int, stride: int, rng: np.random.Generator, gain: float = math.sqrt(2.0)
    ) -> None:
        weight = rng.normal(0.0, gain / math.sqrt(9 * n_in), (3, 3, n_in, n_out))
        self.weight = np.asarray(weight, np.float32)  # type: ignore[assignment]
        self.bias = np.zeros(n_out, np.float32)  # type: ignore[assignment]
        self.stride = stride

    def __call__(self, image: Array) -> Array:
        return convolve(image, self.weight, self.stride) + self.bias


def _halvings(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Sizes from the whole image down, halved until the short side is at most 7, at least once."""
    sizes = [(shape[0], shape[1])]
    while (len(sizes) == 1 or min(sizes[-1]) > 7) and max(sizes[-1]) > 1:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


class ConvolutionalEncoder(eqx.Module):
    """Image row to vector: strided convolutions down to at most 7 pixels, then one dense layer.

    The row is the flattened image, followed by any further inputs (gaps, conditions), which join at the dense layer.
    """

    convolutions: tuple[Convolution, ...]
    dense: Linear
    head: Linear
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        image_shape: tuple[int, int, int],
        activation: str,
        key: Array,
        n_cells: int = 1,
        n_channels: int = 16,
        n_dense: int = 128,
    ) -> None:
        height, width, depth = image_shape
        self.image_shape = (height, width, depth * n_cells)
        sizes = _halvings(image_shape)
        rng = host_generator(key)
        channels = [depth * n_cells, *(n_channels * 2**i for i in range(len(sizes) - 1))]
        self.convolutions = tuple(Convolution(a, b, 2, rng) for a, b in itertools.pairwise(channels))
        n_flat = sizes[-1][0] * sizes[-1][1] * channels[-1]
        n_more = n_inputs - height * width * depth * n_cells
        self.dense = Linear(n_flat + n_more, n_dense, rng, math.sqrt(2.0))
        self.head = Linear(n_dense, n_outputs, rng)
        self.activation = activation

    def __call__(self, row: Array) -> Array:
        activate = ACTIVATIONS[self.activation]
        n_pixels = math.prod(self.image_shape)
        image = row[:n_pixels].reshape(self.image_shape)
        for convolution in self.convolutions:
            image = activate(convolution(image))
        flat = jnp.concatenate([image.ravel(), row[n_pixels:]])
        return self.head(activate(self.dense(flat)))


class ConvolutionalDecoder(eqx.Module):
    """Vector to image row: dense layers, then convolutions whose channels unfold into pixels (Shi et al. 2016).

    The answer lies block by block, each the flattened image of its own channels: what is said of every pixel first.
    """

    dense: tuple[Linear, Linear]
    convolutions: tuple[Convolution, ...]
    sizes: tuple[tuple[int, int], ...] = eqx.field(static=True)  # from coarse to fine
    blocks: tuple[int, ...] = eqx.field(static=True)  # channels of each
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        n_inputs: int,
        block_sizes: Sequence[int],
        image_shape: tuple[int, int, int],
        activation: str,
        key: Array,
        n_channels: int = 16,
        n_dense: int = 128,
    ) -> None:
        height, width, _ = image_shape
        self.blocks = tuple(size // (height * width) for size in block_sizes)
        sizes = _halvings(image_shape)[::-1]
        rng = host_generator(key)
        channels = [n_channels * 2**i for i in reversed(range(len(sizes) - 1))]
        targets = [*channels[1:], sum(self.blocks)]
        self.dense = (
            Linear(n_inputs, n_dense, rng, math.sqrt(2.0)),
            Linear(n_dense, sizes[0][0] * sizes[0][1] * channels[0], rng, math.sqrt(2.0)),
        )
        self.convolutions = tuple(
            Convolution(a, 4 * b, 1, rng, math.sqrt(2.0) if i < len(channels) - 1 else 1.0)
            for i, (a, b) in enumerate(zip(channels, targets, strict=True))
        )
        self.sizes = tuple(sizes)
        self.activation = activation

    def __call__(self, row: Array) -> Array:
        activate = ACTIVATIONS[self.activation]
        for layer in self.dense:
            row = activate(layer(row))
        height, width = self.sizes[0]
        image = row.reshape(height, width, -1)
        for i, convolution in enumerate(self.convolutions):
            image = _unfold(convolution(image))
            height, width = self.sizes[i + 1]
            image = image[:height, :width]  # an odd side was rounded up on the way down
            if i < len(self.convolutions) - 1:
                image = activate(image)
        edges = np.cumsum(self.blocks)[:-1].tolist()
        return jnp.concatenate([block.ravel() for block in jnp.split(image, edges, axis=2)])


def _unfold(image: Array) -> Array:
    """(height, width, 4 c) to (2 height, 2 width, c)."""
    height, width, depth = image.shape
    blocks = image.reshape(height, width, 2, 2, depth // 4)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(2 * height, 2 * width, depth // 4)
