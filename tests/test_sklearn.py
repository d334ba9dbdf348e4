"""scikit-learn's own checks, on every member, with small nets so that they are quick."""

import pytest
from cases import THOROUGH
from sklearn.utils.estimator_checks import parametrize_with_checks

from diabolo.classifier import BayesClassifier
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

SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_steps": 100, "random_state": 0}
FAMILIES = (VAE, IWAE, HierarchicalVAE, ConditionalVAE, Autoencoder)

# What these ask is answered before a member's own code begins, at one door for all: one of those that open it is asked,
# by `make test-all` all are. Each fits tables of its own shapes, and compiles for each.
AT_THE_DOOR = {
    "check_classifier_data_not_an_array",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_f_contiguous_array_estimator",
    "check_fit_check_is_fitted",
    "check_fit_score_takes_y",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_transformer_data_not_an_array",
}
# `test_laws.py` asks as much of every member, on tables whose programs its other laws have compiled.
BY_LAW = {
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
}
OPENERS = (VAE, ConditionalVAE, SemiSupervisedVAE, ManifoldParzen, BayesClassifier, OutlierDetector)


@pytest.mark.filterwarnings("ignore:columns? .* holds? one value")
@parametrize_with_checks(
    [
        *(family(**SMALL) for family in FAMILIES),
        DenoisingAutoencoder(**SMALL, corruption_level=0.1),  # a level to look for is four trainings
        SemiSupervisedVAE(**SMALL | {"max_steps": 300}),  # their checks want right answers, too
        SemiSupervisedVAE(
            **SMALL | {"max_steps": 800, "learning_rate": 0.01},
            stacked=True,
            label_layer_sizes=(8,),
        ),
        NormalizingFlow(n_layers=1, hidden_layer_sizes=(8,), max_steps=100, random_state=0),
        MADE((8,), n_orders=2, n_parts=2, max_steps=100, random_state=0),
        OutlierDetector(VAE(**SMALL)),
        ManifoldParzen(
            n_components=2, n_neighbors=5, n_directions=1, bandwidth=0.3, smoothing=0.1, random_state=0
        ),
        NonlocalManifoldParzen(**SMALL, n_directions=1, bandwidth=0.3, smoothing=0.1),
        BayesClassifier(ParzenWindow(n_components=2, random_state=0)),
        GSN(**SMALL, n_walkback=2, n_states=64, n_burn=5),
        RBM(n_components=2, n_gibbs=1, max_steps=100, random_state=0),
    ]
)
def test_scikit_learn_accepts(estimator, check):
    opens = isinstance(estimator, OPENERS) and not getattr(estimator, "stacked", False)
    if check.func.__name__ in AT_THE_DOOR | BY_LAW and not opens and not THOROUGH:
        pytest.skip("it takes tables through the door of a member that was asked, or a law asks it")
    check(estimator)
