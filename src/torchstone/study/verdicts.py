"""From numbers to words: what each variant of a study may be said to do, and one sentence that carries n and the interval.

    inert                            bit for bit the baseline: the switch changed nothing (the caller compares the runs)
    withheld                         fewer than two pairs, so nothing is known of chance
    helps, hurts                     p <= 1 - confidence after Holm's correction over all variants of the study
    no effect larger than x shown    x was named as the smallest effect that matters, and the interval lies inside (-x, x): the one at
                                     1 - (1 - confidence) / m, of m variants, so that all such claims hold together (two one-sided tests:
                                     Schuirmann, J. Pharmacokinet. Biopharm. 1987, at half the level, to agree with the interval shown)
    undecided                        else; the sentence says how large an effect the interval still allows

The chance of any false "helps" or "hurts" in a study is at most 1 - confidence, and so is that of any false "no effect". What
diverged (`divergence`) can decide by itself, in the same correction; and a mean is not called better while the variant diverged at
seeds where the baseline did not, nor worse the other way round.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torchstone.study import statistics
from torchstone.study.divergence import Divergence, diverged, in_words
from torchstone.study.statistics import Effect, Mode, Values, holm

Verdict = Literal["helps", "hurts", "inert", "no effect larger than x shown", "undecided", "withheld"]
NO_LARGER: Verdict = "no effect larger than x shown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known of a variant before it is judged beside the others."""

    effect: Effect
    together: tuple[float, float] | None
    """The interval at which those of all variants hold together."""
    divergence: Divergence
    inert: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A variant judged."""

    effect: Effect
    p_holm: float | None
    divergence: Divergence
    p_diverged_holm: float | None
    inert: bool
    verdict: Verdict
    sentence: str

    def document(self) -> dict[str, Any]:
        """As in results.json."""
        effect = asdict(self.effect)
        del effect["df"], effect["confidence"], effect["mode"]
        return {
            **effect,
            "p_holm": self.p_holm,
            "inert": self.inert,
            "diverged": len(self.divergence.variant),
            "diverged_seeds": list(self.divergence.variant),
            "diverged_seeds_baseline": list(self.divergence.baseline),
            "p_diverged": self.divergence.p,
            "p_diverged_holm": self.p_diverged_holm,
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


def compared(
    baseline: Values,
    variants: Mapping[str, Values],
    *,
    mode: Mode = "max",
    confidence: float = 0.95,
    paired: bool = True,
    matters: float | None = None,
    inert: Collection[str] = (),
    resamples: int = statistics.RESAMPLES,
) -> dict[str, Comparison]:
    """Every variant against the baseline, for a number of seeds that was fixed beforehand.

    `matters`: the smallest effect that matters, if the user named one. `inert`: the variants whose runs are the baseline's, bit for bit.
    Values are by the study's seeds; a run that failed for another reason than its numbers is left out.

    >>> found = compared({0: 0.90, 1: 0.92, 2: 0.91}, {"ema": {0: 0.93, 1: 0.94, 2: 0.95}})
    >>> print(found["ema"].verdict + ": " + found["ema"].sentence)
    helps: Better by 0.03 on average: 95 % interval +0.00516 to +0.0548 over 3 seeds, p = 0.035.
    """
    effect_of = statistics.paired if paired else statistics.unpaired
    level = joint_confidence(confidence, len(variants.keys() - set(inert)))
    evidence = {}
    for name, values in variants.items():
        effect = effect_of(baseline, values, confidence, mode=mode, resamples=resamples)
        lost = diverged(baseline, values, paired=paired, alpha=1 - confidence)
        evidence[name] = Evidence(effect=effect, together=effect.interval(level), divergence=lost, inert=name in inert)
    return judged(evidence, confidence=confidence, matters=matters)


def joint_confidence(confidence: float, comparisons: int) -> float:
    """Of each interval, for all of them to hold together (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, comparisons)


def judged(evidence: Mapping[str, Evidence], *, confidence: float, matters: float | None = None) -> dict[str, Comparison]:
    """The verdicts: one correction over all tests of the study, of means and of divergence."""
    tested = [(name, test) for name, found in evidence.items() if not found.inert for test in ("mean", "diverged")]
    p = [evidence[name].effect.p if test == "mean" else evidence[name].divergence.p for name, test in tested]
    adjusted = dict(zip(tested, holm(p), strict=True))
    comparisons = sum(value is not None for value in p)
    made = {}
    for name, found in evidence.items():
        p_holm, p_lost = adjusted.get((name, "mean")), adjusted.get((name, "diverged"))
        verdict = verdict_of(found, p_holm, p_lost, confidence, matters)
        sentence = sentence_of(found, verdict, p_holm, p_lost, comparisons, matters)
        made[name] = Comparison(
            effect=found.effect,
            p_holm=p_holm,
            divergence=found.divergence,
            p_diverged_holm=p_lost,
            inert=found.inert,
            verdict=verdict,
            sentence=sentence,
        )
    return made


