"""Judge: completion + the clauses of its category -> verdict, or an abstention with its reason.

In: a completion seen through a view, the specification, G_RM. Out: `04_verdicts.jsonl`.

The judge reads spec(category) and votes k times; the score is by default the minimum, because one reading may overlook a
problem (paper, section 2.3.2). Filtering shows it the reasoning (`FullView`); RL does not (`AnswerView`, section 2.4), and
`reward` accepts nothing else. What is the completion's own fault has a floor score by plain code; the judge is not asked.

The one idea: a failed vote is never a number. A vote fails when the model fails or when its text holds no verdict: the
last JSON object with `score` and `clauses` counts, a score must be on the menu, a clause must stand in the text the judge
read. Where votes are missing, the verdict stands only if they could not have changed it, whatever they had been: a minimum is
settled by one vote at the bottom, a median by an agreeing majority, a mean never. Otherwise the failed votes are asked for
once more with another seed, and if that does not settle it, the judgement is an abstention. So a failure can neither raise nor
lower a score.

All readings are kept, the failed ones with their reason. Not here: thresholds (`filter`), intervals (`stats`), offline labels
as the opinion of "another AI" (section 2.3.2), and the truth: `confusion` compares with an oracle that others provide.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor import stale
from preceptor.errors import StageFailed
from preceptor.models import Model, Reply, Request
from preceptor.records import (
    Abstention,
    AnswerView,
    Completion,
    Disposition,
    FullView,
    Judgement,
    Prompt,
    Sampling,
    Status,
    Verdict,
    View,
    Vote,
    content_id,
    judgement_from_row,
)
from preceptor.runs import ARTEFACTS, Ledger, Run, Summary, read_records
from preceptor.spec import Spec
from preceptor.wording import Wording

MENU: Mapping[int, float] = {0: 0.0, 1: 0.5, 2: 1.0}
"""What a judge may write, and the score it stands for: breaks the policy, follows it with a flaw, follows it fully."""

Failure = Literal["transport", "refused", "truncated", "unparsable", "off_menu", "unfounded"]
"""Why a vote does not count. The first three come from the model, the others from its text."""
Aggregate = Literal["min", "mean", "median"]
Views = Sequence[tuple[str, AnswerView | FullView]]
Progress = Callable[[int, int], None]

_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")
_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {"min": min, "mean": fmean, "median": median}
_FAILED_REPLY: Mapping[Status, Failure] = {
    "failed": "transport",
    "refused": "refused",
    "truncated": "truncated",
    "malformed": "unparsable",
    "empty": "unparsable",
}
_TRIES = 2
_WATCH_AFTER = 200
"""Rewards after which a rate means something: at a maximum of 5 %, its standard error is 1.5 points."""


class JudgeConfig(BaseModel):
    """How completions are judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: View = "reasoning+answer"
    """What the judge is shown: the reasoning as well when filtering, the answer alone in RL."""
    votes: int = Field(default=3, ge=1)
    """Independent readings of each completion."""
    aggregate: Aggregate = "min"
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=2048, ge=1)
    """New tokens per vote, the judge's reasoning included."""
    detail: Literal["full", "rules"] = "full"
    """Whether the routed specification carries rationale and examples."""
    seed: int = 0
    max_abstention: float = Field(default=0.05, ge=0, le=1)
    """Above this share of abstentions the stage stops: a reward or a filter with holes is not trusted."""

    @model_validator(mode="after")
    def _votes_differ(self) -> JudgeConfig:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("several votes at temperature 0 are one vote; set votes = 1 or temperature > 0")
        return self


# Parsing


@dataclass(frozen=True)
class Parsed:
    """A verdict read from a judge's text: `score` in [0, 1]."""

    score: float
    clauses: tuple[str, ...]


@dataclass(frozen=True)
class Unparsed:
    """Why there is no verdict in a text."""

    failure: Failure
    detail: str


