"""A mixture of one law with itself: the law of a quantity that may have several modes, skew or heavy tails."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_softmax

from diabolo.likelihoods.law import Likelihood, raw_scale, scale
from diabolo.likelihoods.quantities import DiscretizedLogistic, LogNormal, NegativeBinomial, Normal

__all__ = ["Mixture", "mixed"]

_REACH = 2.0  # standard deviations to either side over which the parts begin


class Mixture(Likelihood):
    """`n_parts` laws of one kind, weighed and added; all of their parameters are free, scales too.

    Parameters are `[log weights (n_parts), parameters of part 1, of part 2, ...]`; a cell is the part's. Resolution,
    atoms and the least scale are the part's own, so a mixture cannot send a density to infinity where a part cannot.

    Attributes
    ----------
    part : the law, one for all parts
    n_parts : static

    Source: for autoregressive densities, Uria, Murray & Larochelle 2013, eq. 8, arXiv:1306.0186; of discretised
    logistics, Salimans et al. 2017, eq. 2, arXiv:1701.05517.
    """

    part: Likelihood
    n_parts: int = eqx.field(static=True)
    n_scale: ClassVar[int] = 0

    @property
    def n_params(self) -> int:
        return self.n_parts * (1 + self.part.n_params)

    @property
    def n_shared(self) -> int:
        return 0

    @property
    def width(self) -> int:
        return self.part.width

    def log_prob(self, params: Array, cell: Array) -> Array:
        log_weights, each = self._parts(params)
        return jax.nn.logsumexp(log_weights + jax.vmap(self.part.log_prob, in_axes=(0, None))(each, cell))

    def mean(self, params: Array) -> Array:
        """The parts' typical cells in the proportion of their weights; with atoms, that of the heaviest part."""
        log_weights, each = self._parts(params)
        cells = jax.vmap(self.part.mean)(each)  # (n_parts, width)
        if self.width > 1:
            return cells[jnp.argmax(log_weights)]
        return jnp.exp(log_weights) @ cells

    def draw(self, params: Array, key: Array) -> Array:
        key_part, key_cell = jax.random.split(key)
        log_weights, each = self._parts(params)
        return self.part.draw(each[jax.random.categorical(key_part, log_weights)], key_cell)

    def _parts(self, params: Array) -> tuple[Array, Array]:
        """Log weights (n_parts,) and the parts' parameters (n_parts, n)."""
        return log_softmax(params[: self.n_parts]), params[self.n_parts :].reshape(self.n_parts, -1)


def mixed(law: Likelihood, initial: np.ndarray, n_parts: int) -> tuple[Likelihood, np.ndarray]:
    """A quantity's law as a mixture, with initial parameters; laws of levels, and one part, stay as they are.

    Parameters
    ----------
    law : of one column
    initial : (n_params,) raw parameters of the column's marginal law
    n_parts : how many

    The parts begin side by side, narrower than the marginal law and together of its mean and variance (own choice):
    parts that begin alike would learn alike.
    """
    quantities = (Normal, LogNormal, NegativeBinomial, DiscretizedLogistic)
    if n_parts == 1 or not isinstance(law, quantities):
        return law, initial
    place = np.linspace(-_REACH, _REACH, n_parts)
    weight = np.exp(-0.5 * place**2)
    weight /= weight.sum()
    width = 0.8 * (place[1] - place[0])
    unit = 1.0 / np.sqrt(weight @ place**2 + width**2)
    each = np.tile(np.asarray(initial, np.float64), (n_parts, 1))
    if law.n_scale:
        spread = float(scale(np.float32(initial[-1])))  # type: ignore[arg-type]
        each[:, -1] = raw_scale(spread * unit * width)
    else:
        spread = 0.5  # of a count's logarithm
    each[:, 0] += spread * unit * place
    return Mixture(law, n_parts), np.concatenate([np.log(weight), each.ravel()])
