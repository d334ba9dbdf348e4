"""Column kinds against closed forms and brute force: scaling, Jacobians, masses, inference, refusals."""

import json

import jax
import numpy as np
import pytest
from scipy import stats

from diabolo.checks import InputError, InputTypeError
from diabolo.columns import (
    KINDS,
    Binary,
    Categorical,
    Constant,
    Count,
    Identifier,
    Kind,
    Ordinal,
    Pixels,
    Positive,
    Real,
    infer_kind,
    kind_of,
    summarise_values,
)

RNG = np.random.default_rng(0)
LEVELS = ["lo", "mid", "hi"]


def text(*cells):
    values = np.empty(len(cells), object)
    values[:] = cells
    return values


def learned(kind, values):
    values = np.asarray(values, object if isinstance(values[0], (str, type(None))) else np.float64)
    return kind.finish(kind.summarise(values))


def log_density(kind, values):
    """Nats of each value in the user's units, under the column's own marginal law."""
    cells, law = kind.encode(np.asarray(values)), kind.likelihood()
    law_of_cells = jax.jit(jax.vmap(law.log_prob, in_axes=(None, 0)))
    log_prob = law_of_cells(np.float32(kind.initial()), np.float32(cells.values))
    return np.where(cells.observed, np.asarray(log_prob, np.float64), 0.0) + cells.offset


