"""Codes of rows: the leading eigenfunctions of a wide kernel, and the way back by averaging rows of like codes."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from scipy.spatial.distance import pdist, squareform

from diabolo.batches import Batch
from diabolo.kernels.assembly import padded_size
from diabolo.kernels.mixture import products, squared_distances

__all__ = ["Chart"]

MAX_LANDMARKS = 1000  # an eigenvalue problem of so many takes half a second
_REACHES = 2.0 ** np.arange(-4, 3)  # of the way back, in distances to the nearest landmark


class Chart(eqx.Module):
    """Kernel principal components, out of sample by Nyström's formula.

    The kernel is a Gaussian as wide as the median distance of two training rows, not the density's own: at the
    density's bandwidth nearly every row is an eigenfunction of its own, and its code says nothing of any other row.

    ```
    x ─▶ K(x, landmarks), centred ─▶ √m K̃ v / λ = z ─▶ weights exp(-|z - zᵢ|² / 2 reach²) ─▶ mean of the landmarks
    ```

    Attributes
    ----------
    landmarks : (m, width) encoded training rows, gaps filled by `middle`
    seen : (m, width) 1 at their observed cells
    share : (m,) 1 / m; 0 at those that only fill up the array
    stretch, middle : (width,) metric of the cells; means of the training rows
    means : (m,) mean kernel of each landmark
    projection : (m, n_components)
    codes : (m, n_components) the landmarks' own
    narrow, reach : () 1 / (2 width²) of the kernel; spread of the way back

    Source: Bengio, Delalleau, Le Roux, Paiement, Vincent & Ouimet 2004, "Learning eigenfunctions links spectral
    embedding and kernel PCA", eq. 8 and 13 (scaled to unit variance); Schölkopf, Smola & Müller 1998. The way back is a
    Nadaraya-Watson mean, its reach by leaving landmarks out.
    """

    landmarks: Array
    seen: Array
    share: Array
    stretch: Array
    middle: Array
    means: Array
    projection: Array
    codes: Array
    narrow: Array
    reach: Array

    @classmethod
    def blank(cls, width: int, n_components: int) -> Chart:
        """Before training."""
        rows, codes = np.zeros((0, width), np.float32), np.zeros((0, n_components), np.float32)
        none, one = np.zeros(0, np.float32), np.ones((), np.float32)
        cells = np.ones(width, np.float32)
        return cls(rows, rows, none, cells, 0 * cells, none, codes, codes, one, one)  # type: ignore[arg-type]

    @classmethod
    def of(
        cls, values: np.ndarray, seen: np.ndarray, stretch: np.ndarray, n_components: int, seed: int
    ) -> Chart:
        """Of training rows.

        Parameters
        ----------
        values, seen : (n_rows, width) encoded cells, and which are observed
        stretch : (width,) metric of the cells
        """
        count = np.maximum(seen.sum(axis=0), 1)
        middle = np.where(seen, values, 0.0).sum(axis=0) / count
        if len(values) > MAX_LANDMARKS:
            some = np.random.default_rng(seed).choice(len(values), MAX_LANDMARKS, replace=False)
            values, seen = values[np.sort(some)], seen[np.sort(some)]
        filled, m = np.where(seen, values, middle), len(values)
        square = squareform(pdist((filled - middle) * stretch, "sqeuclidean"))
        apart = square[square > 0]
        narrow = 0.5 / np.median(apart) if len(apart) else 1.0
        kernel = np.exp(-narrow * square)
        means = kernel.mean(axis=0)
        centred = kernel - means - means[:, None] + means.mean()
        n_kept = min(n_components, m)
        size, axes = scipy.linalg.eigh(centred, subset_by_index=[m - n_kept, m - 1])
        size, axes = size[::-1], axes[:, ::-1]
        axes = axes * np.sign(
            axes[np.abs(axes).argmax(axis=0), np.arange(n_kept)]
        )  # which way is up is settled
        usable = size > 1e-7 * m  # below that float32 has no digits left
        weights = np.where(usable, np.sqrt(m) * axes / np.where(usable, size, 1.0), 0.0)
        projection = np.zeros((m, n_components))
        projection[:, :n_kept] = weights
        codes = centred @ projection
        parts = [filled, seen, np.full(m, 1.0 / m), stretch, middle, means, projection, codes, narrow]
        parts.append(_reach(codes, filled, stretch))
        short = padded_size(m) - m
        for place in (0, 1, 2, 5, 6, 7):
            parts[place] = np.pad(parts[place], ((0, short), *[(0, 0)] * (parts[place].ndim - 1)))
        return cls(*(np.asarray(part, np.float32) for part in parts))  # type: ignore[arg-type]

    def encode(self, batch: Batch, column_of_value: np.ndarray) -> Array:
        """(n_rows, n_components); a gap counts as the column's mean."""
        rows = jnp.where(batch.observed[:, column_of_value], batch.values, self.middle)
        one = jnp.ones_like(self.stretch)
        square = squared_distances(
            (rows - self.middle) * self.stretch,
            jnp.ones_like(rows),
            (self.landmarks - self.middle) * self.stretch,
            jnp.broadcast_to(one, self.landmarks.shape),
        )
        kernel = jnp.exp(-self.narrow * square)  # (n_rows, m)
        centred = kernel - products(kernel, self.share[None]) - self.means + self.share @ self.means
        return products(centred, self.projection.T)

    def decode(self, codes: Array) -> Array:
        """The mean of training rows with like codes: (n_rows, width) encoded."""
        square = squared_distances(codes, jnp.ones_like(codes), self.codes, jnp.ones_like(self.codes))
        logits = jnp.where(self.share > 0, -0.5 * square / self.reach**2, -jnp.inf)
        weights = jax.nn.softmax(logits, axis=1)
        there = products(weights, self.seen.T)  # (n_rows, width)
        total = products(weights, (self.seen * self.landmarks).T)
        return jnp.where(there > 1e-6, total / jnp.maximum(there, 1e-6), self.middle)


def _reach(codes: np.ndarray, rows: np.ndarray, stretch: np.ndarray) -> float:
    """The reach at which landmarks left out are averaged best from the others."""
    if len(codes) < 3:
        return 1.0
    square = squareform(pdist(codes, "sqeuclidean"))
    np.fill_diagonal(square, np.inf)
    near = np.sqrt(np.median(square.min(axis=1)))
    if not near > 0:
        return 1.0
    found = {}
    for reach in near * _REACHES:
        logits = -0.5 * square / reach**2
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        guess = weights @ rows / weights.sum(axis=1, keepdims=True)
        found[float(np.mean(((guess - rows) * stretch) ** 2))] = float(reach)
    return found[min(found)]
