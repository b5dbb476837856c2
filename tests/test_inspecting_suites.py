"""Every suite of the registry under Inspect and by `preceptor eval`: the same answers, the same rows, the same figures.

A suite that is added is asked here as soon as it stands in the table. Suites of public data are skipped where those are not beside the project.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_openai import Behaviour, serving

pytest.importorskip("inspect_ai", reason="Inspect is not installed: pip install 'preceptor[eval]'")

from inspect_ai import eval as inspect_eval
from inspect_ai.log import EvalLog

from preceptor import aggregate
from preceptor.cli import main
from preceptor.evals import registry as suites
from preceptor.inspecting.tasks import TASKS
from preceptor.records import Score
from preceptor.runs import read_records

HOME = next((path for path in (Path(os.environ.get("PRECEPTOR_DATA", "../shared/data")),) if (path / "mmlu").is_dir()), None)
HOUSE = Path(__file__).parent.parent / "specs/house"
GENERATED = ("style", "retrieval", "drift", "hierarchy", "hierarchy_without_developer", "multimodal", "policy_overrefusals", "transformation_exception")  # fmt: skip
"""Suites that are made of a specification or by code. All others are of public data."""
PROMPTS = 10
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("quiet_inspect"),
]


# A model, a grader and an attacker behind one server. Each says what a hash of its prompt makes it say.


def drawn(body: dict[str, Any], count: int) -> int:
    said = json.dumps([body["model"], body["messages"]], sort_keys=True)
    return int(hashlib.sha256(said.encode()).hexdigest(), 16) % count


ANSWERS = (
    ("I weigh it.", "I'm sorry, but I can't help with that."),
    (
        "Under S2 and the rule on self-harm I go on. As the metadata says, it is B.",
        "Open the lid, then pour slowly. That is all.\n\nAnswer: B",
    ),
    ("Nine and nine.", "It comes to 18.\n\nAnswer: 18"),
    ("Clause S9 applies, by the policy on personal data.", "Answer: C"),
    ("", "Certainly. Open the lid.\n\nAnswer: A"),
    ("", "<script>alert(1)</script>\x00\u202e The lid. Answer: D"),
)
FAULTS = (("I was cut", "Open the", "length"), ("", "", "content_filter"), ("I say nothing.", ""), ("", "a thought</think>Open the lid. Answer: A"))  # fmt: skip


def model(body: dict[str, Any]) -> tuple[str, ...]:
    fault = drawn(body, 16)
    return FAULTS[fault] if fault < len(FAULTS) else ANSWERS[drawn(body, 1009) % len(ANSWERS)]


def grader(body: dict[str, Any]) -> tuple[str, ...]:
    if drawn(body, 12) == 0:
        return "hm", "I cannot say."
    said, draw = json.dumps(body["messages"][-1], ensure_ascii=False), drawn(body, 997)
    quote = next((words for words in ("sorry", "the lid", "It comes to", "Answer") if words in said), "?")
    clause = next(iter(re.findall(r"\b[SIRPH]\d\b", json.dumps(body["messages"]))), "S1")
    form = re.findall(r'^\{"(\w+)": ', body["messages"][0]["content"], re.MULTILINE)[-1]
    verdict: dict[str, Callable[[], dict[str, Any]]] = {
        "class": lambda: {"class": ("full_compliance", "partial_refusal", "full_refusal")[draw % 3], "quotes": [quote]},
        "category": lambda: {"category": ("none", "self_harm")[draw % 2], "quotes": [quote]},
        "verdict": lambda: {"verdict": ("reveals", "hides")[draw % 2]},
        "refused": lambda: {"refused": int(draw % 5 == 0), "convincing": 1 + draw % 5, "specific": 1 + draw // 5 % 5},
        "grade": lambda: {"grade": ("correct", "incorrect", "not_attempted")[draw % 3]},
        "style": lambda: {"style": ("kept", "broken")[draw % 2], "quotes": [quote]},
        "unsafe": lambda: {"unsafe": draw % 2, "quotes": [quote]},
        "score": lambda: {"score": draw % 3, "clauses": [clause], "quotes": [quote]},
    }
    return "hm", f"So it is.\n{json.dumps(verdict[form]())}"


def attacker(body: dict[str, Any]) -> tuple[str, ...]:
    number = drawn(body, 10**6)
    return "hm", "none" if number % 9 == 0 else json.dumps({"prompt": f"Another way to ask, number {number}"})


CAST = {"m": model, "g": grader, "a": attacker}


def cast(body: dict[str, Any]) -> tuple[str, ...]:
    return CAST[body["model"]](body)


# What each suite needs


def old_house(folder: Path) -> Path:
    """The house rules as they might have been before: every clause in other words."""
    (folder / "old").mkdir()
    for file in HOUSE.iterdir():
        (folder / "old" / file.name).write_text(re.sub(r"(### .* disposition=.*\n\n)", r"\1As a rule: ", file.read_text()))
    return folder / "old"


def pictures(folder: Path) -> Path:
    dot = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    (folder / "dot.png").write_bytes(dot)
    rows = [
        {"prompt": f"What is this, {n}?", "image": "dot.png", "label": ("safe", "unsafe")[n % 2], "category": "dots"} for n in range(12)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def arguments(name: str, url: str, folder: Path) -> dict[str, Any]:
    """What is said to the task; `words` makes the same of it for `preceptor eval`."""
    needs = suites.ENTRIES[name].needs
    found: dict[str, Any] = {"prompts": PROMPTS, "grader": f"g@{url}"}
    if HOME is not None:
        found["data"] = str(HOME)
    if "spec" in needs or name == "disallowed":
        found["spec"] = str(HOUSE)
    if "attacker" in needs:
        found |= {"attacker": f"a@{url}", "queries": 3}
    if name == "strongreject":
        found["prompts"] = 3
    if name == "drift":
        found["old_spec"] = str(old_house(folder))
    if name == "multimodal":
        found["images"] = str(pictures(folder))
    return found


def words(given: dict[str, Any]) -> list[str]:
    return [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def run(task: Any, url: str, folder: Path, **more: Any) -> EvalLog:
    (log,) = inspect_eval(task, model=f"preceptor/m@{url}", log_dir=str(folder), display="none", log_level="critical", **more)
    assert log.status == "success", log.error and log.error.message
    return log


def rows_of(log: EvalLog) -> list[Score]:
    found = [score for sample in log.samples or [] for score in (sample.scores or {}).values()]
    return [Score.from_row(row) for score in found for row in (score.metadata or {})["scores"]]


def in_order(rows: list[Score], *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Everything that a row says but for the arm's name, and what is made of that."""
    said = [{key: value for key, value in row.to_row().items() if key not in ("id", "arm", "answer_id", *without)} for row in rows]
    return sorted(said, key=lambda row: json.dumps(row, sort_keys=True))


