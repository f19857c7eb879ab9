from itertools import product

import numpy as np
import pytest
from scipy import stats

from torchstone.study.interactions import interactions
from torchstone.study.statistics import holm

FACTORS = {"a": ("0", "1", "2"), "b": ("x", "y"), "c": ("off", "on")}


def grid(seeds: int = 6, seed: int = 0) -> dict[tuple[str, ...], dict[int, float | None]]:
    generator = np.random.default_rng(seed)
    shared = generator.normal(0, 1, seeds)
    return {cell: dict(enumerate(shared + generator.normal(len(cell[0] + cell[1]), 0.1, seeds))) for cell in product(*FACTORS.values())}


def test_the_two_by_two_is_scipys_paired_test_of_the_differences():
    cells = {cell[:2]: values for cell, values in grid().items() if cell[2] == "off" and cell[0] != "2"}
    y = {cell: np.array(list(values.values())) for cell, values in cells.items()}
    found = interactions(cells, {"a": ("0", "1"), "b": ("x", "y")})
    theirs = stats.ttest_rel(y["1", "y"] - y["0", "y"], y["1", "x"] - y["0", "x"])
    interval = theirs.confidence_interval()
    assert len(found) == 1 and (found[0].factors, found[0].levels, found[0].n) == (("a", "b"), ("1", "y"), 6)
    assert found[0].p == found[0].p_holm == pytest.approx(theirs.pvalue)
    assert (found[0].low, found[0].high) == pytest.approx((interval.low, interval.high))
    assert (found[0].low + found[0].high) / 2 == pytest.approx(found[0].mean)
    turned = interactions(cells, {"a": ("0", "1"), "b": ("x", "y")}, mode="min")[0]
    assert (turned.mean, turned.low, turned.p) == pytest.approx((-found[0].mean, -found[0].high, found[0].p))


def test_three_factors_are_averaged_over_the_third():
    cells = grid()
    y = {cell: np.array(list(values.values())) for cell, values in cells.items()}
    found = {(each.factors, each.levels): each for each in interactions(cells, FACTORS)}
    assert set(found) == {
        (("a", "b"), ("1", "y")),
        (("a", "b"), ("2", "y")),
        (("a", "c"), ("1", "on")),
        (("a", "c"), ("2", "on")),
        (("b", "c"), ("y", "on")),
    }
    by_c = [y["2", "y", c] - y["0", "y", c] - y["2", "x", c] + y["0", "x", c] for c in FACTORS["c"]]
    assert found[("a", "b"), ("2", "y")].p == pytest.approx(stats.ttest_1samp(np.mean(by_c, 0), 0).pvalue)
    by_a = [y[a, "y", "on"] - y[a, "x", "on"] - y[a, "y", "off"] + y[a, "x", "off"] for a in FACTORS["a"]]
    assert found[("b", "c"), ("y", "on")].mean == pytest.approx(np.mean(by_a))
    assert [each.p_holm for each in found.values()] == pytest.approx(holm([each.p for each in found.values()]))


def test_unpaired_is_the_contrast_of_the_means():
    cells = {cell[:2]: values for cell, values in grid(9).items() if cell[2] == "off" and cell[0] != "2"}
    cells["1", "y"] = {seed: value for seed, value in cells["1", "y"].items() if seed < 5}
    found = interactions(cells, {"a": ("0", "1"), "b": ("x", "y")}, paired=False)[0]
    y = {cell: np.array(list(values.values())) for cell, values in cells.items()}
    shares = {cell: x.var(ddof=1) / len(x) for cell, x in y.items()}
    df = sum(shares.values()) ** 2 / sum(share**2 / (len(y[cell]) - 1) for cell, share in shares.items())
    mean = y["1", "y"].mean() - y["0", "y"].mean() - y["1", "x"].mean() + y["0", "x"].mean()
    low, high = stats.t.interval(0.95, df, mean, sum(shares.values()) ** 0.5)
    assert (found.mean, found.low, found.high, found.n) == (pytest.approx(mean), pytest.approx(low), pytest.approx(high), 5)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / sum(shares.values()) ** 0.5, df))


def test_what_adds_up_has_no_interaction_and_what_does_not_has():
    generator = np.random.default_rng(4)
    p = {0.0: [], 0.3: []}
    for extra in p:
        for _ in range(600):
            cells = {
                (a, b): dict(enumerate(generator.normal(int(a) + int(b) + extra * int(a) * int(b), 0.1, 5))) for a, b in product("01", "01")
            }
            p[extra].append(interactions(cells, {"a": "01", "b": "01"})[0].p)
    assert np.mean(np.array(p[0.0]) <= 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p[0.3]) <= 0.05) > 0.5


def test_lost_runs_and_no_spread():
    factors = {"a": ("0", "1"), "b": ("x", "y")}
    y = {cell: {0: 1.0, 1: 2.0, 2: 4.0} for cell in product(*factors.values())}
    flat = interactions(y, factors)[0]
    assert (flat.mean, flat.p, flat.low, flat.n) == (0, 1, None, 3)
    y["1", "y"] = {0: 1.5, 1: 2.5, 2: 4.5}
    step = interactions(y, factors)[0]
    assert (step.mean, step.p, step.low) == (0.5, 0.25, None)
    y["1", "y"] = {0: 1.5, 1: None, 2: float("inf")}
    assert (interactions(y, factors)[0].n, interactions(y, factors)[0].p) == (1, None)
    del y["0", "x"]
    empty = interactions(y, factors)[0]
    assert (empty.n, empty.mean) == (0, None) and interactions(y, factors, paired=False)[0].mean is None
    assert set(empty.document()) == {"factors", "levels", "n", "mean", "std", "low", "high", "p", "p_holm"}
