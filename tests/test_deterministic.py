"""What makes a density of a member that is trained on reconstruction."""

import numpy as np
import pandas as pd
import pytest
from cases import CASES, fitted, mixed, nats

from diabolo.batches import Batch


def coins(n, seed):
    """Eight columns that tell nothing of each other."""
    rolled = np.random.default_rng(seed).integers(0, 3, (n, 8))
    return pd.DataFrame(np.array(["red", "green", "blue"], object)[rolled], columns=list("abcdefgh"))


@pytest.mark.parametrize("name", ["Autoencoder", "DenoisingAutoencoder"])
def test_a_decoder_that_knows_rows_by_heart_is_made_less_sure(name):
    table, unseen = coins(300, 0), coins(300, 1)
    model = CASES[name](n_components=8, max_steps=600).fit(table)
    assert model.model_.sharpness < 1.0
    rows = model.reconstruct(table)
    batch, chosen = Batch.of(model.schema_.encode(table)), nats(model, unseen)
    vars(model)["model_"] = model.model_.as_sure_as(1.0, batch)
    assert chosen > nats(model, unseen) + 0.2
    assert rows.equals(model.reconstruct(table))  # which is as sure as it was trained to be


def test_levels_alone_are_made_less_sure():
    on_points, on_mixed = fitted("Autoencoder"), fitted("Autoencoder", "mixed")
    assert not on_points.model_.is_level.any() and on_points.model_.sharpness == 1.0
    rows = Batch.of(on_mixed.schema_.encode(mixed()[:9]))
    codes = on_mixed.model_.encode(rows)
    sure, unsure = (on_mixed.model_.as_sure_as(s, rows).decode(codes, rows.given) for s in (1.0, 0.25))
    moved = np.any(np.asarray(sure != unsure), axis=0)
    owner = on_mixed.schema_.likelihood().column_of_param
    assert set(owner[moved]) == {2, 3, 4}  # colour, male, legs
