"""The command line: quick to say what it can do, one line when something is wrong, nothing heavy before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import preceptor
from preceptor import cli, lineage
from preceptor.chat import Split
from preceptor.errors import ModelError, StageFailed, UsageError
from preceptor.models import Reply, Request
from preceptor.records import Message, Prompt, Verdict, Vote
from preceptor.rollouts import Rollout
from preceptor.runs import ARTEFACTS, STAGES

RECIPE = '[run]\nname = "r"\n[spec]\nsource = "s.md"\n[models.policy]\nkind = "world"\nid = "base"\n[models.judge]\nkind = "world"\nid = "judge"\n'
RECIPE += "[sft]\nsteps = 1\n[rl]\nsteps = 1\n"
SPEC = "# Small {version=1}\n## Tools {#tools kind=category}\nThings.\n### T1 {#T1 disposition=refuse}\nSell a tool\n"
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "safetensors", "rich", "jinja2", "numpy", "httpx")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


Stub = Callable[..., Any]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stub], list[tuple[Any, ...]]]:
    """Put a stub in the pipeline's place; returns the calls it gets."""

    def install(behaviour: Stub) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def run(plan: Any, run_dir: Path, *, until: str) -> list[Path]:
            calls.append((plan, run_dir, until))
            behaviour()
            return [run_dir / name for name in ARTEFACTS[until]]

        stub = types.ModuleType("preceptor.pipeline")
        stub.run = run  # pyright: ignore[reportAttributeAccessIssue]
        stub.chat_model = lambda run_dir, arm: Echo()  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "preceptor.pipeline", stub)
        monkeypatch.setattr(preceptor, "pipeline", stub, raising=False)
        return calls

    return install


class Echo:
    """Answers with what it was told, and with a terminal escape it must not get through."""

    name = identity = "echo"

    def stream(self, requests: Any) -> Iterator[tuple[int, Reply]]:
        for index, request in enumerate(requests):
            assert isinstance(request, Request)
            said = request.messages[-1].content
            status = "truncated" if said == "long" else "ok"
            yield index, Reply(f"turn {len(request.messages)}", f"you said {said}\x1b]0;owned\x07", status)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("preceptor: error: ")
    return printed.removeprefix("preceptor: error: ").rstrip("\n")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=Path(preceptor.__file__).parents[1]
    )


def test_a_stage_and_the_command_beside_it_are_told_apart(recipe: Path, pipeline: Callable[[Stub], list[tuple[Any, ...]]]) -> None:
    assert cli.joined(["judge", "serve", "r.toml"]) == ["judge serve", "r.toml"]
    assert cli.joined(["judge", "./serve", "--dir", "d"]) == ["judge", "./serve", "--dir", "d"]
    assert cli.joined(["judge"]) == ["judge"]
    served = cli.parser().parse_args(cli.joined(["judge", "serve", "r.toml", "--queue", "9"]))
    assert (served.command, served.recipe, served.queue, served.host) == (cli.serve_judge, Path("r.toml"), 9, "127.0.0.1")
    calls = pipeline(lambda: None)
    assert cli.main(["judge", str(recipe)]) == 0
    assert calls[0][2] == "judge"


def test_importing_the_core_loads_nothing_heavy() -> None:
    code = f"import sys, preceptor.cli; preceptor.cli.parser(); print([name for name in {HEAVY!r} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_reading_a_recipe_loads_no_torch() -> None:
    code = "import sys, preceptor.recipe; print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_help_lists_the_stages_in_the_order_of_the_path() -> None:
    done = python("-m", "preceptor", "--help")
    assert done.returncode == 0
    listed = [line.strip().split("  ")[0] for line in done.stdout.splitlines() if line.startswith("    ")]
    assert [name for name in listed if name in STAGES] == list(STAGES)


@pytest.mark.parametrize("stage", ["prompts", "generate", "judge", "filter", "sft", "rl", "evals", "monitor", "card", "run"])
def test_a_stage_runs_the_path_up_to_itself(stage: str, recipe: Path, tmp_path: Path, pipeline: Any) -> None:
    calls = pipeline(lambda: None)
    assert cli.main([stage, str(recipe), "--dir", str(tmp_path / "out"), "--set", "run.seed=5", "--set", "generate.samples=2"]) == 0
    ((plan, run_dir, until),) = calls
    assert (plan.run.seed, plan.generate.samples) == (5, 2)
    assert run_dir == tmp_path / "out"
    assert until == ("card" if stage == "run" else stage)


