"""Labels: what the router said about one conversation, and how far labels can be trusted.

In: the readings of the router. Out: `Label`, the row of `02_labels.jsonl`; figures for the manifest: how far the readings of one conversation
agree, and how often the router finds the label that a prompt already had.

The one idea: three things are called confidence, and they are kept apart: the share of the votes for a category (it decides), what the
router says of itself (it is measured), and agreement with labels that somebody else gave (it is the truth one has).

Not here: asking the router (`routing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, get_args

from preceptor import stats
from preceptor.records import Message, Record

Confidence = Literal["low", "medium", "high"]
Failure = Literal["transport", "refused", "truncated", "unparsable", "off_menu"]
Reason = Literal["transport", "refused", "truncated", "unparsable", "off_menu", "no_category", "disagreement"]
"""Why there is no label. The first five are failures of the router; the last two are what it found."""

CONFIDENCES: tuple[Confidence, ...] = ("low", "medium", "high")


class Reading(Record):
    """One reading by the router. `categories` is None exactly when `failure` is set; it may be empty: no category bears on it."""

    categories: tuple[str, ...] | None
    confidence: Confidence | None = None
    """What the router says of itself."""
    failure: str | None = None
    raw: str = ""
    reasoning: str = ""
    seed: int = 0


class Label(Record):
    """What the router made of one conversation. `reason` is set exactly when `categories` is empty."""

    messages: tuple[Message, ...]
    prompt_id: str | None
    """The prompt in `02_prompts.jsonl`; None: it was dropped."""
    router: str
    """Identity hash of the router: model, wording, settings. The categories it was shown are those of `spec_hash`."""
    spec_hash: str
    categories: tuple[str, ...]
    shares: dict[str, float]
    """Category -> share of the votes that name it, in [0, 1]; categories below the threshold too."""
    reason: Reason | None = None
    detail: str = ""
    given: str | None = None
    """The label that the prompt brought, which stays."""
    votes: tuple[Reading, ...] = ()

    @property
    def counted(self) -> list[Reading]:
        """The readings that count: of a vote that was asked for twice, the second."""
        return [reading for reading in self.votes if reading.failure is None]

    @property
    def failed(self) -> bool:
        """Whether the router failed, rather than found nothing."""
        return self.reason in get_args(Failure)


# Figures


def jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    """Size of what both name over the size of what either names; 1 where both name nothing (Jaccard 1912)."""
    either = set(one) | set(other)
    return len(set(one) & set(other)) / len(either) if either else 1.0


def agreement(labels: Sequence[Label]) -> stats.Estimate | None:
    """Mean Jaccard index over all pairs of readings of a conversation, averaged over conversations; None without any pair."""
    each = []
    for found in labels:
        pairs = [jaccard(one.categories or (), other.categories or ()) for one, other in combinations(found.counted, 2)]
        each += [sum(pairs) / len(pairs)] if pairs else []
    return stats.proportion(each) if each else None


def report(labels: Sequence[Label]) -> dict[str, Any]:
    """Counts and figures for the manifest: labels by category, agreement between votes, and what is measured against given labels."""
    votes = [reading for found in labels for reading in found.votes]
    measured = [found for found in labels if found.given is not None]
    return {
        "categories": Counter(category for found in labels for category in found.categories),
        "several": sum(len(found.categories) > 1 for found in labels),
        "unlabelled": Counter(found.reason for found in labels if found.reason),
        "votes": len(votes),
        "failed_votes": Counter(reading.failure.partition(":")[0] for reading in votes if reading.failure),
        "agreement": _figure(agreement(labels)),
        "measured": measure(measured) if measured else None,
    }


def measure(labels: Sequence[Label]) -> dict[str, Any]:
    """The router against given labels. `accuracy`: the main label is the given one; `named`: it is among the labels. A conversation that
    the router did not label counts as wrong in both; failures of the router are left out and counted in `failed`."""
    sorted_out = [found for found in labels if not found.failed]
    right = [found.categories[:1] == (found.given,) for found in sorted_out]
    unanimous = [hit for hit, found in zip(right, sorted_out, strict=True) if _unanimous(found)]
    split = [hit for hit, found in zip(right, sorted_out, strict=True) if not _unanimous(found)]
    pairs = Counter((found.given or "", found.categories[0] if found.categories else f"({found.reason})") for found in sorted_out)
    return {
        "accuracy": _share(right),
        "named": _share([found.given in found.categories for found in sorted_out]),
        "accuracy_unanimous": _share(unanimous),
        "accuracy_split": _share(split),
        "accuracy_by_stated_confidence": {stated: _share(_stated(sorted_out, right, stated)) for stated in CONFIDENCES},
        "by_category": {given: _share(_of(sorted_out, right, given)) for given in sorted({found.given or "" for found in sorted_out})},
        "failed": len(labels) - len(sorted_out),
        "confusion": [{"given": given, "routed": routed, "n": count} for (given, routed), count in sorted(pairs.items())],
    }


def _unanimous(found: Label) -> bool:
    return bool(found.categories) and found.shares[found.categories[0]] == 1.0


def _stated(labels: Sequence[Label], right: Sequence[bool], stated: Confidence) -> list[bool]:
    """Hits among the conversations where the lowest confidence that any reading states is this one."""
    lowest = [
        min((CONFIDENCES.index(reading.confidence) for reading in found.counted if reading.confidence), default=-1) for found in labels
    ]
    return [hit for hit, place in zip(right, lowest, strict=True) if place == CONFIDENCES.index(stated)]


def _of(labels: Sequence[Label], right: Sequence[bool], given: str) -> list[bool]:
    return [hit for hit, found in zip(right, labels, strict=True) if found.given == given]


def _share(hits: Sequence[bool]) -> dict[str, float | int] | None:
    return _figure(stats.wilson(sum(hits), len(hits))) if hits else None


def _figure(estimate: stats.Estimate | None) -> dict[str, float | int] | None:
    """Value, interval (95 %) and n."""
    return None if estimate is None else {name: round(value, 4) for name, value in vars(estimate).items()}


def figures(notes: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, figure) rows to print, from the notes that `report` made."""
    measured = notes["measured"] or {}
    rows = [
        ("votes agree (Jaccard)", notes["agreement"]),
        ("main label is the given one", measured.get("accuracy")),
        ("given label is among the labels", measured.get("named")),
        ("  where the votes are unanimous", measured.get("accuracy_unanimous")),
        ("  where they are not", measured.get("accuracy_split")),
    ]
    rows += [(f"  of {category}", figure) for category, figure in measured.get("by_category", {}).items()]
    return [(name, figure) for name, figure in rows if figure]
