"""What may be posted to the judge service, and what comes back. Server and clients read it here.

In: JSON. Out: `AnswerView`s, or one line that says what is wrong and where; on the way back, judgements.

The one idea: the service judges answers, and the type of a request says so. There is no field for reasoning and unknown fields are
refused, so reasoning cannot be posted by mistake; and text that still reads like reasoning (think tags, channel markers) is refused
wherever the policy wrote it, in an answer or an earlier assistant turn. It is refused and not given the floor score: a client that posts
such a text did not split it, and then every score it gets is a score of something else. Whoever splits with `chat` never sees this.

An abstention has no field for a score. Not here: whose fault a completion is (the client's splitter), authentication, limits.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preceptor.records import Abstention, AnswerView, Judgement, Message, Opinion, Role, Verdict, Vote

_INVISIBLE = re.compile("[\\s\u200b-\u200d\u2060\ufeff]+")
_REASONING = re.compile(
    r"</?(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|seed:think)>"
    r"|<\|[a-z0-9_]+\|>"  # <|channel|>, <|im_start|>; the bars of some families are full-width, which NFKC makes plain
    r"|\[/?think\]|◁/?think▷"
)
_GLUED = re.compile(r"^\s*(?:analysis|commentary).*assistant(?:final|commentary|analysis)", re.DOTALL)
"""What is left of a template whose channel markers are special tokens when they are decoded away: reasoning and answer without a border."""


class Refused(Exception):
    """A request that is not judged: an HTTP status and one line for whoever sent it."""

    def __init__(self, status: int, line: str, *, retry_after: int | None = None):
        super().__init__(line)
        self.status, self.line, self.retry_after = status, line, retry_after


class _Wire(BaseModel):
    """Strict about its fields, in both directions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Turn(_Wire):
    """One turn of a conversation. It has no field for reasoning."""

    role: Role
    content: str


class WireOpinion(_Wire):
    """What somebody found out about the request beforehand."""

    text: str
    by: Literal["ai", "human"] = "ai"


class Item(_Wire):
    """One answer to be judged, after the conversation it answers."""

    messages: tuple[Turn, ...] = Field(min_length=1)
    category: str
    """A category of the judge's specification: the main one."""
    also: tuple[str, ...] = ()
    """Further ones whose rules bear on the answer."""
    opinion: WireOpinion | None = None
    answer: str

    def view(self) -> AnswerView:
        """As the judge takes it."""
        messages = tuple(Message(role=turn.role, content=turn.content) for turn in self.messages)
        opinion = self.opinion and Opinion(text=self.opinion.text, by=self.opinion.by)
        return AnswerView(messages=messages, category=self.category, also=self.also, answer=self.answer, opinion=opinion)

    @property
    def characters(self) -> int:
        """What the judge would read of it, the specification aside."""
        return len(self.answer) + sum(len(turn.content) for turn in self.messages) + (len(self.opinion.text) if self.opinion else 0)


class JudgeRequest(_Wire):
    """The body of `POST /v1/judge`."""

    items: tuple[Item, ...] = Field(min_length=1)


class WireVerdict(_Wire):
    """A judgement that succeeded. `votes` holds a score for each reading that counted, and the kind of failure for each that did not."""

    id: str
    kind: Literal["verdict"] = "verdict"
    score: Annotated[float, Field(ge=0, le=1)]
    clauses: tuple[str, ...]
    votes: tuple[float | str, ...]


class WireAbstention(_Wire):
    """A judgement that failed. There is no score in it, so none can be read out of it."""

    id: str
    kind: Literal["abstention"] = "abstention"
    reason: str
    detail: str
    votes: tuple[float | str, ...]


class JudgeReply(_Wire):
    """The body that comes back: one judgement per item, in order, and which judge gave them under which specification."""

    judgements: tuple[Annotated[WireVerdict | WireAbstention, Field(discriminator="kind")], ...]
    judge: str
    spec: str

    def records(self) -> list[Judgement]:
        """The judgements as the rest of the package knows them."""
        return [_record(judgement, self.judge, self.spec) for judgement in self.judgements]


def read_request(body: bytes) -> JudgeRequest:
    """Parse a body. Raises `Refused` with 400 for what is not JSON, 422 for what is not a request."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    try:
        return JudgeRequest.model_validate_json(body)
    except ValidationError as error:
        raise Refused(422, _first_complaint(error)) from None


def refuse_reasoning(request: JudgeRequest) -> None:
    """Raises `Refused` with 422 naming the item that holds reasoning."""
    for number, item in enumerate(request.items):
        if where := reasoning_in(item.view()):
            raise Refused(
                422, f"items[{number}].{where} holds what reads like reasoning (a think tag or a channel marker); split it off first"
            )


def reasoning_in(view: AnswerView) -> str | None:
    """Where the policy's words hold a mark of reasoning: `answer`, `messages[1]`, or nowhere. What users wrote is not looked at."""
    if reads_like_reasoning(view.answer):
        return "answer"
    turns = (number for number, turn in enumerate(view.messages) if turn.role == "assistant" and reads_like_reasoning(turn.content))
    return next((f"messages[{number}]" for number in turns), None)


def reads_like_reasoning(text: str) -> bool:
    """Whether a text holds a think tag or a channel marker of a known family, letter case and white space inside aside."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return _REASONING.search(_INVISIBLE.sub("", plain)) is not None or _GLUED.search(plain) is not None


def reply(judgements: list[Judgement], judge: str, spec: str) -> JudgeReply:
    """What is sent back for `judgements`. What the judge wrote is not in it, apart from an abstention's detail."""
    return JudgeReply(judgements=tuple(_wired(judgement) for judgement in judgements), judge=judge, spec=spec)


def _wired(judgement: Judgement) -> WireVerdict | WireAbstention:
    votes = tuple(vote.score if vote.score is not None else str(vote.failure).partition(":")[0] for vote in judgement.votes)
    if isinstance(judgement, Verdict):
        return WireVerdict(id=judgement.completion_id, score=judgement.score, clauses=judgement.clauses, votes=votes)
    return WireAbstention(id=judgement.completion_id, reason=judgement.reason, detail=judgement.detail, votes=votes)


def _record(judgement: WireVerdict | WireAbstention, judge: str, spec: str) -> Judgement:
    votes = tuple(Vote(score=None, failure=vote) if isinstance(vote, str) else Vote(score=vote) for vote in judgement.votes)
    row = {"completion_id": judgement.id, "judge": judge, "spec_hash": spec, "view": "answer", "votes": votes}
    if isinstance(judgement, WireVerdict):
        return Verdict.model_validate({**row, "score": judgement.score, "clauses": judgement.clauses})
    return Abstention.model_validate({**row, "reason": judgement.reason, "detail": judgement.detail})


def _first_complaint(error: ValidationError) -> str:
    """`items[3].answer: ...`. Never the value: it may be what a model wrote."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")[:120]
    if first["type"] == "extra_forbidden":
        return f"{where!a}: no such field; an item is messages (role and content), category, also, opinion, answer: this service judges answers, not reasoning"
    return f"{where!a}: {first['msg']}"