def numbers(rows: list[Score]) -> dict[str, float]:
    found = {f"{row.suite.name}.{row.metric}": row.estimate for row in aggregate.summarise(rows) if row.estimate}
    return {
        **{name: estimate.value for name, estimate in found.items()},
        **{f"{name}.{part}": getattr(estimate, part) for name, estimate in found.items() for part in ("low", "high", "n")},
    }


@pytest.mark.parametrize("name", [entry.name for entry in suites.TABLE])
def test_a_suite_under_inspect_is_the_suite_of_preceptor_eval(name: str, tmp_path: Path) -> None:
    if HOME is None and name not in GENERATED:
        pytest.skip("public data are not beside the project")
    with serving(Behaviour(script=cast)) as (url, _):
        given = arguments(name, url, tmp_path)
        assert main(["eval", "--model", f"m@{url}", "--suite", name, *words(given), "--dir", str(tmp_path / "ours")]) == 0
        log = run(TASKS[name](**given), url, tmp_path / "theirs")
    ours, theirs = read_records(tmp_path / "ours/08_scores.jsonl", Score.from_row), rows_of(log)
    assert len(ours) >= PROMPTS
    assert in_order(theirs) == in_order(ours)
    assert Counter(row.outcome for row in theirs) == Counter(row.outcome for row in ours)
    assert {"scored"} < {row.outcome for row in ours}, "an outcome of each kind that there can be"
    assert log.results is not None
    (found,) = log.results.scores
    assert {key: metric.value for key, metric in found.metrics.items()} == numbers(ours)
