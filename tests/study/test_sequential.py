import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from torchstone.study.calibration import KEPT_BACK, bound, sequential_p, smallest_p
from torchstone.study.sequential import Plan, divergence_p, sign_evidence
from torchstone.study.statistics import holm, paired
from torchstone.study.verdicts import NO_LARGER

TWENTY = Plan(seeds=tuple(range(20)))


def study(*shifts: float, n: int = 20, seed: int = 0, noise: float = 0.01):
    """Baseline and variants of true effects `shifts`, all their values known beforehand."""
    generator = np.random.default_rng(seed)
    base = generator.normal(0.9, 0.02, n)
    made = [dict(enumerate((base + generator.normal(shift, noise, n)).tolist())) for shift in shifts]
    return dict(enumerate(base.tolist())), {f"v{i}": values for i, values in enumerate(made)}


def carried_out(plan, baseline, variants, ahead=0, **options):
    """The study as it is run: asks for the next runs, makes them, asks again. Returns what was found and the runs made."""
    done = {"baseline": {}, **{name: {} for name in variants}}
    made = []
    while True:
        mine = {name: done[name] for name in variants}
        todo = plan.next_seeds(done["baseline"], mine, ahead=ahead, **options)
        if not todo:
            return plan.compared(done["baseline"], mine, **options), made
        for name, seed in todo:
            assert seed not in done[name], "asked for twice"
            failed = options.get("failed", {})
            assert seed not in failed.get(name, ())
            done[name][seed] = (baseline if name == "baseline" else variants[name])[seed]
        made += todo


# --- calibration ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first, most", [(2, 2), (3, 5), (3, 20), (3, 60)])
def test_the_level_holds_for_other_normal_numbers_than_those_it_was_read_off(first, most):
    x = np.random.default_rng(99).normal(3.0, 7.0, (20_000, most)) - 3.0
    p = np.ones(20_000)
    for n in range(first, most + 1):
        p = np.minimum(p, stats.ttest_1samp(x[:, :n], 0, axis=1).pvalue)
    for alpha in (0.1, 0.05, 0.01):
        spent = alpha * (1 - KEPT_BACK)
        assert (p <= bound(alpha, first, most)).mean() == pytest.approx(spent, abs=4 * (spent / 20_000) ** 0.5)


def test_one_look_is_the_plain_test_and_more_looks_cost_more():
    assert bound(0.05, 5, 5) == pytest.approx(0.05 * (1 - KEPT_BACK), rel=0.05)
    bounds = [bound(0.05, 3, most) for most in (3, 5, 10, 20, 50)]
    assert bounds == sorted(bounds, reverse=True)
    assert all(b >= 0.05 * (1 - KEPT_BACK) / (most - 2) for b, most in zip(bounds, (3, 5, 10, 20, 50), strict=True))


@given(alpha=st.floats(1e-6, 0.3), most=st.sampled_from([3, 8, 20]))
def test_bound_and_sequential_p_say_the_same(alpha, most):
    edge = bound(alpha, 3, most)
    assert sequential_p(edge, 3, most) <= alpha * (1 + 1e-12)
    assert sequential_p(edge * 1.1, 3, most) > alpha * 0.99
    assert sequential_p(0.0, 3, most) == 0 and sequential_p(1.0, 3, most) == 1


def test_the_calibration_repeats_itself():
    first = smallest_p(3, 4).copy()
    smallest_p.cache_clear()
    assert (smallest_p(3, 4) == first).all()


# --- the rule -------------------------------------------------------------------------------------------------------------


def test_p_is_that_of_the_smallest_look_and_holm_goes_over_the_variants():
    baseline, variants = study(0.004, 0.0, 0.008)
    found = TWENTY.compared(baseline, variants)
    for name, values in variants.items():
        d = np.array([values[seed] - baseline[seed] for seed in range(20)])
        looks = [stats.ttest_1samp(d[:n], 0).pvalue for n in range(3, 21)]
        assert found[name].effect.p == pytest.approx(sequential_p(min(looks), 3, 20))
    assert [each.p_holm for each in found.values()] == pytest.approx(holm([each.effect.p for each in found.values()]))


