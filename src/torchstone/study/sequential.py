"""`--until decided`: seeds are added until every variant is decided, and the chance of a false claim is still at most 1 - confidence.

After each seed the paired t test of a variant is looked at, from `FIRST` pairs to the number of seeds that was planned. p of a look
counts for what the smallest p of all looks is worth (`calibration`): that sequential p is valid whenever the study stops, at its
budget, by hand or because all is decided. Holm's correction of these p over the variants holds for the same reason (Bartroff and
Song, "Sequential tests of multiple hypotheses controlling type I and II familywise error rates", J. Statist. Plann. Inference 2014).
The interval is that of the bound: at every look mean +- t(1 - bound / 2) s / sqrt n contains the truth, at all looks together, with
the confidence asked for (a repeated confidence interval: Jennison and Turnbull, "Interim analyses: the repeated confidence interval
approach", JRSS B 1989), so what all looks have in common does. A t test that is valid without a planned end (the mixture of Lai, "On
confidence sequences", Ann. Statist. 1976; Wang and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with
unknown variance", 2024) was measured (`benchmarks/study_statistics.py`): it takes more seeds for every effect and finds fewer weak ones.

A seed at which one of the two diverged gives no look. Whether one diverges more often is tested beside the mean by an e-value of the
seeds at which only one of them did, half for "always the same one", half for any share (Beta mixture; Ville's inequality).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
from scipy import special

from torchstone.study.calibration import bound, sequential_p
from torchstone.study.divergence import diverged
from torchstone.study.power import noncentrality
from torchstone.study.statistics import Effect, Mode, Values, finite, paired
from torchstone.study.verdicts import Comparison, Evidence, joint_confidence, judged

FIRST = 3
METHOD = "paired t after every seed; p of all looks together, by simulation of their smallest under the null; Holm over the variants"
DECIDED = ("helps", "hurts", "inert", "no effect larger than x shown")
Failed = Mapping[str, Collection[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is fixed before the first run; another number of seeds is another study."""

    seeds: tuple[int, ...]
    """In the order in which they are run; the most there will be."""
    mode: Mode = "max"
    confidence: float = 0.95
    matters: float | None = None
    """The smallest effect that matters: a variant is decided, too, when its interval lies inside it."""
    baseline: str = "baseline"

    @property
    def first(self) -> int:
        """Pairs at the first look."""
        return max(2, min(FIRST, len(self.seeds)))

    @property
    def most(self) -> int:
        return max(self.first, len(self.seeds))

    def compared(
        self, baseline: Values, variants: Mapping[str, Values], *, inert: Collection[str] = (), failed: Failed | None = None
    ) -> dict[str, Comparison]:
        """Every variant over the seeds it has, up to its first gap: what finished out of turn waits.

        `failed`: the seeds of a variant (or of `baseline`) that gave no value for another reason than its numbers; they are passed over.
        """
        level = joint_confidence(self.confidence, len(variants.keys() - set(inert)))
        evidence = {}
        for name, values in variants.items():
            seeds = self.taken(name, baseline, values, failed or {})
            before, after = ({seed: side[seed] for seed in seeds} for side in (baseline, values))
            lost = replace(diverged(before, after, paired=True, alpha=0.0), p=divergence_p(before, after, seeds, 1 - self.confidence))
            effect, together = self.effect(before, after, seeds, level)
            evidence[name] = Evidence(effect=effect, together=together, divergence=lost, inert=name in inert)
        return judged(evidence, confidence=self.confidence, matters=self.matters)

    def next_seeds(
        self,
        baseline: Values,
        variants: Mapping[str, Values],
        *,
        inert: Collection[str] = (),
        failed: Failed | None = None,
        ahead: int = 0,
    ) -> list[tuple[str, int]]:
        """The runs (variant or baseline, seed) that the next look of every undecided variant needs, seed by seed; none: all is said.

        `ahead`: looks beyond the next one, to keep more workers busy. They may turn out not to have been needed.
        """
        judged_now = self.compared(baseline, variants, inert=inert, failed=failed)
        wanted: dict[tuple[int, str], None] = {}
        for name, values in variants.items():
            done = len(self.taken(name, baseline, values, failed or {}))
            if done >= self.first and judged_now[name].verdict in DECIDED:
                continue
            sides = ((self.baseline, baseline), (name, values))
            usable = [seed for seed in self.seeds if not any(seed in (failed or {}).get(side, ()) for side, _ in sides)]
            for seed in usable[: max(self.first, done + 1 + ahead)]:
                wanted |= {(self.seeds.index(seed), side): None for side, found in sides if seed not in found}
        return [(name, self.seeds[i]) for i, name in sorted(wanted, key=lambda run: run[0])]

    def document(self, comparisons: Mapping[str, Comparison], ended: Mapping[str, int]) -> dict[str, Any]:
        """As in results.json; `ended`: how many seeds each variant has."""
        decided = {name: ended[name] for name, found in comparisons.items() if found.verdict in DECIDED}
        return {"method": METHOD, "alpha": 1 - self.confidence, "most": self.most, "first": self.first, "decided_after": decided}

    def taken(self, name: str, baseline: Values, values: Values, failed: Failed) -> list[int]:
        """The seeds at which both have come to an end, up to the first that is to come."""
        found = []
        for seed in self.seeds:
            if seed in baseline and seed in values:
                found.append(seed)
            elif seed not in failed.get(name, ()) and seed not in failed.get(self.baseline, ()):
                break
        return found

    def effect(self, baseline: Values, variant: Values, seeds: Sequence[int], level: float) -> tuple[Effect, tuple[float, float] | None]:
        """The effect with the p and the interval of all looks together, and the interval at another confidence."""
        fixed = paired(baseline, variant, self.confidence, mode=self.mode, resamples=0)
        pairs = [seed for seed in seeds if seed in finite(baseline) and seed in finite(variant)]
        looks = [
            paired(pick(baseline, pairs[:n]), pick(variant, pairs[:n]), self.confidence, mode=self.mode, resamples=0)
            for n in range(self.first, len(pairs) + 1)
        ]
        if fixed.p is None or fixed.std is None:
            return fixed, None
        least = min((look.p for look in looks if look.p is not None), default=1.0)
        low_high = self.common(looks, self.confidence)
        low, high = low_high or (None, None)
        critical = 1 - bound(1 - self.confidence, self.first, self.most)
        last = noncentrality(self.most - 1, critical) * fixed.std / sqrt(self.most)
        effect = replace(fixed, p=sequential_p(least, self.first, self.most), low=low, high=high, smallest=last if low_high else None)
        return effect, self.common(looks, level)

    def common(self, looks: Sequence[Effect], confidence: float) -> tuple[float, float] | None:
        """What the intervals of all looks have in common, and the present mean; the last one's should they have nothing."""
        critical = 1 - bound(1 - confidence, self.first, self.most)
        intervals = [found for look in looks if (found := look.interval(critical)) is not None]
        if not intervals or looks[-1].mean is None:
            return None
        low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
        if low > high:
            return intervals[-1]
        return min(low, looks[-1].mean), max(high, looks[-1].mean)


