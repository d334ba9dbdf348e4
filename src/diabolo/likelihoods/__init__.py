"""The law of one cell given the decoder's parameters: the device half of a column kind."""

from diabolo.likelihoods.law import Likelihood, raw_scale, scale
from diabolo.likelihoods.levels import Bernoulli, Categorical, Ordinal
from diabolo.likelihoods.mixture import Mixture, mixed
from diabolo.likelihoods.quantities import DiscretizedLogistic, LogNormal, NegativeBinomial, Normal

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiscretizedLogistic",
    "Likelihood",
    "LogNormal",
    "Mixture",
    "NegativeBinomial",
    "Normal",
    "Ordinal",
    "mixed",
    "raw_scale",
    "scale",
]