# one column of each kind, with a gap
COLUMNS = {
    "real": (Real(), np.r_[RNG.normal(5, 3, 300), np.nan]),
    "rounded": (Real(), np.r_[RNG.normal(5, 3, 300).round(1), np.nan]),
    "atom": (Real(), np.r_[np.zeros(100), RNG.normal(50, 9, 200).round(), np.nan]),
    "clock": (Real(clock=True), np.r_[18000 + RNG.integers(0, 999, 50) / 24, np.nan]),
    "positive": (Positive(), np.r_[RNG.lognormal(3, 1, 300), np.nan]),
    "count": (Count(), np.r_[RNG.negative_binomial(2, 0.2, 300), np.nan]),
    "pixels": (Pixels(), np.r_[RNG.integers(0, 256, 300), np.nan]),
    "binary": (Binary(), np.r_[RNG.choice([2.0, 7.0], 300), np.nan]),
    "binary text": (Binary(), text(*RNG.choice(["no", "yes"], 300).tolist(), None)),
    "categorical": (Categorical(), np.r_[RNG.choice([1.0, 5.0, 9.0], 300), np.nan]),
    "categorical text": (Categorical(), text(*RNG.choice(["a", "b", "c"], 300).tolist(), None)),
    "ordinal": (Ordinal(levels=LEVELS), text(*RNG.choice(LEVELS, 300).tolist(), None)),
    "constant": (Constant(), np.r_[np.full(300, 4.0), np.nan]),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_values_come_back_and_gaps_are_not_observed(name):
    kind, values = COLUMNS[name]
    kind = kind.finish(kind.summarise(values))
    cells = kind.encode(values)
    assert cells.values.shape == (len(values), kind.width)
    assert cells.observed.tolist() == [True] * (len(values) - 1) + [False]
    assert cells.values[-1].tolist() == [0.0] * kind.width and cells.offset[-1] == 0.0
    back = kind.decode(cells.values)[:-1]
    if back.dtype == object:
        assert back.tolist() == values[:-1].tolist()
    else:
        np.testing.assert_allclose(back, values[:-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", COLUMNS)
def test_two_chunks_merged_teach_what_one_does(name):
    kind, values = COLUMNS[name]
    whole = kind.finish(kind.summarise(values)).to_json()
    for cut in (0, 7, 120, len(values)):  # an empty chunk on either side, a short one, a long one
        parts = kind.merge(kind.summarise(values[:cut]), kind.summarise(values[cut:]))
        merged = kind.finish(parts).to_json()
        for fact, value in whole.items():
            if isinstance(value, (float, list)) and not isinstance(np.ravel(value)[:1].tolist(), str):
                assert merged[fact] == (pytest.approx(value) if not _has_text(value) else value), (fact, cut)
            else:
                assert merged[fact] == value, (fact, cut)


def _has_text(fact):
    return isinstance(fact, list) and any(isinstance(part, str) for part in fact)


@pytest.mark.parametrize("name", COLUMNS)
def test_json_gives_the_same_kind(name):
    kind, values = COLUMNS[name]
    kind = kind.finish(kind.summarise(values))
    again = Kind.from_json(json.loads(json.dumps(kind.to_json())))
    assert again == kind and hash(again) == hash(kind)
    assert kind.name in kind.line()


def test_json_of_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match=r"'reel'; expected a known kind\. Did you mean 'real'"):
        Kind.from_json({"kind": "reel"})


@pytest.mark.parametrize("kind", [Real(), Positive()])
def test_a_change_of_unit_moves_each_cell_by_its_log(kind):
    values = np.exp(RNG.normal(size=500))
    metres, millimetres = learned(kind, values), learned(kind, 1000 * values)
    here, there = metres.encode(values), millimetres.encode(1000 * values)
    np.testing.assert_allclose(there.offset - here.offset, -np.log(1000), rtol=1e-12)
    np.testing.assert_allclose(there.values, here.values, atol=1e-12)


def test_a_real_law_is_the_normal_density_of_the_values():
    values = RNG.normal(170, 9, 400)
    kind = learned(Real(), values)
    expected = stats.norm(values.mean(), values.std()).logpdf(values)
    np.testing.assert_allclose(log_density(kind, values), expected, rtol=1e-5)


def test_a_positive_law_is_the_lognormal_density_of_the_values():
    values = RNG.lognormal(8, 0.7, 400)
    kind = learned(Positive(), values)
    logs = np.log(values)
    expected = stats.lognorm(logs.std(), scale=np.exp(logs.mean())).logpdf(values)
    np.testing.assert_allclose(log_density(kind, values), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "support", "step"),
    [
        ("rounded", np.arange(-300, 400) / 10, 0.1),
        ("atom", np.arange(-100, 200.0), 1.0),
        ("count", np.arange(4000.0), 1.0),
        ("pixels", np.arange(256.0), 1.0),
        ("binary", np.array([2.0, 7.0]), 1.0),
        ("ordinal", text("lo", "mid", "hi"), 1.0),
    ],
)
def test_masses_over_the_support_sum_to_one(name, support, step):
    kind, values = COLUMNS[name]
    kind = kind.finish(kind.summarise(values))
    density = np.exp(log_density(kind, support))
    at_atom = np.isin(support, kind.atoms) if isinstance(kind, Real) else np.zeros(len(support), bool)
    assert np.sum(density * np.where(at_atom, 1.0, step)) == pytest.approx(1.0, abs=2e-5)


def test_masses_of_positive_steps_sum_to_one():
    kind = learned(Positive(), RNG.lognormal(1, 0.5, 300).round(1).clip(0.1))
    assert kind.resolution == 0.1 and kind.coarse
    assert np.exp(log_density(kind, np.arange(1, 2000) / 10)).sum() * 0.1 == pytest.approx(1.0, abs=2e-5)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (RNG.integers(-5, 900, 50), 1.0),
        (RNG.normal(size=50).round(2), 0.01),
        (RNG.normal(size=50).round(2).astype(np.float32), 0.01),
        (RNG.normal(1000, 1, 50).round(1).astype(np.float32), 0.1),
        (RNG.normal(size=50).round(6) * 1e4, 0.01),
        (0.1 * RNG.integers(0, 99, 50) + 0.2, 0.1),  # 0.30000000000000004 is 0.3
        (RNG.integers(0, 256, 50) / 255, 1 / 255),
        (RNG.normal(size=50), 0.0),
        (RNG.normal(size=50).astype(np.float32), 0.0),
        (RNG.normal(size=50).astype(np.float16), 0.0),
        (1e17 * RNG.normal(size=50), 0.0),  # all large floats are whole numbers
        (np.pi * np.arange(1, 50), 0.0),
    ],
)
def test_the_resolution_is_the_grid_of_the_values(values, step):
    assert learned(Real(), values).resolution == step
    assert learned(Real(resolution=0.5), values).resolution == 0.5


@pytest.mark.parametrize(
    ("per_day", "step"), [(1, 1.0), (24, 1 / 24), (1440, 1 / 1440), (86400, 1 / 86400), (np.pi, 0.0)]
)
def test_a_clock_ticks_in_days_hours_minutes_seconds(per_day, step):
    days = 19000 + RNG.integers(0, 5000, 100) / per_day
    assert learned(Real(clock=True), days).resolution == pytest.approx(step)