def pick(values: Values, seeds: Sequence[int]) -> dict[int, float | None]:
    return {seed: values[seed] for seed in seeds}


def divergence_p(baseline: Values, variant: Values, seeds: Sequence[int], alpha: float) -> float | None:
    """Valid at any time: 1 / the largest e-value so far. None while no outcome of the discordant seeds could reach alpha."""
    own, other = finite(variant), finite(baseline)
    signs = [seed in other for seed in seeds if (seed in own) != (seed in other)]
    if not signs or 1 / sign_evidence(len(signs), len(signs)) > alpha:
        return None
    counts = np.cumsum(signs)
    return min(1.0, 1 / max(sign_evidence(int(k), d) for d, k in enumerate(counts, start=1)))


def sign_evidence(k: int, d: int) -> float:
    """E-value of k of d for a fair coin: its mean under the null is 1 after every toss.

    >>> sign_evidence(0, 0), sign_evidence(6, 6) > 20, round(sum(sign_evidence(k, 2) * c for k, c in enumerate((0.25, 0.5, 0.25))), 12)
    (1.0, True, 1.0)
    """
    one_side = 2.0 ** (d - 1) * ((k == d) + (k == 0))
    any_share = 2.0**d * float(special.beta(k + 1, d - k + 1))
    return (one_side + any_share) / 2
