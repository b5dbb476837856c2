"""The judge against the truth that others provide: an oracle or people.

In: judgements with their labels. Out: counts. Abstentions stand apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from preceptor.records import Abstention, Disposition, Judgement


@dataclass(frozen=True)
class Case:
    """One judgement and the truth about it: whether the completion is good, and what the policy asks for."""

    category: str
    disposition: Disposition
    judgement: Judgement
    good: bool


@dataclass(frozen=True)
class Confusion:
    """Counts of judge against truth; positive means `good`. Abstentions stand apart."""

    true_positive: int = 0
    false_positive: int = 0
    true_negative: int = 0
    false_negative: int = 0
    abstained: int = 0

    @property
    def sensitivity(self) -> float | None:
        """Share of the good that was accepted (TPR); None without any."""
        return _share(self.true_positive, self.false_negative)

    @property
    def specificity(self) -> float | None:
        """Share of the bad that was turned down (TNR); None without any."""
        return _share(self.true_negative, self.false_positive)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of both; None where one is unknown."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return (self.sensitivity + self.specificity) / 2


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None


def confusion(cases: Iterable[Case], threshold: float = 1.0) -> dict[tuple[str, Disposition], Confusion]:
    """Counts by category and disposition; a verdict accepts when its score is at least `threshold`."""
    table: dict[tuple[str, Disposition], Counter[str]] = defaultdict(Counter)
    for case in cases:
        table[case.category, case.disposition][_cell(case, threshold)] += 1
    return {key: Confusion(**counts) for key, counts in sorted(table.items())}


def total(table: Mapping[Any, Confusion]) -> Confusion:
    """All cells of a table added up."""
    counts: Counter[str] = Counter()
    for cell in table.values():
        counts.update(vars(cell))
    return Confusion(**counts)


def _cell(case: Case, threshold: float) -> str:
    if isinstance(case.judgement, Abstention):
        return "abstained"
    accepted = case.judgement.score >= threshold
    return {
        (True, True): "true_positive",
        (True, False): "false_positive",
        (False, False): "true_negative",
        (False, True): "false_negative",
    }[accepted, case.good]