def test_a_resolution_far_below_the_scale_leaves_the_density():
    values = RNG.normal(0, 1e5, 200).round()
    kind = learned(Real(), values)
    assert kind.resolution == 1.0 and not kind.coarse
    assert learned(Real(), (values / 100).round()).coarse


def test_draws_snap_to_the_grid_and_read_as_typed():
    kind = learned(Real(), [0.1, 0.2, 0.3, 7.7])
    assert kind.snap(np.array([0.3000001, 7.66, -0.04])).tolist() == [0.3, 7.7, 0.0]
    assert learned(Positive(), [0.5, 1.5, 9.5]).snap(np.array([0.001, 2.2])).tolist() == [0.1, 2.2]
    free = np.array([0.123456, -3.2])
    assert learned(Real(), RNG.normal(size=30)).snap(free) is free


def test_an_atom_has_its_own_probability_and_the_others_their_own_scale():
    others = RNG.normal(100, 20, 70)
    kind = learned(Real(), np.r_[np.zeros(30), others])
    assert kind.atoms == (0.0,) and kind.atom_shares == (0.3,)
    assert kind.mean == pytest.approx(others.mean()) and kind.scale == pytest.approx(others.std())
    cells = kind.encode(np.array([0.0, 100.0, 1e-9]))
    assert cells.values[:, 1].tolist() == [1.0, 0.0, 0.0] and cells.values[0, 0] == 0.0
    np.testing.assert_allclose(cells.offset, -np.log(kind.scale))
    assert np.exp(log_density(kind, np.zeros(1)))[0] * kind.scale == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("others", [RNG.normal(50, 9, 200), RNG.normal(50, 9, 200).round()])
def test_a_change_of_units_moves_the_density_of_every_row_alike(others):
    values = np.r_[np.zeros(100), others]
    kind, in_thousands = learned(Real(), values), learned(Real(), values / 1000)
    np.testing.assert_allclose(
        log_density(in_thousands, values / 1000) - log_density(kind, values), np.log(1000), rtol=1e-3
    )


def test_an_atom_far_from_the_others_leaves_their_scale_exact():
    others = RNG.normal(1e6, 3, 100)
    for sentinel in (-99.0, -99999999.0):
        kind = learned(Real(), np.r_[np.full(60, sentinel), others])
        assert kind.scale == pytest.approx(others.std(), rel=1e-9)


def test_an_atom_that_is_rare_in_one_chunk_leaves_the_moments_of_all():
    others = RNG.normal(7, 2, 150)
    values = np.r_[np.zeros(60), others[:50], others[50:], np.zeros(5)]
    parts = [Real().summarise(part) for part in (values[:110], values[110:])]
    assert 0.0 not in parts[1]["aside"]
    kind = Real().finish(Real().merge(*parts))
    assert kind.atoms == (0.0,)
    assert (kind.mean, kind.scale) == (pytest.approx(others.mean()), pytest.approx(others.std()))


@pytest.mark.parametrize(
    "values", [np.r_[np.zeros(9), 1.0:28.0], np.r_[np.zeros(20), 1.0:81.0], np.full(9, 3.0)]
)
def test_few_rows_or_a_fifth_make_no_atom(values):
    assert learned(Real(), values).atoms == ()


def test_an_atom_between_the_steps_of_its_column_is_refused():
    whole = np.arange(20.0)
    with pytest.raises(
        InputError, match=r"got the atom 0\.3; expected a multiple of its step 1\. Say a finer"
    ):
        learned(Real(resolution=1.0, atoms=(0.3,)), whole)
    assert learned(Real(resolution=1.0, atoms=(3.0,)), whole).atoms == (3.0,)
    assert learned(Real(resolution=0.0, atoms=(0.3,)), whole).atoms == (0.3,)


def test_a_column_of_atoms_alone_keeps_a_finite_scale():
    kind = learned(Real(), np.repeat([1.0, 5.0], 20))
    assert kind.atoms == (1.0, 5.0) and (kind.mean, kind.scale) == (3.0, 2.0)
    assert np.isfinite(kind.initial()).all()
    assert learned(Real(atoms=()), np.repeat([1.0, 5.0], 20)).width == 1


