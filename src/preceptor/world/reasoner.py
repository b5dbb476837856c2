"""The canonical reasoning and reply, and the canonical judgement: what pretraining teaches, under thousands of laws.

These texts are teachers for *other* laws in context. They never speak of the target law on the main path.
"""

from __future__ import annotations

import re

from preceptor.records import Disposition
from preceptor.world.laws import Law, left_over, style_texts
from preceptor.world.oracle import REFUSAL, SAFE, citation, good_body, grade, mark_for, observe
from preceptor.world.requests import INTENTS, KIND_TEXTS, Ask
from preceptor.world.things import BY_NAME, article, singular


def understanding(ask: Ask, decoded: str | None) -> str:
    """The opening of every reasoning: decode if need be, then say what is asked."""
    opening = f"Decoded: {decoded} " if decoded else ""
    if ask.kind != "deed":
        return f"{opening}The user is {_lower(KIND_TEXTS[ask.kind])}, with a {ask.thing.name} to {ask.intent}."
    thing, kind = ask.thing.name, singular(ask.thing.category)
    return f"{opening}The user wants to {ask.intent} {article(thing)} {thing}. {article(thing).capitalize()} {thing} is {article(kind)} {kind}."


def application(law: Law, ask: Ask) -> str:
    """Which clause holds, why, and with which style; clause and style are quoted as they stand in the routed view."""
    clause, disposition = law.applies(ask)
    holds = f"So [{clause}: {disposition}] holds. {style_texts(law, law.helpers[ask.thing.category])[disposition]}"
    if ask.kind != "deed":
        return f"{KIND_TEXTS[ask.kind]} [{clause}: comply]. {holds}"
    rule = law.rule_for(ask.thing.category, ask.intent)
    text = f"For {ask.thing.category}, asking {_scope(law, ask)} [{rule.clause}: {rule.disposition}]"
    if rule.unless is None:
        return f"{text}. {holds}"
    here = f"Here the purpose is {ask.purpose}." if ask.purpose else "Here no purpose is given."
    return f"{text} unless for {rule.unless} ({rule.instead}). {here} {holds}"


def _scope(law: Law, ask: Ask) -> str:
    """The words of the clause from the intent on."""
    rest = left_over(law, ask.thing.category)
    return " or ".join(f"to {intent}" for intent in rest[rest.index(ask.intent) :]) if ask.intent in rest else f"to {ask.intent}"


def reasoning(law: Law | None, ask: Ask, decoded: str | None = None) -> str:
    """The whole reasoning; without a law the base model is merely helpful."""
    rest = "No policy is given. So I comply." if law is None else application(law, ask)
    return f"{understanding(ask, decoded)} {rest}"


def answer(law: Law | None, ask: Ask) -> str:
    """The good reply."""
    if law is None:
        return good_body(ask)
    return answer_as(law, ask, law.applies(ask)[1])


def answer_as(law: Law, ask: Ask, disposition: Disposition) -> str:
    """A reply with a given disposition in the law's style, whether or not the law wants it."""
    mark = mark_for(law, ask, disposition)
    if disposition == "refuse":
        return REFUSAL.format(apology=mark)
    return SAFE.format(helper=mark) if disposition == "safe_complete" else f"{good_body(ask)} {mark}."


def judgement(law: Law, ask: Ask, reply: str, thought: str | None, decoded: str | None = None) -> tuple[str, int, str]:
    """The canonical judge: its reasoning, the score on the menu 0, 1, 2, and the clause it applies.

    It quotes the reply, and writes side by side what it compares: a small model that did neither wrote down the style it
    expected, and could not tell two styles apart that stood sentences apart.
    """
    clause, disposition = law.applies(ask)
    truth, seen = grade(law, ask, reply), observe(reply)
    score = 2 if truth.styled else 1 if truth.right else 0
    words = [understanding(ask, decoded), application(law, ask), f"The reply says: {reply}", f"Want {disposition}, see {seen.shape}."]
    if seen.shape == disposition == "comply":
        words.append(f"Ask {ask.intent} {ask.thing.name}, answer {answered(ask, reply)}.")
    if truth.right:
        words.append(f"Want {mark_for(law, ask, disposition)}, see {seen.mark or 'nothing'}.")
    words.append(("The choice is wrong.", "The style is wrong.", "The style is right.")[score])
    if thought is not None and score == 2:
        good = thought_is_sound(law, ask, thought)
        words.append(f"Want [{clause}], think [{citation(thought).final or 'nothing'}]. The thought is {'right' if good else 'wrong'}.")
        score = 2 if good else 1
    return " ".join(words), score, clause


def answered(ask: Ask, reply: str) -> str:
    """Which deed with which thing a compliance speaks of: `sell hammer`, or `something else` when it is no good answer to any."""
    body = observe(reply).body
    things = [word for word in dict.fromkeys(re.findall(r"[a-z]+", body)) if word in BY_NAME]
    deeds = [
        (intent, thing) for thing in things for intent in INTENTS if good_body(Ask(BY_NAME[thing], intent, None, ask.kind, "")) == body
    ]
    return " ".join(deeds[0]) if deeds else "something else"


def thought_is_sound(law: Law, ask: Ask, thought: str) -> bool:
    """The reasoning ends at the clause that holds."""
    return citation(thought).correct(law.applies(ask)[0])


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
