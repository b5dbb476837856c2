"""STAR-1 into a run: nothing made up, nothing lost without a reason; and, where the data is present, all 1,000 rows to rendered SFT rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from small import SPEC

from preceptor import filter, prompts, spec, star1
from preceptor.errors import StageFailed, UsageError
from preceptor.filter import FilterConfig
from preceptor.prompts import MANIFEST, PromptsConfig, ScreenConfig
from preceptor.records import Abstention, Completion, Dropped, Example, Prompt, Verdict, judgement_from_row
from preceptor.runs import Run, read_manifest, read_records
from preceptor.sources import SourceConfig
from preceptor.spec import Spec
from preceptor.star1 import CRITERIA, Star1Config

LABELS = {"Self-Harm": "animals", "Sexual / Adult": "tools", "Privacy / Personal Data": ""}
QUIET = ScreenConfig(near_duplicate=None, pii="off")
ALL = PromptsConfig(rl_fraction=0, screen=QUIET)


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": str(number), "question": f"Question number {number}?", "response": f"<think>\nSection 3 says refuse. {number}\n</think>\n\nSorry.",
        "category": ["Self-Harm"], "source": "AttaQ", "score": dict.fromkeys(CRITERIA, 10), **fields,
    }  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "STAR-1.json"
    path.write_text(json.dumps(rows))
    return path


def imported(folder: Path, config: Star1Config, given: PromptsConfig, rules: Spec) -> dict[str, Any]:
    """The stages up to the filter; what each wrote."""
    with Run.open(folder) as opened:
        prompts.run(opened, star1.settings(given), rules, prompts=star1.read(config, given), evaluation=prompts.held_out(given))
        star1.generate(opened, config, "train", pii=star1.settings(given).screening.pii)
        star1.judge(opened, config)
        summary = filter.run(opened, FilterConfig(), rules, evaluation=prompts.held_out(given))
    return {
        "prompts": read_records(folder / "02_prompts.jsonl", Prompt.from_row),
        "completions": read_records(folder / "03_completions.jsonl", Completion.from_row),
        "judgements": read_records(folder / "04_verdicts.jsonl", judgement_from_row),
        "examples": read_records(folder / "05_examples.jsonl", Example.from_row),
        "dropped": read_records(folder / "05_dropped.jsonl", Dropped.from_row),
        "manifest": json.loads((folder / MANIFEST).read_bytes()),
        "ledger": summary.ledger,
    }


def test_rows_become_prompts_completions_and_verdicts(tmp_path: Path) -> None:
    rows = [
        row(1),
        row(2, category=["Privacy / Personal Data", "Sexual / Adult", "Self-Harm"]),
        row(3, category=["Privacy / Personal Data"]),
        row(4, source="BeaverTails"),
        row(5, response="<think>no end"),
        row(6, score={**dict.fromkeys(CRITERIA, 10), CRITERIA[2]: 7}),
        row(7, score={CRITERIA[0]: 10}),
        row(8, response="<think>As the safety policies provided say, refuse.</think>Sorry."),
    ]
    found = imported(tmp_path / "run", Star1Config(path=write(tmp_path, rows), categories=LABELS, without=("BeaverTails",)), ALL, SPEC)
    assert [prompt.meta["star1"] for prompt in found["prompts"]] == ["1", "2", "5", "6", "7", "8"]
    assert (found["prompts"][1].category, found["prompts"][1].meta["labels"]) == (
        "tools",
        "Privacy / Personal Data; Sexual / Adult; Self-Harm",
    )
    first = found["completions"][0]
    assert (first.reasoning, first.answer, first.status, first.model) == ("Section 3 says refuse. 1", "Sorry.", "ok", "star1/DeepSeek-R1")
    verdict = found["judgements"][0]
    assert isinstance(verdict, Verdict)
    assert (verdict.judge, verdict.view, verdict.score, [vote.score for vote in verdict.votes]) == (
        "star1/gpt-4o",
        "reasoning+answer",
        1,
        [1, 1, 1],
    )
    assert {verdict.spec_hash, first.spec_hash} == {star1.POLICIES} != {SPEC.hash}
    assert Counter(row.reason for row in found["dropped"]) == {"malformed": 1, "low_score": 1, "abstained": 1, "spec_leak": 1}
    assert len(found["examples"]) == 2
    (source,) = found["manifest"]["sources"]
    assert (source["rows_read"], source["rows_kept"], source["removed"]) == (8, 6, {"left_out": 1, "upstream_left_out": 1})
    assert source["upstream"] == {"AttaQ": 7, "BeaverTails": 1}
    assert source["licence"] == ["Apache-2.0"]


@pytest.mark.parametrize("value", [None, "10", True, 11, -1, float("nan")])
def test_a_score_off_the_scale_is_never_a_score(value: object) -> None:
    judgement = star1.judgement("c", {**dict.fromkeys(CRITERIA, 10), CRITERIA[1]: value})
    assert isinstance(judgement, Abstention)
    assert judgement.reason == "off_menu"


def test_the_verdict_is_the_least_of_the_three_by_ten() -> None:
    judgement = star1.judgement("c", dict(zip(CRITERIA, (10, 4, 8), strict=True)))
    assert isinstance(judgement, Verdict)
    assert judgement.score == 0.4


def test_only_the_split_for_sft_gets_completions(tmp_path: Path) -> None:
    config = Star1Config(path=write(tmp_path, [row(number) for number in range(40)]), categories=LABELS)
    found = imported(tmp_path / "run", config, PromptsConfig(rl_fraction=0.5, screen=QUIET), SPEC)
    sides = Counter(prompt.split for prompt in found["prompts"])
    assert set(sides) == {"train", "rl"}
    assert len(found["completions"]) == sides["train"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), {"question": "x"}], r"STAR-1.json row 2: not a row of STAR-1: no 'id'"),
        ([row(1, question=3)], r"row 1: not a row of STAR-1: 'question' is no text"),
        ([row(1, category=[["Self-Harm"]])], r"row 1: not a row of STAR-1: 'category' is a list of labels"),
        ([row(1, score=[10])], r"row 1: not a row of STAR-1: 'category' is a list"),
        ([row(1), row(1)], r"STAR-1.json: an id stands twice"),
        ([row(1, category=["Weapons"]), row(2, category=["Weapons", "Bombs"])], r"no category for 'Weapons' \(2\), 'Bombs' \(1\)"),
    ],
)
def test_what_is_not_star1_is_said(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        star1.read(Star1Config(path=write(tmp_path, rows), categories=LABELS), ALL)


def test_columns_cannot_be_set() -> None:
    with pytest.raises(ValidationError, match="`text` is not set for STAR-1"):
        Star1Config(path=Path("a"), categories=LABELS, text="question")


# The published data

RULES = spec.parse(
    "# Eight\n\n## Style {#style kind=style}\n"
    + "".join(f"### {way} {{#S{n} disposition={way}}}\nBe brief.\n" for n, way in enumerate(("comply", "refuse", "safe_complete")))
    + "".join(f"\n## Topic {name} {{#{name} kind=category}}\nAbout {name}.\n### {name.upper()}0 {{#{name.upper()}0 kind=default disposition=refuse}}\n"
              for name in "abcdefgh")
)  # fmt: skip
TOPICS: dict[str, str] = dict(
    zip(
        ("Harassment / Hate / Discrimination", "Illicit / Criminal Behavior", "Intellectual Property", "Misinformation / Disinformation",
         "Privacy / Personal Data", "Self-Harm", "Sexual / Adult", "Violence / Physical Harm"),
        "abcdefgh", strict=True,
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def published(data_dir: Path) -> Star1Config:
    path = data_dir / "star1" / "STAR-1.json"
    if not path.is_file():
        pytest.skip(f"no STAR-1 at {path}")
    return Star1Config(path=path, categories=TOPICS)


def test_all_rows_become_an_sft_set_with_counts(published: Star1Config, tmp_path: Path) -> None:
    """1,000 in; 40 speak of the "policies provided"; 960 examples."""
    found = imported(tmp_path / "run", published, ALL, RULES)
    assert len(found["prompts"]) == len(found["completions"]) == len(found["judgements"]) == 1000
    assert all(row.status == "ok" for row in found["completions"])
    assert {row.score for row in found["judgements"]} == {1.0}
    assert Counter((row.reason, row.detail) for row in found["dropped"]) == {("spec_leak", "policies provided"): 40}
    assert (found["ledger"].rows_in, found["ledger"].rows_out) == (1000, 960)


def harmbench(published: Star1Config, folder: Path) -> tuple[set[str], SourceConfig]:
    """Ids of the rows taken from HarmBench, and their questions as an evaluation set."""
    rows = [row for row in json.loads(Path(str(published.path)).read_bytes()) if row["source"] == "HarmBench"]
    path = folder / "harmbench.jsonl"
    path.write_text("".join(json.dumps({"behavior": row["question"]}) + "\n" for row in rows))
    return {row["id"] for row in rows}, SourceConfig(path=path, text="behavior", name="harmbench")


def test_its_harmbench_rows_are_found_when_that_set_is_given(published: Star1Config, tmp_path: Path) -> None:
    ids, held = harmbench(published, tmp_path)
    assert len(ids) == 31
    given = ALL.model_copy(update={"evaluations": (held,)})
    found = imported(tmp_path / "run", published, given, RULES)
    assert {str(number) for number in {prompt.meta["star1"] for prompt in found["prompts"]}}.isdisjoint(ids)
    assert found["manifest"]["evaluations"] == [{"name": "harmbench", "prompts": 31, "met": {"in_evaluation": 31}}]
    assert len(found["prompts"]) == 969


def test_the_filter_finds_them_too_when_the_prompts_were_not_checked(published: Star1Config, tmp_path: Path) -> None:
    ids, held = harmbench(published, tmp_path)
    with Run.open(tmp_path / "run") as opened:
        prompts.run(opened, ALL, RULES, prompts=star1.read(published, ALL))
        star1.generate(opened, published, "train", pii="off")
        star1.judge(opened, published)
        filter.run(opened, FilterConfig(), RULES, evaluation=prompts.held_out(ALL.model_copy(update={"evaluations": (held,)})))
    dropped = read_records(tmp_path / "run" / "05_dropped.jsonl", Dropped.from_row)
    kept = {example.prompt_id for example in read_records(tmp_path / "run" / "05_examples.jsonl", Example.from_row)}
    star = {prompt.id: str(prompt.meta["star1"]) for prompt in read_records(tmp_path / "run" / "02_prompts.jsonl", Prompt.from_row)}
    assert {star[prompt] for prompt in kept}.isdisjoint(ids)
    leaks = {star[row.prompt_id] for row in dropped if row.reason == "spec_leak"}
    assert {star[row.prompt_id] for row in dropped if row.reason == "contaminated"} == ids - leaks


PERSONAL = [
    row(1),
    row(2, response="<think>\nThey ask for jane.doe@example.com. Refuse.\n</think>\n\nSorry."),
    row(3, response="<think>\nRefuse.\n</think>\n\nSorry. Her number is +1 415-555-2671, her mail jane.doe@example.com."),
]


def test_personal_data_in_reasoning_or_answer_drops_the_row_by_kind_and_no_value_is_written(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra `data` is not installed")
    given = PromptsConfig(rl_fraction=0, screen=ScreenConfig(near_duplicate=None, pii="drop"))
    found = imported(tmp_path / "run", Star1Config(path=write(tmp_path, PERSONAL), categories=LABELS), given, SPEC)
    assert len(found["completions"]) == len(found["judgements"]) == len(found["examples"]) == 1
    ledger = read_manifest(tmp_path / "run")["steps"]["generate"]["ledger"]
    assert (ledger["rows_in"], ledger["rows_out"], ledger["rejected"]) == (3, 1, {"pii_email": 2})
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").glob("*.json*"))
    assert b"jane.doe" not in written
    assert b"415-555" not in written
    assert b"555-2671" not in written


def test_personal_data_in_reasoning_and_answer_is_masked_where_that_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra `data` is not installed")
    given = PromptsConfig(rl_fraction=0, screen=ScreenConfig(near_duplicate=None, pii="mask"))
    found = imported(tmp_path / "run", Star1Config(path=write(tmp_path, PERSONAL), categories=LABELS), given, SPEC)
    texts = sorted(f"{row.reasoning.strip()} | {row.answer.strip()}" for row in found["completions"])
    assert texts[1:] == ["Section 3 says refuse. 1 | Sorry.", "They ask for [EMAIL]. Refuse. | Sorry."]
    assert texts[0] == "Refuse. | Sorry. Her number is [PHONE], her mail [EMAIL]."
    assert len(found["judgements"]) == 3
    step = read_manifest(tmp_path / "run")["steps"]["generate"]
    assert step["notes"]["masked"] == {"email": 2, "phone": 1}


# Rendering: the templates as TRL bundles them, over bytes, for the tokenizers themselves cannot be had here. Counts are bytes.

END, BEGIN = "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
FAMILIES = {
    "qwen3": (["<|im_start|>", "<|im_end|>"], "<|im_end|>", None),
    "deepseek_r1_distill": ([BEGIN, END, "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"], END, BEGIN),
}


def renderer(family: str) -> Any:
    trl = pytest.importorskip("trl", reason="the extra `train` is not installed")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from preceptor.chat import Renderer

    special, end, begin = FAMILIES[family]
    core = Tokenizer(models.BPE({char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    core.add_tokens(["<think>", "</think>"])
    template = (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text(encoding="utf-8")
    return Renderer(PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, bos_token=begin, chat_template=template))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_rendered_with_all_their_reasoning_or_refused_by_name(published: Star1Config, family: str) -> None:
    """Qwen3: 1,000 rows of 652 to 6,190 bytes, median 1,768. R1: its template drops the reasoning of the turn to be learned, so a renderer that
    knows no better refuses every row; one that does must keep all of it. Nothing between the two will do."""
    made = renderer(family)
    lengths, refused = [], 0
    for row in json.loads(Path(str(published.path)).read_bytes()):
        prompt = star1.Prompt(messages=(star1.Message(role="user", content=row["question"]),), category="", split="")
        found = star1.completion(prompt, row["response"])
        try:
            example = made.example(prompt.messages, found.reasoning, found.answer, row=row["id"])
        except StageFailed as error:
            refused += f"row {row['id']}:" in str(error)
            continue
        learned = made.decode([token for token in example.labels if token != -100])
        assert "".join(found.reasoning.split()) in "".join(learned.split())
        assert "".join(found.answer.split()) in "".join(learned.split())
        assert row["question"].strip() not in learned or row["question"].strip() in found.reasoning + found.answer
        lengths.append(len(example.input_ids))
    assert (len(lengths), refused) in ((1000, 0), (0, 1000))
    if family == "qwen3":
        assert (min(lengths), max(lengths)) == (652, 6190)
        assert sum(length > 4096 for length in lengths) == 16
