"""A small decoder and its prior as JSON types, so that a page can decode a place of the map by itself."""

from __future__ import annotations

import base64
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diabolo.likelihoods import scale
from diabolo.model import DirectModel
from diabolo.nets import ACTIVATIONS, MLP, ConvolutionalDecoder
from diabolo.priors import Mixture, StandardNormal
from diabolo.report.subject import Subject

__all__ = ["decoder"]

MAX_WEIGHTS = 250_000  # numbers, 4 bytes each and a third more as text: 1.3 MB
N_PRIOR = 2000  # codes drawn from the prior, by which the density of a place is judged


def decoder(subject: Subject) -> dict[str, Any]:
    """Weights, the columns' rules and the prior, or `why_not`.

    Returns
    -------
    dict : `layers`, each `n_inputs`, `n_outputs` and `weight` and `bias` as base64 of little-endian float32;
        `convolutions` after these, of 3 x 3 pixels, in the same form, with `sizes` and `blocks`, or None; `activation`,
        `residual`; `start`, what is added to the answer; `columns`, a rule per modelled column; `prior`
    """
    model, schema = subject.estimator.model_, subject.schema
    if isinstance(model, DirectModel):
        return {"why_not": f"that is not offered for {type(subject.estimator).__name__}"}
    network = model.decoder.network
    if subject.is_conditional:
        return {"why_not": "the model is conditional: a place alone does not say the conditions"}
    if type(network) not in (MLP, ConvolutionalDecoder) or network.activation not in ACTIVATIONS:
        return {
            "why_not": "it is a network of its own kind, and only plain layers and convolutions run in the page"
        }
    pictured = network if isinstance(network, ConvolutionalDecoder) else None
    layers = pictured.dense if pictured else network.layers
    convolutions = pictured.convolutions if pictured else ()
    n_weights = sum(np.size(layer.weight) for layer in (*layers, *convolutions))
    if n_weights > MAX_WEIGHTS:
        return {"why_not": f"it has {n_weights:,} weights, and the page stays small"}
    likelihood = model.likelihood
    n_free = likelihood.n_free
    zeros = np.zeros((1, model.n_components), np.float32)
    _, shared = model.decoder(zeros, np.zeros((1, 0), np.float32))
    shared = (
        np.asarray(shared, np.float64).reshape(-1)[-likelihood.n_shared :]
        if likelihood.n_shared
        else np.zeros(0)
    )
    owner = likelihood.column_of_param
    columns = []
    for i, place in enumerate(schema.layout.places):
        where = np.flatnonzero(owner == i)
        free, common = where[where < n_free], where[where >= n_free] - n_free
        columns.append({"column": place.column, **_rule(place.kind, free.tolist(), shared[common])})
    grey = subject.black_and_white if subject.view.is_images else (None, None)
    return {
        "low": grey[0],
        "high": grey[1],
        "layers": [_affine(layer) for layer in layers],
        "convolutions": [_affine(layer) for layer in convolutions] if pictured else None,
        "sizes": [list(size) for size in pictured.sizes] if pictured else None,
        "blocks": list(pictured.blocks) if pictured else None,
        "activation": network.activation,
        "residual": bool(getattr(network, "residual", False)),
        "start": np.asarray(model.decoder.start, np.float64)[:n_free].tolist(),
        "columns": columns,
        "prior": _prior(model),
    }


def _affine(layer: Any) -> dict[str, Any]:
    *_, n_inputs, n_outputs = layer.weight.shape
    sizes = {"n_inputs": int(n_inputs), "n_outputs": int(n_outputs)}
    return {**sizes, "weight": _packed(layer.weight), "bias": _packed(layer.bias)}


def _packed(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _rule(kind: Any, free: list[int], shared: np.ndarray) -> dict[str, Any]:
    """How the parameters of one column become the value that stands for its law, as `inverse_transform` does it."""
    if kind.name == "real":
        rule: dict[str, Any] = {"rule": "real", "at": free, "mean": kind.mean, "scale": kind.scale}
        return {**rule, "atoms": list(kind.atoms)}
    if kind.name == "positive":
        return {"rule": "positive", "at": free, "mean": kind.log_mean, "scale": kind.log_scale}
    if kind.name == "count":
        return {"rule": "count", "at": free, "mean": float(np.log(max(kind.mean, 1e-3)))}
    if kind.name == "pixels":
        return {"rule": "pixels", "at": free, "top": kind.n_levels - 1}
    if kind.name == "ordinal":
        law = kind.likelihood()
        gaps = np.maximum(np.diff(law.cuts), 1e-4) * np.asarray(scale(jnp.asarray(shared[1:])), np.float64)
        first = float(law.cuts[0] + shared[0])
        thresholds = first + np.concatenate([[0.0], np.cumsum(gaps)])
        return {"rule": "ordinal", "at": free, "levels": list(kind.levels), "thresholds": thresholds.tolist()}
    return {"rule": kind.name, "at": free, "levels": list(kind.levels)}


def _prior(model: Any) -> dict[str, Any] | None:
    """The law of codes: a mixture of Gaussians, the standard normal being one; and its log-density's quantiles.

    None where it is no such mixture: the page then decodes a place and says nothing of its density.
    """
    prior = getattr(model, "prior", None)  # a ladder has one per level
    if not isinstance(prior, (StandardNormal, Mixture)):
        return None
    drawn = np.asarray(prior.log_prob(prior.draw(jax.random.key(0), N_PRIOR)), np.float64)
    quantiles = np.quantile(drawn, np.linspace(0, 1, 101)).tolist()
    if isinstance(prior, StandardNormal):
        return {"parts": None, "quantiles": quantiles}
    log_weights = np.asarray(jax.nn.log_softmax(prior.logits), np.float64)
    _, inverses, spreads = (np.asarray(part, np.float64) for part in prior.parts.frame())
    means, whiteners = np.asarray(prior.parts.mean, np.float64), inverses / spreads[:, :, None]
    parts = [
        {
            "log_weight": float(log_weights[s]),
            "mean": means[s].tolist(),
            "whitener": whiteners[s].tolist(),
        }
        for s in np.flatnonzero(np.isfinite(log_weights))
    ]
    return {"parts": parts, "quantiles": quantiles}