def parse_verdict(text: str, menu: Mapping[int, float], known_clauses: AbstractSet[str]) -> Parsed | Unparsed:
    """The last verdict `{"score": 2, "clauses": ["T2"]}` in `text`, or why there is none. Never a default, never an earlier verdict.

    A verdict is a flat JSON object with both keys, `clauses` a list of strings (it may be empty), no key twice. `score` must be
    a JSON number equal to a value of the menu: `2` and `2.0` are, `"2"`, `true`, `7` and `NaN` are not (`off_menu`). A clause that
    is not in `known_clauses` makes the vote `unfounded`. If the word `"score"` appears again after the last verdict, the judge
    began another one that cannot be read: `unparsable`.
    """
    verdict, end = None, 0
    for match in _FLAT_OBJECT.finditer(text):
        found = _verdict_object(match[0])
        if found is not None:
            verdict, end = found, match.end()
    if verdict is None:
        return Unparsed("unparsable", "no verdict object")
    if '"score"' in text[end:]:
        return Unparsed("unparsable", "a broken verdict follows the last whole one")
    score, clauses = verdict["score"], tuple(verdict["clauses"])
    if isinstance(score, bool) or not isinstance(score, int | float) or score not in menu:
        return Unparsed("off_menu", f"score {score!r}")
    if unknown := [clause for clause in clauses if clause not in known_clauses]:
        return Unparsed("unfounded", f"cites {unknown[0]!r}, which is not in the policies shown")
    return Parsed(menu[int(score)], clauses)


def _verdict_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None
    clauses = value.get("clauses")
    whole = "score" in value and isinstance(clauses, list) and all(isinstance(clause, str) for clause in clauses)
    return value if whole else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


# Voting


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


@dataclass
class _Ballot:
    """The readings of one completion as they come in."""

    completion_id: str
    view: AnswerView | FullView
    readings: dict[tuple[int, int], Vote]
    """(vote, attempt) -> reading."""

    def final(self) -> list[Vote]:
        """The reading that counts for each vote: the last attempt."""
        return [self.readings[vote, attempt] for vote, attempt in {vote: attempt for vote, attempt in sorted(self.readings)}.items()]


@dataclass(frozen=True)
class _Ask:
    """One reading to be made."""

    ballot: _Ballot
    vote: int
    attempt: int
    seed: int