def test_a_decision_stands_when_more_seeds_come_in():
    baseline, variants = study(0.01, 0.012, 0.0)
    decided = {}
    for n in range(3, 21):
        now = TWENTY.compared({s: baseline[s] for s in range(n)}, {k: {s: v[s] for s in range(n)} for k, v in variants.items()})
        for name, each in now.items():
            if name in decided:
                assert each.verdict == decided[name]
            if each.verdict in ("helps", "hurts"):
                decided[name] = each.verdict
                assert each.effect.low > 0 or each.effect.high < 0 or each.p_holm > each.effect.p
    assert decided == {"v0": "helps", "v1": "helps"}


def test_large_effects_stop_early_and_nothing_is_run_beyond_need():
    baseline, variants = study(0.05, 0.0, seed=3)
    found, made = carried_out(TWENTY, baseline, variants)
    runs = {name: [seed for each, seed in made if each == name] for name in ("baseline", "v0", "v1")}
    assert found["v0"].verdict == "helps" and len(runs["v0"]) <= 5
    assert found["v1"].verdict == "undecided" and runs["v1"] == runs["baseline"] == list(range(20))
    assert runs["v0"] == list(range(len(runs["v0"])))
    document = TWENTY.document(found, {name: len(seeds) for name, seeds in runs.items()})
    assert document["decided_after"] == {"v0": len(runs["v0"])} and document["alpha"] == pytest.approx(0.05)


def test_equivalence_stops_too():
    plan = Plan(seeds=tuple(range(40)), matters=0.02)
    found, made = carried_out(plan, *study(0.0, n=40, seed=5))
    assert found["v0"].verdict == NO_LARGER and found["v0"].effect.n < 25
    assert -0.02 < found["v0"].effect.low <= found["v0"].effect.mean <= found["v0"].effect.high < 0.02
    assert made[-1] == ("v0", found["v0"].effect.n - 1)


def test_more_workers_ask_further_ahead():
    baseline, variants = study(0.0)
    assert TWENTY.next_seeds({}, {"v0": {}}) == [(name, seed) for seed in range(3) for name in ("baseline", "v0")]
    first = {seed: baseline[seed] for seed in range(3)}, {"v0": {seed: variants["v0"][seed] for seed in range(3)}}
    assert TWENTY.next_seeds(*first) == [("baseline", 3), ("v0", 3)]
    assert TWENTY.next_seeds(*first, ahead=1) == [("baseline", 3), ("v0", 3), ("baseline", 4), ("v0", 4)]
    late = ({**first[0], 4: baseline[4]}, {"v0": {**first[1]["v0"], 4: variants["v0"][4]}})
    assert TWENTY.compared(*late)["v0"] == TWENTY.compared(*first)["v0"], "what finished out of turn waits"
    assert TWENTY.next_seeds(*late) == [("baseline", 3), ("v0", 3)]


def test_failed_and_inert_runs_are_not_waited_for():
    baseline, variants = study(0.0)
    found, made = carried_out(TWENTY, baseline, variants, failed={"v0": [1], "baseline": [4]})
    assert found["v0"].effect.n == 18 and ("v0", 1) not in made and ("baseline", 1) not in made and ("v0", 4) not in made
    same, made = carried_out(TWENTY, baseline, {"note": baseline}, inert={"note"})
    assert same["note"].verdict == "inert" and len(made) == 6


@pytest.mark.parametrize("seeds, verdict", [(0, "withheld"), (1, "withheld"), (2, "undecided"), (3, "undecided")])
def test_few_seeds(seeds, verdict):
    found, made = carried_out(Plan(seeds=tuple(range(seeds))), *study(0.001))
    assert found["v0"].verdict == verdict and len(made) == 2 * seeds


def test_before_the_first_look_nothing_is_said():
    baseline, variants = study(0.05)
    two = TWENTY.compared({s: baseline[s] for s in range(2)}, {"v0": {s: variants["v0"][s] for s in range(2)}})["v0"]
    assert (two.verdict, two.effect.p, two.effect.low) == ("undecided", 1.0, None) and "first look" in two.sentence


