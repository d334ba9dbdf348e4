"""Autoencoders read in four ways: `fit`, `transform`, `sample`, `score_samples`.

This file only re-exports, and does so when a name is first asked for: importing the package loads neither
jax nor scikit-learn and changes no setting of either.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diabolo import plot, report
    from diabolo.checks import InputError, InputTypeError
    from diabolo.classifier import BayesClassifier
    from diabolo.columns import (
        Binary,
        Categorical,
        Constant,
        Count,
        Identifier,
        Ordinal,
        Pixels,
        Positive,
        Real,
    )
    from diabolo.comparison import compare
    from diabolo.density import Reading
    from diabolo.families.autoencoder import Autoencoder
    from diabolo.families.conditional import ConditionalVAE
    from diabolo.families.denoising import DenoisingAutoencoder
    from diabolo.families.gsn import GSN
    from diabolo.families.hierarchical import HierarchicalVAE
    from diabolo.families.iwae import IWAE
    from diabolo.families.made import MADE
    from diabolo.families.nonlocal_parzen import NonlocalManifoldParzen
    from diabolo.families.normalizing_flow import NormalizingFlow
    from diabolo.families.parzen import ManifoldParzen, ParzenWindow
    from diabolo.families.rbm import RBM
    from diabolo.families.semi_supervised import SemiSupervisedVAE
    from diabolo.families.vae import VAE
    from diabolo.outliers import OutlierDetector
    from diabolo.saving import load
    from diabolo.table import Schema
    from diabolo.variational import CollapseWarning

__version__ = "0.1.0"

# name -> the room that owns it
_OWNERS = {
    "VAE": "families.vae",
    "IWAE": "families.iwae",
    "MADE": "families.made",
    "GSN": "families.gsn",
    "HierarchicalVAE": "families.hierarchical",
    "RBM": "families.rbm",
    "CollapseWarning": "variational",
    "ConditionalVAE": "families.conditional",
    "Autoencoder": "families.autoencoder",
    "DenoisingAutoencoder": "families.denoising",
    "Binary": "columns",
    "Categorical": "columns",
    "Constant": "columns",
    "Count": "columns",
    "Identifier": "columns",
    "InputError": "checks",
    "InputTypeError": "checks",
    "NormalizingFlow": "families.normalizing_flow",
    "ManifoldParzen": "families.parzen",
    "NonlocalManifoldParzen": "families.nonlocal_parzen",
    "BayesClassifier": "classifier",
    "Ordinal": "columns",
    "OutlierDetector": "outliers",
    "ParzenWindow": "families.parzen",
    "Pixels": "columns",
    "Positive": "columns",
    "Reading": "density",
    "Real": "columns",
    "Schema": "table",
    "SemiSupervisedVAE": "families.semi_supervised",
    "compare": "comparison",
    "load": "saving",
}
_ROOMS = ("plot", "report")

__all__ = [
    "GSN",
    "IWAE",
    "MADE",
    "RBM",
    "VAE",
    "Autoencoder",
    "BayesClassifier",
    "Binary",
    "Categorical",
    "CollapseWarning",
    "ConditionalVAE",
    "Constant",
    "Count",
    "DenoisingAutoencoder",
    "HierarchicalVAE",
    "Identifier",
    "InputError",
    "InputTypeError",
    "ManifoldParzen",
    "NonlocalManifoldParzen",
    "NormalizingFlow",
    "Ordinal",
    "OutlierDetector",
    "ParzenWindow",
    "Pixels",
    "Positive",
    "Reading",
    "Real",
    "Schema",
    "SemiSupervisedVAE",
    "__version__",
    "compare",
    "load",
    "plot",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import the room that owns `name`, once; afterwards the name is an ordinary attribute."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_OWNERS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