class Judge:
    """A judge model bound to a specification, a wording and a voting rule."""

    def __init__(self, model: Model, wording: Wording, spec: Spec, config: JudgeConfig):
        self.model, self.wording, self.spec, self.config = model, wording, spec, config
        settings = config.model_dump(mode="json", exclude={"max_abstention"})
        self.identity = content_id(
            {"model": model.identity, "wording": wording.identity, "config": settings, "menu": list(MENU.items()), "tries": _TRIES}
        )

    def judge_many(self, views: Views) -> Iterator[Judgement]:
        """One judgement per view, as they are settled. An answer without text gets the floor; the model is not asked.

        Raises `StageFailed` for a view of another kind than the config's, and for an id that stands twice.
        """
        self._check(views)
        ballots = [_Ballot(completion_id, view, {}) for completion_id, view in views]
        for ballot in ballots:
            if not ballot.view.answer.strip():
                yield self.floor_verdict(ballot.completion_id)
        asked = sorted((ballot for ballot in ballots if ballot.view.answer.strip()), key=lambda ballot: ballot.view.categories)
        again: list[_Ask] = []
        for ballot in self._settled([self._ask(ballot, vote, 0) for ballot in asked for vote in range(self.config.votes)]):
            judgement = self._judgement(ballot)
            if isinstance(judgement, Verdict):
                yield judgement
                continue
            again += [self._ask(ballot, vote, 1) for (vote, _), reading in sorted(ballot.readings.items()) if reading.failure]
        for ballot in self._settled(again):
            yield self._judgement(ballot)

    def floor_verdict(self, completion_id: str) -> Verdict:
        """The verdict on a completion that is at fault by itself. It has no votes."""
        return Verdict(
            completion_id=completion_id, judge=self.identity, spec_hash=self.spec.hash, view=self.config.view, score=0.0, votes=()
        )

    def known_clauses(self, *categories: str) -> frozenset[str]:
        """Ids of the clauses that the judge reads about categories: their own, their defaults, the general ones, and where exclusions point."""
        own = (clause for category in categories for clause in self.spec.categories[category].every_clause)
        clauses = (*own, *self.spec.general)
        pointed = {exclusion.use for clause in clauses for exclusion in clause.exclusions if exclusion.use}
        return frozenset({clause.clause for clause in clauses} | pointed)

    def _check(self, views: Views) -> None:
        expected = AnswerView if self.config.view == "answer" else FullView
        for completion_id, view in views:
            if type(view) is not expected:
                raise StageFailed(f"judge: {completion_id}: a judge of {self.config.view!r} was handed a {type(view).__name__}")
            if unknown := [category for category in view.categories if category not in self.spec.categories]:
                raise StageFailed(f"judge: {completion_id}: the specification has no category {unknown[0]!r}")
        doubled = [completion_id for completion_id, count in Counter(name for name, _ in views).items() if count > 1]
        if doubled:
            raise StageFailed(f"judge: {doubled[0]} was handed over more than once")

    def _ask(self, ballot: _Ballot, vote: int, attempt: int) -> _Ask:
        return _Ask(ballot, vote, attempt, vote_seed(self.config.seed, ballot.completion_id, vote, attempt))

    def _request(self, ask: _Ask) -> Request:
        policy = self.spec.for_categories(ask.ballot.view.categories, self.config.detail)
        sampling = Sampling(temperature=self.config.temperature, top_p=self.config.top_p, max_tokens=self.config.max_tokens, seed=ask.seed)
        return Request(self.wording.judge(policy, ask.ballot.view), sampling)

    def _settled(self, asks: Sequence[_Ask]) -> Iterator[_Ballot]:
        """Put the questions and yield each ballot when its last reading has come in."""
        open_asks = Counter(ask.ballot.completion_id for ask in asks)
        for index, reply in self.model.stream([self._request(ask) for ask in asks]):
            ask = asks[index]
            ask.ballot.readings[ask.vote, ask.attempt] = self._read(reply, ask)
            open_asks[ask.ballot.completion_id] -= 1
            if open_asks[ask.ballot.completion_id] == 0:
                yield ask.ballot

    def _read(self, reply: Reply, ask: _Ask) -> Vote:
        """One reply as a vote. `failure` is `kind: detail`."""
        kept = {"raw": reply.answer, "reasoning": reply.reasoning, "seed": ask.seed}
        if reply.status != "ok":
            return Vote(score=None, failure=f"{_FAILED_REPLY[reply.status]}: {reply.detail or reply.status}", **kept)
        parsed = parse_verdict(reply.answer, MENU, self.known_clauses(*ask.ballot.view.categories))
        if isinstance(parsed, Unparsed):
            return Vote(score=None, failure=f"{parsed.failure}: {parsed.detail}", **kept)
        return Vote(score=parsed.score, clauses=parsed.clauses, **kept)

    def _judgement(self, ballot: _Ballot) -> Judgement:
        final = ballot.final()
        failures = [vote.failure for vote in final if vote.failure]
        score = aggregate_votes(final, len(failures), self.config.aggregate)
        row: dict[str, Any] = {
            "completion_id": ballot.completion_id,
            "judge": self.identity,
            "spec_hash": self.spec.hash,
            "view": self.config.view,
        }
        row["votes"] = tuple(ballot.readings[key] for key in sorted(ballot.readings))
        if score is None:
            reason, _, detail = failures[0].partition(": ")
            return Abstention.model_validate({**row, "reason": reason, "detail": detail})
        return Verdict.model_validate({**row, "score": score, "clauses": _deciding(final, score).clauses})


def _deciding(votes: Sequence[Vote], score: float) -> Vote:
    """The first vote nearest to the aggregate."""
    return min((vote for vote in votes if vote.score is not None), key=lambda vote: abs((vote.score or 0.0) - score))


# Keeping watch


def check_abstentions(abstained: Sequence[Abstention], judged: int, maximum: float) -> None:
    """Raise `StageFailed` when the share of abstentions among `judged` is above `maximum`, quoting the commonest reason."""
    if len(abstained) <= maximum * judged:
        return
    (reason, detail), count = Counter((item.reason, item.detail) for item in abstained).most_common(1)[0]
    raise StageFailed(
        f"judge: {len(abstained)} of {judged} judgements are abstentions, more than max_abstention={maximum:g}; {count} times {reason}: {detail}. "
        "The verdicts are kept; mend the judge or its wording and run the same command again."
    )


def reward(judge: Judge) -> Callable[[Sequence[AnswerView]], list[Judgement]]:
    """The judge as a reward for RL: answers in, judgements out in the same order. What is equal is judged once.

    Raises `StageFailed` when the judge is one that reads reasoning, when handed anything but an `AnswerView` (paper, section 2.4), and
    when, over all calls, too many judgements are abstentions.
    """
    if judge.config.view != "answer":
        raise StageFailed("rl: the reward must come from a judge with view='answer'; this one reads the reasoning")
    judged = 0
    abstained: list[Abstention] = []

    def answers_only(views: Sequence[AnswerView]) -> list[Judgement]:
        nonlocal judged
        for view in views:
            if type(view) is not AnswerView:
                raise StageFailed(f"rl: the reward was handed a {type(view).__name__}; it reads answers only")
        found = {judgement.completion_id: judgement for judgement in judge.judge_many(list({view.id: view for view in views}.items()))}
        judgements = [found[view.id] for view in views]
        judged += len(judgements)
        abstained.extend(item for item in judgements if isinstance(item, Abstention))
        if judged >= _WATCH_AFTER:
            check_abstentions(abstained, judged, judge.config.max_abstention)
        return judgements

    return answers_only


