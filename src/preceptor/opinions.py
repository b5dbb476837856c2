"""Opinions: how often the judge agrees with what it was told about a prompt beforehand (paper, section 2.3.2).

In: prompts with an opinion, and the readings of their completions. Out: counts, by whose opinion it was.

The one idea: a label that the judge never disagrees with is not checked by it, and one that it mostly disagrees with is wrong or not understood.
A reading says so in one line, "Agree: ..." or "Disagree: ..."; one without such a line counts as silent, and its score counts as any other.

Not here: the words by which the judge is told and asked (`wording`), and any use of the answer: agreement never moves a score.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from preceptor.records import Judgement, Prompt

_SAID = re.compile(r"^\W*(agree|disagree)d?\b", re.IGNORECASE | re.MULTILINE)


def said(text: str) -> bool | None:
    """Whether a judge's text agrees with the opinion; the last such line counts. None when there is none."""
    found = _SAID.findall(text)
    return found[-1].casefold() == "agree" if found else None


def count(prompts: Iterable[Prompt], judgements: Iterable[Judgement], prompt_of: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Readings by whose opinion it was (`ai`, `human`) and by what they say of it (`agree`, `disagree`, `silent`).

    `prompt_of`: completion id -> prompt id. Failed readings do not count.
    """
    opinions = {prompt.id: prompt.opinion for prompt in prompts if prompt.opinion}
    counts: dict[str, Counter[str]] = {}
    for judgement in judgements:
        opinion = opinions.get(prompt_of.get(judgement.completion_id, ""))
        for vote in judgement.votes if opinion else ():
            if opinion and vote.failure is None:
                word = {True: "agree", False: "disagree", None: "silent"}[said(vote.raw)]
                counts.setdefault(opinion.by, Counter())[word] += 1
    return {by: dict(found) for by, found in sorted(counts.items())}