def test_values_far_away_stay_finite_in_float32():
    kind = learned(Real(), [0.0, 1.0, 2.5])
    assert np.abs(kind.encode(np.array([1e300, -1e300])).values).max() == 1e6
    assert np.isfinite(learned(Positive(), [1.0, 2.0]).decode(np.array([[1e6]]))).all()


def test_the_count_law_has_the_mean_and_variance_of_the_values():
    values = RNG.negative_binomial(3, 0.1, 2000).astype(float)
    support = np.arange(3000.0)
    masses = np.exp(log_density(learned(Count(), values), support))
    mean = (masses * support).sum()
    assert mean == pytest.approx(values.mean(), rel=1e-4)
    assert (masses * (support - mean) ** 2).sum() == pytest.approx(values.var(), rel=1e-3)


def test_the_laws_of_levels_have_the_shares_of_the_values():
    binary = learned(Binary(), [0.0] * 30 + [1.0] * 10)
    assert np.exp(log_density(binary, np.ones(1)))[0] == pytest.approx(10.5 / 41)
    ordinal = learned(Ordinal(levels=["a", "b", "c"]), ["a"] * 10 + ["b"] * 30 + ["c"] * 60)
    masses = np.exp(log_density(ordinal, text("a", "b", "c")))
    np.testing.assert_allclose(masses, np.array([10.5, 30.5, 60.5]) / 101.5, rtol=1e-5)


def test_unseen_levels_pay_the_mass_of_those_seen_once():
    values = text(*["a"] * 50 + ["b"] * 46 + ["c", "d", "e", "f"])
    kind = learned(Categorical(), values)
    assert kind.reserved == pytest.approx(0.04)
    cells = kind.encode(text("zebra", None, "a"))
    assert cells.observed.tolist() == [False, False, True] and not cells.values[:2].any()
    np.testing.assert_allclose(cells.offset, [np.log(0.04), 0.0, 0.0])
    seen = np.exp(log_density(kind, text(*"abcdef"))).sum()
    assert seen + kind.reserved == pytest.approx(1.0, rel=1e-5)


def test_the_unseen_mass_has_bounds():
    assert learned(Categorical(), ["a", "a", "b", "b"]).reserved == pytest.approx(1 / 5)
    assert learned(Categorical(), ["a", "b", "c", "d"]).reserved == 0.5
    many = text(*[f"level {i // 2}" for i in range(12000)])  # 6000 levels, 4096 kept
    kind = learned(Categorical(), many)
    assert kind.width == 4096 and kind.reserved == pytest.approx((6000 - 4096) / 6000)


def test_a_declared_level_without_rows_keeps_a_finite_price():
    kind = learned(Categorical(levels=["a", "b", "c"]), ["a", "a", "b"])
    assert kind.shares == pytest.approx((2.5 / 4.5, 1.5 / 4.5, 0.5 / 4.5))


@pytest.mark.parametrize(
    ("name", "strange"),
    [
        ("positive", [0.0, -3.0]),
        ("count", [-1.0, 2.5]),
        ("pixels", [256.0, -1.0, 3.5]),
        ("binary", [3.0]),
        ("binary text", text("maybe")),
        ("ordinal", text("top")),
        ("constant", [5.0]),
    ],
)
def test_values_outside_the_support_score_minus_infinity(name, strange):
    kind, values = COLUMNS[name]
    cells = kind.finish(kind.summarise(values)).encode(np.asarray(strange))
    assert not cells.observed.any() and not cells.values.any()
    assert cells.offset.tolist() == [-np.inf] * len(strange)


def test_whole_numbers_near_a_level_are_not_it():
    """Days written as numbers: float32 holds every second one of them."""
    days = np.repeat(np.arange(20230101.0, 20230106.0), 8)
    kind = learned(Categorical(), days)
    assert kind.encode(np.array([20230105.0])).observed.all()
    assert not kind.encode(np.array([20230109.0, 20230104.5])).observed.any()


def test_levels_that_went_through_float32_are_recognised():
    kind = learned(Categorical(), [0.1, 0.2, 0.7, 0.7])
    assert kind.encode(np.float64(np.float32([0.7, 0.1, 0.2]))).values.argmax(1).tolist() == [2, 0, 1]