# Against the truth


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


# The stage


def view_of(completion: Completion, prompt: Prompt, view: View) -> AnswerView | FullView:
    """What the judge is shown of a completion."""
    shown = {"messages": prompt.messages, "category": prompt.category, "also": prompt.also, "answer": completion.answer}
    return AnswerView(**shown) if view == "answer" else FullView(**shown, reasoning=completion.reasoning)


def run(run: Run, judge: Judge, progress: Progress = lambda done, total: None, *, allow_stale: bool = False) -> Summary:
    """Read `02_prompts.jsonl` and `03_completions.jsonl`, write `04_verdicts.jsonl`, resume where a killed run stopped.

    Completions that `failed` have nothing to judge and are counted so. Verdicts of the same judge from the same view are kept as they
    are; with `allow_stale` those from another view as well. Abstentions are written last: a stage that was stopped
    by too many of them asks again when it is resumed. Raises `StageFailed` then.
    """
    (artefact,) = ARTEFACTS["judge"]
    inputs = [run.path("02_prompts.jsonl"), run.path("03_completions.jsonl")]
    config = judge.config
    settings = config.model_dump(mode="json", exclude={"max_abstention"})
    prompts = {prompt.id: prompt for prompt in read_records(inputs[0], Prompt.from_row)}
    completions = read_records(inputs[1], Completion.from_row)
    present = [completion for completion in completions if completion.status != "failed"]
    ground = stale.ground(run, judge.spec, config.detail, {c.id: prompts[c.prompt_id].categories for c in present}, allow_stale=allow_stale)
    identity = {"judge": judge.identity, "model": judge.model.identity, "wording": judge.wording.identity, **ground.identity}
    step = run.step("judge", config=settings, inputs=inputs, identity=identity, outputs=[artefact], seed=config.seed)
    if step.done:
        return step.summary
    with step.journal(artefact, key="completion_id") as journal:
        ground.keep("judge", artefact, journal, lambda entry, row: row["kind"] == "verdict" and row["judge"] == judge.identity)
        abstained: list[Abstention] = []
        for judgement in _judgements([c for c in present if c.id not in journal.keys], prompts, judge):
            if isinstance(judgement, Abstention):
                abstained.append(judgement)
                check_abstentions(abstained, len(present), config.max_abstention)  # of all, so it stops as soon as it must
            else:
                journal.append(judgement.to_row())
            progress(len(journal) + len(abstained), len(present))
        for abstention in abstained:
            journal.append(abstention.to_row())
        judgements = [judgement_from_row(row) for row in journal.rows()]
    ledger = Ledger(rows_in=len(completions), rows_out=len(judgements), failed={"failed": len(completions) - len(present)})
    return step.finish(order=[c.id for c in present], ledger=ledger, notes=_notes(judgements))


def _judgements(completions: Sequence[Completion], prompts: Mapping[str, Prompt], judge: Judge) -> Iterator[Judgement]:
    """Floors by plain code first, then the judge."""
    for completion in completions:
        if floor(completion.status) is not None:
            yield judge.floor_verdict(completion.id)
    rest = [completion for completion in completions if floor(completion.status) is None]
    yield from judge.judge_many(
        [(completion.id, view_of(completion, prompts[completion.prompt_id], judge.config.view)) for completion in rest]
    )


def _notes(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Counts for the manifest: verdicts by score, abstentions by reason, readings by failure."""
    votes = [vote for judgement in judgements for vote in judgement.votes]
    return {
        "scores": dict(sorted(Counter(f"{item.score:g}" for item in judgements if isinstance(item, Verdict)).items())),
        "abstentions": Counter(item.reason for item in judgements if isinstance(item, Abstention)),
        "votes": len(votes),
        "failed_votes": Counter(vote.failure.partition(":")[0] for vote in votes if vote.failure),
    }
