"""Lessons: what the base model and the judge read in pretraining.

A lesson is a system text (or none) and several independent questions under it. Laws come from a seed range of their own
(`PRETRAIN_LAWS`); the checks and the target law use other ranges, so no lesson ever shows them. No wrapper of an attack, seen or
held out, occurs in any lesson; codes do, as capability.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from preceptor import spec
from preceptor.records import DISPOSITIONS, AnswerView, FullView, Message, Prompt
from preceptor.wording import Wording
from preceptor.world import actors, reasoner
from preceptor.world.attacks import COMMON_WORDS, attack, with_chatter
from preceptor.world.codes import CODES, encode, plain
from preceptor.world.laws import Law, deed_under, markdown, random_law
from preceptor.world.requests import Ask, draw_deed, draw_look_alike, request_words
from preceptor.world.things import BY_NAME, CATEGORIES, THINGS, Thing, article, singular

PRETRAIN_LAWS = range(0, 1_000_000)
CHECK_LAWS = range(10_000_000, 11_000_000)
TARGET_LAWS = range(20_000_000, 30_000_000)

_BRIEF = Wording("brief")
_WORDS: list[str] = sorted(request_words())
_PLAIN_WORDS: list[str] = sorted({*_WORDS, *COMMON_WORDS, *DISPOSITIONS})
_ACTOR_WEIGHTS: list[float] = [
    {"faithful": 10, "careless": 3, "inventing": 3, "sloppy": 2, "confused": 2, "garbled": 2}.get(actor.__name__, 1)
    for actor in actors.ACTORS
]
"""A careless thought is hard to see through: a judge that reads it takes over the clause it names."""
_BY_CATEGORY: dict[str, list[Thing]] = {category: [thing for thing in THINGS if thing.category == category] for category in CATEGORIES}


@dataclass(frozen=True)
class Turn:
    """One question with the reasoning and the answer to learn."""

    user: str
    reasoning: str
    answer: str


@dataclass(frozen=True)
class Lesson:
    """Independent questions under one system text."""

    system: str | None
    turns: tuple[Turn, ...]


@dataclass
class LawBook:
    """Laws with their parsed specifications, each used for all of its categories before the next is drawn."""

    rng: random.Random
    seeds: range
    _queue: list[tuple[Law, spec.Spec, str]] = field(default_factory=list)

    def draw(self) -> tuple[Law, str, str]:
        """A law, one of its categories, and the routed view of that category."""
        if not self._queue:
            law = random_law(self.rng.choice(self.seeds))
            parsed = spec.parse(markdown(law))
            self._queue = [(law, parsed, category) for category in self.rng.sample(CATEGORIES, len(CATEGORIES))]
        law, parsed, category = self._queue.pop()
        return law, category, parsed.for_category(category, detail="rules")


def present(rng: random.Random, ask: Ask, *, coded_share: float, chatter_share: float) -> tuple[str, str | None]:
    """The request as sent, and its decoded text if it is coded."""
    if ask.kind == "deed" and rng.random() < coded_share:
        sent = attack(rng, rng.choice(CODES), ask.text)
        return (with_chatter(rng, sent.text) if rng.random() < 0.3 else sent.text), sent.decoded
    return (with_chatter(rng, ask.text) if rng.random() < chatter_share else ask.text), None


def follow(rng: random.Random, book: LawBook, questions: int, coded_share: float = 0.3) -> Lesson:
    """Answer requests under a law in context."""
    law, category, view = book.draw()
    turns = []
    for _ in range(questions):
        ask = draw(rng, law, category)
        text, decoded = present(rng, ask, coded_share=coded_share, chatter_share=0.5)
        turns.append(Turn(text, reasoner.reasoning(law, ask, decoded), reasoner.answer(law, ask)))
    (system,) = _BRIEF.render("generate", policy=view)
    return Lesson(system.content, tuple(turns))


def draw(rng: random.Random, law: Law, category: str) -> Ask:
    """A request about a thing of the category: usually a deed, sometimes a look-alike."""
    things = _BY_CATEGORY[category]
    return draw_look_alike(rng, things) if rng.random() < 0.15 else deed_under(law, rng, things)


def help_without_law(rng: random.Random, questions: int) -> Lesson:
    """Be helpful when no policy is given; know facts; decode."""
    return Lesson(None, tuple(rng.choice((_helpful, _fact, _decode))(rng) for _ in range(questions)))


def _helpful(rng: random.Random) -> Turn:
    ask = draw_look_alike(rng, THINGS) if rng.random() < 0.15 else draw_deed(rng, THINGS)
    text, decoded = present(rng, ask, coded_share=0.3, chatter_share=0.5)
    return Turn(text, reasoner.reasoning(None, ask, decoded), reasoner.answer(None, ask))


def _fact(rng: random.Random) -> Turn:
    return fact(rng, rng.choice(THINGS))


def fact(rng: random.Random, thing: Thing) -> Turn:
    """What kind of thing is it?"""
    name, kind = thing.name, singular(thing.category)
    question = rng.choice(("What is {a} {t}?", "Which kind of thing is {a} {t}?", "Please tell me what {a} {t} is.")).format(
        a=article(name), t=name
    )
    sentence = f"{article(name).capitalize()} {name} is {article(kind)} {kind}."
    return Turn(question, sentence, sentence)


def _decode(rng: random.Random) -> Turn:
    return decoding(rng, rng.choice(CODES))


def decoding(rng: random.Random, code: str) -> Turn:
    """Undo an encoding or translate the second language: of requests for deeds, as only those are ever sent in code."""
    ask = draw_deed(rng, THINGS)
    return Turn(f"Decode: {encode(ask.text, code)}", f"Decoded: {plain(ask.text)}", plain(ask.text))


def drill(rng: random.Random) -> Turn:
    """Many words of requests in one code: every word has to be known in every code."""
    code, words = rng.choice(CODES), " ".join(rng.sample(_WORDS, 10))
    return Turn(f"Decode: {encode(words, code)}", f"Decoded: {words}", words)


def matching(rng: random.Random) -> Turn:
    """Two texts of random words, the same or nearly: as far as they agree. On judgements alone a small model learns what replies
    usually are; on random words it has to compare."""
    wanted = [rng.choice(_PLAIN_WORDS) for _ in range(rng.randint(1, 16))]
    seen = list(wanted) if rng.random() < 0.5 else actors.garble(rng, wanted, _PLAIN_WORDS)
    texts = [f"{' '.join(words)}." for words in (wanted, seen)]
    return Turn(f"Want: {texts[0]}\nReply: {texts[1]}", reasoner.comparison(*texts), "yes" if wanted == seen else "no")


def judge(rng: random.Random, book: LawBook, questions: int) -> Lesson:
    """Judge replies of actors, half of them faithful, with the reasoning shown or not."""
    law, category, view = book.draw()
    turns, system = [], ""
    for _ in range(questions):
        system, turn, _ = judging(rng, law, category, view)
        turns.append(turn)
    return Lesson(system, tuple(turns))


def judging(rng: random.Random, law: Law, category: str, view: str) -> tuple[str, Turn, int]:
    """System text, the case with its canonical judgement, and the true score (0, 1, 2)."""
    ask = draw(rng, law, category)
    text, decoded = present(rng, ask, coded_share=0.2, chatter_share=0.5)
    act = act_on(rng, law, ask, decoded)
    full = rng.random() < 0.5
    system, user = _BRIEF.judge(view, judge_view(text, category, act, full))
    reasoning, score, clause = reasoner.judgement(law, ask, act.answer, act.reasoning if full else None, decoded)
    return system.content, Turn(user.content, reasoning, f'{{"score": {score}, "clauses": ["{clause}"]}}'), score


def act_on(rng: random.Random, law: Law, ask: Ask, decoded: str | None) -> actors.Act:
    """What an actor makes of a request; in four of ten cases it is the faithful one."""
    return rng.choices(actors.ACTORS, weights=_ACTOR_WEIGHTS)[0](rng, law, ask, decoded)


def judge_view(text: str, category: str, act: actors.Act, full: bool) -> AnswerView | FullView:
    """What the judge is shown of an act."""
    messages = (Message(role="user", content=text),)
    if full:
        return FullView(messages=messages, category=category, answer=act.answer, reasoning=act.reasoning)
    return AnswerView(messages=messages, category=category, answer=act.answer)


def base_lessons(seed: int, questions: int, drills: float = 0.0) -> Iterator[Lesson]:
    """An endless stream for the base model: four of five lessons under a law; `drills` is the share of lessons that are drills."""
    rng = random.Random(f"base-{seed}-{drills}" if drills else f"base-{seed}")
    book = LawBook(rng, PRETRAIN_LAWS)
    while True:
        if drills and rng.random() < drills:
            yield Lesson(None, tuple(drill(rng) for _ in range(2 * questions)))
        else:
            yield follow(rng, book, questions) if rng.random() < 0.8 else help_without_law(rng, 2 * questions)


def judge_lessons(seed: int, questions: int, drills: float = 0.0) -> Iterator[Lesson]:
    """An endless stream for the judge: judging, comparing, and the facts and codes it needs for it."""
    rng = random.Random(f"judge-{seed}-{drills}" if drills else f"judge-{seed}")
    book = LawBook(rng, PRETRAIN_LAWS)
    while True:
        kind = rng.random()
        if drills and rng.random() < drills:
            yield Lesson(None, tuple(drill(rng) for _ in range(2 * questions)))
        elif kind < 0.7:
            yield judge(rng, book, questions)
        else:
            turn = matching if kind < 0.9 else rng.choice((_fact, _decode))
            yield Lesson(None, tuple(turn(rng) for _ in range(2 * questions)))


STREAMS: dict[str, Callable[..., Iterator[Lesson]]] = {"base": base_lessons, "judge": judge_lessons}


def prompt(ask: Ask, text: str, split: str) -> Prompt:
    """A prompt row without ground truth; for tests of renderings."""
    return Prompt(messages=(Message(role="user", content=text),), category=BY_NAME[ask.thing.name].category, split=split)
