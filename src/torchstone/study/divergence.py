"""Runs that diverged, as an outcome of their own: the two shares are compared, and no average hides them.

A seed at which a run diverged has no difference, so it is lost for the mean; what is lost is not lost at random, so

    - whether one of the two diverges more often is tested by itself (Fisher's exact test, two-sided), in the same family as the
      means: Fisher, "The logic of inductive inference", JRSS 1935. McNemar's test of the pairs could not reject with five seeds,
      were all five to diverge (2^-4 = 0.06); Fisher's is exact where the two fail independently, and says less than it may where
      the same seeds fail in both, which is what sharing seeds does if it does anything;
    - a mean speaks for the pairs that are left only. `speaks_against` tells whether the lost ones, each counted as worse than any
      finished run, would contradict it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from scipy import stats

from torchstone.study.statistics import Values, finite


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Which runs of the variant and of the baseline diverged."""

    variant: tuple[int, ...]
    """Seeds."""
    n: int
    """Runs of the variant that came to an end, diverged ones among them."""
    baseline: tuple[int, ...]
    n_baseline: int
    paired: bool
    p: float | None
    """None where none diverged, or so few that no outcome could be significant."""

    def speaks_against(self, better: bool) -> bool:
        """Whether lost runs contradict a mean that calls the variant better (or worse)."""
        own, other = (self.variant, self.baseline) if better else (self.baseline, self.variant)
        return bool(set(own) - set(other)) if self.paired else bool(own)

    @property
    def more(self) -> bool:
        """The variant diverges more often than the baseline."""
        return len(self.variant) * self.n_baseline > len(self.baseline) * self.n


def diverged(baseline: Values, variant: Values, *, paired: bool, alpha: float) -> Divergence:
    """Counts over the seeds that both have come to an end with; unpaired, over all."""
    if paired:
        seeds = baseline.keys() & variant.keys()
        baseline, variant = ({seed: values[seed] for seed in seeds} for values in (baseline, variant))
    own, other = (tuple(sorted(values.keys() - finite(values).keys())) for values in (variant, baseline))
    n, m = len(variant), len(baseline)
    lost = len(own) + len(other)
    # Tarone, Biometrics 1990: a test that cannot reject, whatever it finds, costs the others nothing.
    best = min(fisher(k, n, lost - k, m) for k in (min(lost, n), max(0, lost - m)))
    p = fisher(len(own), n, len(other), m) if best <= alpha else None
    return Divergence(variant=own, n=n, baseline=other, n_baseline=m, paired=paired, p=p)


def fisher(k: int, n: int, l: int, m: int) -> float:
    """Two-sided p of k of n against l of m.

    >>> round(fisher(5, 5, 0, 5), 4) == round(2 / 252, 4), fisher(0, 5, 0, 5)
    (True, 1.0)
    """
    return float(stats.fisher_exact([[k, n - k], [l, m - l]])[1])  # type: ignore[index]


def in_words(found: Divergence) -> str:
    """Empty where no run diverged."""
    if not found.variant and not found.baseline:
        return ""
    said = f"it diverged at {counted(found.variant, found.n)}, the baseline at {counted(found.baseline, found.n_baseline)}"
    return said


def counted(seeds: Collection[int], n: int) -> str:
    """
    >>> counted([1, 4], 5), counted([], 5)
    ('2 of 5 seeds (1, 4)', 'none of 5')
    """
    if not seeds:
        return f"none of {n}"
    shown = ", ".join(str(seed) for seed in sorted(seeds)[:10]) + (", …" if len(seeds) > 10 else "")
    return f"{len(seeds)} of {n} seeds ({shown})"
