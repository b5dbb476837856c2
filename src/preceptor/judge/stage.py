"""The judge as a stage: completions in, `04_verdicts.jsonl` out, resumed where a killed run stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from preceptor import stale
from preceptor.journal import Journal, Key
from preceptor.judge.judging import Judge, check_abstentions
from preceptor.judge.votes import agreement, floor
from preceptor.records import Abstention, AnswerView, Completion, FullView, Judgement, Prompt, Verdict, View, judgement_from_row
from preceptor.runs import ARTEFACTS, Ledger, Run, Summary, read_records

Progress = Callable[[int, int], None]


def view_of(completion: Completion, prompt: Prompt, view: View) -> AnswerView | FullView:
    """What the judge is shown of a completion."""
    shown = {
        "messages": prompt.messages,
        "category": prompt.category,
        "also": prompt.also,
        "opinion": prompt.opinion,
        "answer": completion.answer,
    }
    return AnswerView(**shown) if view == "answer" else FullView(**shown, reasoning=completion.reasoning)


def run(run: Run, judge: Judge, progress: Progress = lambda done, total: None, *, allow_stale: bool = False) -> Summary:
    """Read `02_prompts.jsonl` and `03_completions.jsonl`, write `04_verdicts.jsonl`, resume where a killed run stopped.

    Completions that `failed` have nothing to judge and are counted so. Verdicts of the same judge from the same view are kept as they
    are; with `allow_stale` those from another view as well. Abstentions are written last: a stage that was stopped by too many of them asks again when it is resumed. Raises `StageFailed` then.
    """
    (artefact,) = ARTEFACTS["judge"]
    inputs = [run.path("02_prompts.jsonl"), run.path("03_completions.jsonl")]
    config = judge.config
    settings = config.deciding()
    prompts = {prompt.id: prompt for prompt in read_records(inputs[0], Prompt.from_row)}
    completions = read_records(inputs[1], Completion.from_row)
    present = [completion for completion in completions if completion.status != "failed"]
    shown: dict[Key, tuple[str, ...]] = {completion.id: prompts[completion.prompt_id].categories for completion in present}
    ground = stale.ground(run, judge.spec, config.detail, shown, allow_stale=allow_stale)
    identity = {"judge": judge.identity, "model": judge.model.identity, "wording": judge.wording.identity, **ground.identity}
    step = run.step("judge", config=settings, inputs=inputs, identity=identity, outputs=[artefact], seed=config.seed)
    if step.done:
        return step.summary
    with step.journal(artefact, key="completion_id") as journal:
        ground.keep("judge", artefact, journal, lambda entry, row: row["kind"] == "verdict" and row["judge"] == judge.identity)
        asked = _judgements([c for c in present if c.id not in journal.keys], prompts, judge)
        judgements = collect(journal, asked, len(present), config.max_abstention, progress)
    ledger = Ledger(rows_in=len(completions), rows_out=len(judgements), failed={"failed": len(completions) - len(present)})
    return step.finish(order=[c.id for c in present], ledger=ledger, notes=_notes(judgements, {c.id: c.prompt_id for c in present}))


def collect(journal: Journal, judgements: Iterable[Judgement], total: int, maximum: float, progress: Progress) -> list[Judgement]:
    """Write judgements into the journal as they come; everything that lies in it in the end, in the order it was written.

    Abstentions are written last, so that they are asked again when too many of them (of all `total`, so it stops as soon as it must)
    stopped the work. Raises `StageFailed` then.
    """
    abstained: list[Abstention] = []
    for judgement in judgements:
        if isinstance(judgement, Abstention):
            abstained.append(judgement)
            check_abstentions(abstained, total, maximum)
        else:
            journal.append(judgement.to_row())
        progress(len(journal) + len(abstained), total)
    for abstention in abstained:
        journal.append(abstention.to_row())
    return [judgement_from_row(row) for row in journal.rows()]


def _judgements(completions: Sequence[Completion], prompts: Mapping[str, Prompt], judge: Judge) -> Iterator[Judgement]:
    """Floors by plain code first, then the judge."""
    for completion in completions:
        if floor(completion.status) is not None:
            yield judge.floor_verdict(completion.id)
    rest = [completion for completion in completions if floor(completion.status) is None]
    yield from judge.judge_many(
        [(completion.id, view_of(completion, prompts[completion.prompt_id], judge.config.view)) for completion in rest]
    )


def _notes(judgements: Sequence[Judgement], prompt_of: Mapping[str, str]) -> dict[str, Any]:
    """For the manifest: verdicts by score, abstentions by reason, readings by failure, and how far the readings agree."""
    alpha = agreement(judgements, [prompt_of[judgement.completion_id] for judgement in judgements])
    votes = [vote for judgement in judgements for vote in judgement.votes]
    return {
        "scores": dict(sorted(Counter(f"{item.score:g}" for item in judgements if isinstance(item, Verdict)).items())),
        "abstentions": Counter(item.reason for item in judgements if isinstance(item, Abstention)),
        "votes": len(votes),
        "failed_votes": Counter(vote.failure.partition(":")[0] for vote in votes if vote.failure),
        "agreement": {"measure": "Krippendorff's alpha, ordinal", **vars(alpha)} if alpha else None,
    }