def verdict_of(found: Evidence, p_holm: float | None, p_lost: float | None, confidence: float, matters: float | None) -> Verdict:
    effect, lost, alpha = found.effect, found.divergence, 1 - confidence
    if found.inert:
        return "inert"
    if p_lost is not None and p_lost <= alpha:
        return "hurts" if lost.more else "helps"
    if effect.n < 2 or effect.n_baseline < 2 or effect.mean is None:
        return "withheld"
    if p_holm is not None and p_holm <= alpha:
        better = effect.mean > 0
        return "undecided" if lost.speaks_against(better) else "helps" if better else "hurts"
    lopsided = lost.speaks_against(True) or lost.speaks_against(False)
    if matters is not None and found.together is not None and not lopsided and max(map(abs, found.together)) < matters:
        return NO_LARGER
    return "undecided"


def sentence_of(
    found: Evidence, verdict: Verdict, p_holm: float | None, p_lost: float | None, comparisons: int, matters: float | None
) -> str:
    effect = found.effect
    if verdict == "inert":
        return "Bit for bit the same as the baseline at every seed: this switch changes nothing here."
    parts = [mean_in_words(found, verdict, p_holm, comparisons, matters)]
    lost = in_words(found.divergence)
    if lost:
        deciding = p_lost is not None and p_lost <= 1 - effect.confidence
        against = verdict == "undecided" and p_holm is not None and p_holm <= 1 - effect.confidence
        tested = "" if p_lost is None else f" (p = {p_lost:.2g})"
        parts.insert(
            0 if deciding else 1, lost[0].upper() + lost[1:] + tested + (", which speaks against that mean" if against else "") + "."
        )
    return " ".join(parts)


def mean_in_words(found: Evidence, verdict: Verdict, p_holm: float | None, comparisons: int, matters: float | None) -> str:
    """The sentence on the pairs that have a difference."""
    effect = found.effect
    seeds = seeds_in_words(effect)
    if effect.mean is None:
        return "There is no pair of finished runs to compare."
    size = f"{'Better' if effect.mean >= 0 else 'Worse'} by {abs(effect.mean):.3g} on average"
    if effect.n < 2 or effect.n_baseline < 2:
        return f"{size} over {seeds}: nothing is known of chance with fewer than two seeds, so no verdict is given."
    p = "" if p_holm is None else f"p = {p_holm:.2g}" + (f" corrected for {comparisons} tests" if comparisons > 1 else "")
    if effect.low is None or effect.high is None:
        if effect.std:
            return f"{size} over {seeds}: too few for the first look of the sequential rule."
        unknown = "their spread is not known, so there is no interval"
        return f"All differences over {seeds} are {effect.difference:+.3g}: {unknown}; {p} by an exact test."
    interval = f"{100 * effect.confidence:g} % interval {span(effect, (effect.low, effect.high))} over {seeds}"
    if verdict == NO_LARGER:
        own = effect.low, effect.high
        joint = f" (for all comparisons together {span(effect, found.together)})" if found.together not in (None, own) else ""
        return f"No effect larger than {matters:.3g} shown: {interval}{joint} lies inside -{matters:.3g} to {matters:.3g}."
    if p_holm is not None and p_holm <= 1 - effect.confidence:
        small = matters is not None and max(abs(effect.low), abs(effect.high)) < matters
        return f"{size}: {interval}, {p}" + (f"; less than the {matters:.3g} that matters." if small else ".")
    widest = max(abs(effect.low), abs(effect.high))
    seen = "" if effect.smallest is None else f"; four times in five these seeds would show an effect of {effect.smallest:.3g}"
    excluded = "leaves zero out by itself, but not beside the other tests" if effect.low > 0 or effect.high < 0 else ""
    return f"{size}: {interval} {excluded or f'still allows an effect of {widest:.3g}'}, {p}{seen}."


def span(effect: Effect, ends: tuple[float, float]) -> str:
    """An interval as the metric has it: variant minus baseline."""
    low, high = ends if effect.mode == "max" else (-ends[1], -ends[0])
    return f"{low:+.3g} to {high:+.3g}"


def seeds_in_words(effect: Effect) -> str:
    if effect.n != effect.n_baseline:
        return f"{effect.n} and {effect.n_baseline} seeds"
    return f"{effect.n} seed{'' if effect.n == 1 else 's'}"