def test_equal_differences_are_no_early_decision():
    """Of a metric that counts, three equal differences are nothing rare."""
    baseline = {seed: 0.9 for seed in range(20)}
    found, made = carried_out(TWENTY, baseline, {"v": {seed: 0.9 + 1 / 270 for seed in range(20)}})
    assert found["v"].verdict == "helps" and found["v"].effect.low is None and found["v"].effect.n >= 8
    assert carried_out(TWENTY, baseline, {"v": dict(baseline)})[0]["v"].verdict == "undecided"


@pytest.mark.parametrize("mode, verdict", [("max", "helps"), ("min", "hurts")])
def test_the_mode_turns_the_verdict(mode, verdict):
    assert carried_out(Plan(seeds=tuple(range(9)), mode=mode), *study(0.05))[0]["v0"].verdict == verdict


# --- simulations ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_interval_and_verdicts_hold_at_whatever_look_the_study_stops():
    """A study errs if any of its looks ever does."""
    plan = Plan(seeds=tuple(range(12)))
    missed = false = 0
    for seed in range(300):
        baseline, variants = study(0.0, n=12, seed=seed)
        found = [
            plan.compared({s: baseline[s] for s in range(n)}, {"v0": {s: variants["v0"][s] for s in range(n)}})["v0"] for n in range(3, 13)
        ]
        missed += any(not each.effect.low <= 0 <= each.effect.high for each in found)
        false += any(each.verdict in ("helps", "hurts") for each in found)
    assert missed / 300 <= 0.08 and false / 300 <= 0.08
    assert missed == false, "the interval leaves zero out exactly where the verdict does"


@pytest.mark.slow
def test_the_family_of_variants_holds_its_level():
    plan, false = Plan(seeds=tuple(range(8))), 0
    for seed in range(400):
        found = plan.compared(*study(0.0, 0.0, 0.0, n=8, seed=1000 + seed))
        false += any(each.verdict in ("helps", "hurts") for each in found.values())
    assert false / 400 <= 0.075


# --- divergence -----------------------------------------------------------------------------------------------------------


def test_the_evidence_of_signs_is_a_fair_bet():
    for d in range(8):
        for k in range(d + 1):
            assert (sign_evidence(k, d + 1) + sign_evidence(k + 1, d + 1)) / 2 == pytest.approx(sign_evidence(k, d))
    coins = np.random.default_rng(0).integers(0, 2, (4000, 40)).cumsum(1)
    evidence = np.array([[sign_evidence(k, d) for k in range(d + 1)] + [0] * (40 - d) for d in range(1, 41)])
    ever = np.array([evidence[np.arange(40), row].max() >= 20 for row in coins])
    assert ever.mean() <= 0.05


def test_a_variant_that_always_diverges_is_stopped():
    baseline, _ = study(0.0)
    found, made = carried_out(TWENTY, baseline, {"v": dict.fromkeys(range(20))})
    assert found["v"].verdict == "hurts" and len(made) == 12 and found["v"].effect.n == 0
    cured, _ = carried_out(TWENTY, dict.fromkeys(range(20)), {"v": baseline})
    assert cured["v"].verdict == "helps"
    both, made = carried_out(TWENTY, dict.fromkeys(range(20)), {"v": dict.fromkeys(range(20))})
    assert both["v"].verdict == "withheld" and len(made) == 40


def test_help_waits_while_lost_seeds_speak_against_it():
    baseline, variants = study(0.05)
    variants["v0"][1] = None
    found, made = carried_out(TWENTY, baseline, variants)
    assert found["v0"].effect.p < 0.01 and found["v0"].verdict == "undecided" and len(made) == 40
    assert divergence_p(baseline, variants["v0"], range(20), 0.05) is None, "one lost seed can prove nothing"
    baseline[1] = None
    assert carried_out(TWENTY, baseline, variants)[0]["v0"].verdict == "helps"


def test_the_effect_shown_is_the_plain_mean():
    baseline, variants = study(0.004)
    shown, plain = TWENTY.compared(baseline, variants)["v0"].effect, paired(baseline, variants["v0"])
    assert (shown.n, shown.mean, shown.std) == (plain.n, plain.mean, plain.std)
    assert shown.high - shown.low > plain.high - plain.low, "looking often costs width"
    assert shown.bootstrap_low is None
    assert shown.low < shown.mean < shown.high