def test_a_constant_and_an_identifier_have_no_cells_and_no_law():
    constant = learned(Constant(), ["x", "x", None])
    assert constant.decode(np.zeros((2, 0))).tolist() == ["x", "x"]
    empty = learned(Constant(), [np.nan, np.nan])
    assert np.isnan(empty.decode(np.zeros((2, 0)))).all()
    assert empty.encode(np.array([np.nan, 1.0])).offset.tolist() == [0.0, -np.inf]
    for kind in (constant, Identifier()):
        assert kind.width == 0 and kind.likelihood() is None and not kind.counted and kind.initial().size == 0
    assert Identifier().encode(text("u", None)).offset.tolist() == [0.0, 0.0]


INFERRED = {
    "one value": ([3.0, 3.0, np.nan], {}, "constant"),
    "nothing": ([np.nan, np.nan], {}, "constant"),
    "two numbers": ([3.5, 4.5, 4.5], {}, "binary"),
    "two words": (["no", "yes", None], {}, "binary"),
    "two of three declared levels": (["a", "b"], {"levels": ("a", "b", "c")}, "categorical"),
    "distinct text": ([f"name {i}" for i in range(40)], {}, "identifier"),
    "distinct but declared": ([f"{i}" for i in range(40)], {"levels": tuple("abc")}, "categorical"),
    "few words": ([f"name {i}" for i in range(20)], {}, "categorical"),
    "ordered": (["a", "b", "c"], {"levels": ("c", "b", "a"), "ordered": True}, "ordinal"),
    "dates": ([1.0, 2.0, 3.0], {"role": "day"}, "real"),
    "ten whole numbers": (np.arange(10.0), {}, "categorical"),
    "eleven whole numbers": (np.arange(11.0), {}, "real"),
    "three fractions": ([0.5, 1.5, 2.5], {}, "real"),
    "plain whole numbers": (np.arange(5.0), {"plain": True}, "real"),
    "plain 0 and 1": ([0.0, 1.0, 1.0], {"plain": True}, "binary"),
    "plain two numbers": ([0.0, 2.0], {"plain": True}, "real"),
}


@pytest.mark.parametrize("case", INFERRED)
def test_the_first_rule_that_fits_names_the_kind(case):
    values, facts, name = INFERRED[case]
    is_text = isinstance(values[0], str)
    values = text(*values) if is_text else np.asarray(values, float)
    facts = {"role": "text" if is_text else "number"} | facts
    assert infer_kind(summarise_values(values), **facts).name == name


def test_kinds_are_declared_by_name_class_or_instance():
    assert [kind_of(name).name for name in KINDS] == list(KINDS) and len(KINDS) == 9
    assert kind_of(Count) == Count() and kind_of(Real(resolution=2)) == Real(resolution=2)
    with pytest.raises(InputError, match=r"kinds: got 'cuont'; expected a kind\. Did you mean 'count'"):
        kind_of("cuont")
    with pytest.raises(InputTypeError, match="kinds: got 3; expected a kind's name or instance"):
        kind_of(3)


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (Real(), ["a", "b"], "column: got text such as 'a'; expected numbers for kind 'real'"),
        (Positive(), [1.0, 0.0], "got 0 as its smallest value; expected values above 0"),
        (Count(), [1.0, -2.0], "got -2 as its smallest value; expected 0, 1, 2, ..."),
        (Count(), [1.0, 2.5], "got fractions; expected 0, 1, 2, ..."),
        (Pixels(), [0.0, 300.0], "got values from 0 to 300; expected whole numbers from 0 to 255"),
        (Pixels(n_levels=16), [0.0, 17.0], "expected whole numbers from 0 to 15"),
        (Binary(), [1.0, 2.0, 3.0], "got 3 different values; expected two values"),
        (Binary(), ["a", "a"], "got 1 different values; expected two values"),
        (Ordinal(), ["lo", "hi"], "got text without an order; expected an order"),
        (Ordinal(levels=["lo", "hi"]), ["lo", "mid"], "got the value 'mid'; expected one of 'lo', 'hi'"),
        (Constant(), [1.0, 2.0], "got 2 different values; expected one value"),
    ],
)
def test_a_kind_that_cannot_hold_the_values_says_so(kind, values, sentence):
    with pytest.raises(InputError, match=sentence):
        learned(kind, values)


def test_the_spread_of_few_values_beside_an_atom_is_measured_from_it():
    kind = learned(Real(), np.r_[np.zeros(500), 40.0])
    assert kind.atoms == (0.0,) and (kind.mean, kind.scale) == (40.0, 40.0)