def test_the_run_directory_is_named_by_the_recipe(recipe: Path, pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls = pipeline(lambda: None)
    assert cli.main(["card", str(recipe)]) == 0
    assert calls[0][1] == Path("runs/r")
    assert capsys.readouterr().out.split() == ["runs/r/10_card.html", "runs/r/10_card.md"]


def test_every_kind_of_failure_is_one_line(recipe: Path, tmp_path: Path, pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(error: BaseException) -> int:
        def behaviour() -> None:
            raise error

        pipeline(behaviour)
        return cli.main(["run", str(recipe), "--dir", str(tmp_path)])

    assert failing(UsageError("bad\nthing", where="f", line=3, hint="mend it")) == 2
    assert complaint(capsys) == "f:3: bad thing (mend it)"
    assert failing(StageFailed("judge: 40 % abstained")) == 2
    assert complaint(capsys) == "judge: 40 % abstained"
    assert failing(ModelError("gone")) == 1
    assert complaint(capsys) == "gone"
    assert failing(KeyboardInterrupt()) == 130
    assert complaint(capsys).startswith("interrupted")
    assert failing(ModuleNotFoundError("No module named 'trl'", name="trl")) == 2
    assert "pip install 'preceptor[train]'" in complaint(capsys)
    assert failing(ValueError("odd\x1b[2J")) == 1
    said = complaint(capsys)
    assert said.startswith("unexpected ValueError: odd")
    assert "\x1b" not in said
    assert str(tmp_path / "error.log") in said
    assert "Traceback" in (tmp_path / "error.log").read_text()


def test_debug_shows_the_traceback(recipe: Path, pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def behaviour() -> None:
        raise ValueError("odd")

    pipeline(behaviour)
    assert cli.main(["run", str(recipe), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "required: recipe"),
        (["chat", "--max-tokens", "many"], "invalid int value"),
        (["eval", "--model", "runs/r:sft", "--suite", "style", "--n", "3"], "unrecognized arguments: --n 3"),  # not --name
        (["traces", "export", "--st", "traces.db"], "unrecognized arguments: --st traces.db"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert said in complaint(capsys)


def test_a_wrong_recipe_and_a_missing_one(tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path / "none.toml")]) == 2
    assert "cannot read the recipe: No such file" in complaint(capsys)
    recipe.write_text(RECIPE + "[generate]\nsampels = 3\n")
    assert cli.main(["run", str(recipe)]) == 2
    assert complaint(capsys).startswith(f"{recipe}:16: unknown key 'sampels' in [generate] (did you mean 'samples'?")


def test_chat_shows_and_hides_the_reasoning(
    tmp_path: Path, pipeline: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline(lambda: None)
    said = iter(["hello", "", "/reasoning", "again", "long", "third", "/reset", "/reasoning", "anew"])

    def read(prompt: str) -> str:
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    assert cli.main(["chat", "--dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    lines = printed.splitlines()[1:]
    mark = "\N{REPLACEMENT CHARACTER}"
    assert lines == [
        "[turn 1]",
        f"you said hello{mark}]0;owned{mark}",
        "reasoning hidden",
        f"you said again{mark}]0;owned{mark}",
        f"(truncated: you said long{mark}]0;owned{mark})",
        f"you said third{mark}]0;owned{mark}",
        "reasoning shown",
        "[turn 1]",
        f"you said anew{mark}]0;owned{mark}",
    ]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run directory with one chain of rows and one unrelated prompt."""
    rows: dict[str, list[dict[str, Any]]] = {
        "02_prompts.jsonl": [{"id": "aa00", "category": "tools"}, {"id": "aa11", "category": "tools"}],
        "03_completions.jsonl": [{"id": "bb11", "prompt_id": "aa11", "reasoning": "why\x1b[31m", "answer": "no"}],
        "04_verdicts.jsonl": [{"id": "dd11", "completion_id": "bb11", "clauses": ["T1"], "score": 1.0}],
        "05_examples.jsonl": [{"id": "ee11", "prompt_id": "aa11", "completion_id": "bb11", "judgement_id": "dd11"}],
        "08_prompts.jsonl": [{"id": "ab22", "category": "tools"}],
        "08_scores.jsonl": [{"id": "ff11", "prompt_id": "aa11", "value": 1.0}, {"id": "ff22", "prompt_id": "ab22", "value": 0.0}],
    }
    (tmp_path / "01_spec").mkdir()
    (tmp_path / "01_spec" / "spec.md").write_text(SPEC)
    for name, content in rows.items():
        path = tmp_path / name
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in content))
    return tmp_path


def chain(run_dir: Path, prefix: str) -> list[tuple[str, str]]:
    return [(found.row["id"], found.relation) for found in lineage.trace(run_dir, prefix)]


def test_ancestry_from_clause_to_score(finished: Path) -> None:
    clause = lineage.trace(finished, "T1")[0].row["id"]
    above = [(clause, "ancestor"), ("aa11", "ancestor"), ("bb11", "ancestor"), ("dd11", "ancestor")]
    assert chain(finished, "ee") == [*above, ("ee11", "row")]
    assert chain(finished, "dd11") == [*above[:3], ("dd11", "row"), ("ee11", "descendant")]
    assert chain(finished, "aa11")[1:] == [("bb11", "descendant"), ("ee11", "descendant"), ("ff11", "descendant")]
    assert chain(finished, "T1") == [(clause, "row"), ("dd11", "descendant")]
    assert chain(finished, "ff22") == [("ab22", "ancestor"), ("ff22", "row")], "prompts of the evaluation stand in a file of their own"


def test_show_prints_the_chain_without_control_characters(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "ee1", "--dir", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert "> 05_examples.jsonl:1  ee11" in printed
    assert "  04_verdicts.jsonl:1  dd11" in printed
    assert "why\N{REPLACEMENT CHARACTER}[31m" in printed
    assert "\x1b" not in printed


def test_show_prints_a_rollout_with_prompt_reasoning_answer_and_judgement(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Prompt(messages=(Message(role="user", content="Sell a hammer?"),), category="tools", split="rl")
    vote = Vote(score=0.5, clauses=("T1",), raw="it is\x1b[31m", reasoning="because")
    judged = Verdict(completion_id="v", judge="j", spec_hash="s", view="answer", score=0.5, votes=(vote,), clauses=("T1",))
    rollout = Rollout(asked, 2, Split("thought", "No.", "ok", ""), 9, {"judge": judged}, 0.5, 1.0, None)
    row = rollout.to_row(5, -0.25)
    (finished / "07_rl" / "sft+rl").mkdir(parents=True)
    (finished / "07_rl" / "sft+rl" / "rollouts.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    (finished / "02_prompts.jsonl").write_bytes(orjson.dumps(asked.to_row()) + b"\n")
    assert cli.main(["show", row["id"], "--dir", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert f"> 07_rl/sft+rl/rollouts.jsonl:1  {row['id']}" in printed
    for shown in (
        "Sell a hammer?",
        "reasoning: thought",
        "answer: No.",
        "score: 0.5",
        "advantage: -0.25",
        "because",
        "clause: T1",
        "01_spec",
    ):
        assert shown in printed, shown
    assert "\x1b" not in printed
    assert [found for found in chain(finished, asked.id) if found[1] == "descendant"] == [(row["id"], "descendant")]


def test_show_says_when_an_id_is_unknown_or_not_enough(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "zz", "--dir", str(finished)]) == 2
    assert "no row with an id that begins with 'zz'" in complaint(capsys)
    assert cli.main(["show", "aa", "--dir", str(finished)]) == 2
    said = complaint(capsys)
    assert "2 rows have ids" in said
    assert "aa00 (02_prompts.jsonl), aa11" in said
    assert cli.main(["show", "aa", "--dir", str(finished / "none")]) == 2
    assert "no such run directory" in complaint(capsys)


def test_without_a_directory_the_newest_run_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run directory here"):
        cli.newest_run(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    os.utime(tmp_path / "a" / "manifest.json", (2e9, 2e9))
    assert cli.newest_run(tmp_path) == tmp_path / "a"


@pytest.mark.parametrize("value", [0.98, 0.5])
def test_world_check_prints_every_figure_against_its_bar(
    value: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from preceptor.stats import Estimate
    from preceptor.world import check

    found = [check.Finding("decodes rot13", Estimate(value, value - 0.01, value + 0.01, 1000), 0.97)]
    monkeypatch.setattr(check, "main", lambda n: found)
    assert cli.main(["world", "check"]) == (0 if value > 0.97 else 2)
    printed = capsys.readouterr()
    assert f"{value:.3f} [{value - 0.01:.3f}, {value + 0.01:.3f}] n=1000" in printed.out
    assert printed.err == ("" if value > 0.97 else "preceptor: error: 1 of 1 figures fall short of their bar\n")


def test_spec_check_prints_counts_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["spec", "check", str(tmp_path / "none.md")]) == 2
    complaint(capsys)
    (tmp_path / "world.toml").write_text(RECIPE.replace('source = "s.md"', "") + "[world]\n")
    assert cli.main(["spec", "check", str(tmp_path / "world.toml")]) == 2
    assert "the generated world writes" in complaint(capsys)
    (tmp_path / "s.md").write_text(SPEC)
    cli.main(["spec", "check", str(tmp_path / "s.md")])
    printed = capsys.readouterr().out
    assert "s.md:" in printed, "a category without a default and without styles has findings, and each has its place"
    assert any(line.split()[0] == "1" for line in printed.splitlines())
