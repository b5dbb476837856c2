"""Votes: k readings become one score, or none.

In: the readings of one completion, some of them failed. Out: the aggregate of the scores where the failed ones could not have changed
it, whatever they had been, and None otherwise: a minimum is settled by one vote at the bottom, a median by an agreeing majority, a
mean never.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Literal

from preceptor.judge.verdicts import MENU
from preceptor.records import Status, Vote

Aggregate = Literal["min", "mean", "median"]

_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {"min": min, "mean": fmean, "median": median}


def aggregate_votes(votes: Sequence[Vote], failed: int, how: Aggregate) -> float | None:
    """The aggregate of the scores, or None when `failed` further votes, of any score, could change it."""
    combine = _AGGREGATES[how]
    scores = [vote.score for vote in votes if vote.score is not None]
    lowest, highest = (combine([*scores, *[bound] * failed]) for bound in (min(MENU.values()), max(MENU.values())))
    return lowest if lowest == highest else None


def floor(status: Status) -> float | None:
    """The score of a completion that is not `ok`, by plain code, before a judge is asked: 0 for what is its own fault.

    None for `ok`, which must be judged, and for `failed`, where the model's server lost it and there is nothing to score.
    """
    return None if status in ("ok", "failed") else 0.0


def vote_seed(seed: int, completion_id: str, vote: int, attempt: int) -> int:
    """A seed in [0, 2**31) for one reading."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{completion_id}:{vote}:{attempt}".encode(), digest_size=4).digest()) >> 1
