"""The difference of two specifications: every kind of change by its id, nothing else, and the command that says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_stale import DRAW, NEW_RULE, TEXT, go

from preceptor import cli, spec
from preceptor.specdiff import diff, reached, render, words

OLD = spec.parse(TEXT)


def changes(old: str, new: str) -> list[tuple[str, str, str]]:
    assert old in TEXT
    return [(change.unit, change.id, change.what) for change in diff(OLD, spec.parse(TEXT.replace(old, new)))]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("Sell a tool", "Sell or lend a tool", [("clause", "T1", "text")]),
        ("### T1 {#T1 disposition=refuse}", "### T1 {#T1 disposition=comply}", [("clause", "T1", "disposition")]),
        ("### T1 {#T1 disposition=refuse}", "### T1 {#T1 disposition=refuse authority=system}", [("clause", "T1", "authority")]),
        ("Sell a tool\n", "Sell a tool\n**Example.** How?\n", [("clause", "T1", "examples")]),
        ("Sell a tool\n", "Sell a tool\n**Rationale.** Why not.\n", [("clause", "T1", "rationale")]),
        ("A toy; use [T2](#T2).", "A small toy; use [T2](#T2).", [("clause", "T1", "exclusions")]),
        ("### T2 {#T2 disposition=comply}\nSell a toy\n", "", [("clause", "T2", "removed")]),
        ("### T2 {#T2 ", "### T9 {#T9 ", [("clause", "T2", "removed"), ("clause", "T9", "added")]),
        ("Things that live.", "What lives.", [("category", "animals", "summary")]),
        ("## Animals", "## Beasts", [("category", "animals", "title")]),
        ("Say sorry and stop.", "Say sorry.", [("style", "S2", "text")]),
        ("# Small {version=1}", "# Small {version=1}\nBe kind.", [("principles", "principles", "text")]),
        ("version=1", "version=2", []),
        ("Sell a tool", "Sell\na tool", []),
    ],
)
def test_a_change_is_found_under_its_id_and_nothing_else(old: str, new: str, found: list[tuple[str, str, str]]) -> None:
    assert changes(old, new) == found


def test_a_clause_that_moves_is_not_removed_and_added() -> None:
    rule = "### A1 {#A1 disposition=safe_complete}\nMove an animal\n"
    (found,) = diff(OLD, spec.parse(TEXT.replace(rule, "").replace("### T2 ", rule + "### T2 ")))
    assert (found.id, found.what, found.old, found.new) == ("A1", "moved", "in animals", "in tools")
    tools = OLD.categories["tools"]
    turned = replace(OLD, categories={**OLD.categories, "tools": replace(tools, clauses=tools.clauses[::-1])})
    (found,) = diff(OLD, turned)
    assert (found.id, found.what, found.old, found.new) == ("T2", "moved", "after T1", "first")


def test_no_change_against_itself() -> None:
    assert diff(OLD, OLD) == []
    assert not any(reached(OLD, OLD).values())


def test_reached_views_include_those_that_only_show_the_summary() -> None:
    assert reached(OLD, NEW_RULE) == {"tools": False, "animals": True}
    assert reached(OLD, spec.parse(TEXT.replace("Things that live.", "What lives."))) == {"tools": True, "animals": True}


@given(st.text(alphabet="ab \n"), st.text(alphabet="ab \n"))
def test_the_marked_words_are_both_texts(old: str, new: str) -> None:
    runs = list(words(old, new))
    assert "".join(run for kind, run in runs if kind != "new") == old
    assert "".join(run for kind, run in runs if kind != "old") == new


def test_what_is_shown_needs_no_colour() -> None:
    lines = [line.plain for line in render(diff(OLD, NEW_RULE), reached(OLD, NEW_RULE), [])]
    assert lines == ["clause A1  text  in animals", "    Move{+ or sell+} an animal", "views that read differently: 1 of 2: animals"]


def test_the_command_counts_the_rows_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("old.md", TEXT), ("new.md", TEXT.replace("Move an animal", "Move or sell an animal"))):
        (tmp_path / name).write_text(text, encoding="utf-8")
    go(tmp_path / "run", OLD, config=DRAW)
    recipe = Path(__file__).parents[1] / "recipes" / "one_gpu.toml"
    from preceptor import recipe as recipes

    (tmp_path / "run" / "recipe.json").write_text(recipes.load(recipe).model_dump_json(), encoding="utf-8")
    command = ["spec", "diff", str(tmp_path / "old.md"), str(tmp_path / "new.md"), "--dir", str(tmp_path / "run")]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "Move{+ or sell+} an animal" in shown
    assert "03_completions.jsonl: 12 of 24 rows to make again\n    animals: 12 of 12\n04_verdicts" in shown
    assert "02_prompts.jsonl: 0 of 12 rows to make again\n03" in shown
    assert cli.main([*command, "--json"]) == 0
    data = orjson.loads(capsys.readouterr().out)
    assert [(change["id"], change["what"]) for change in data["changes"]] == [("A1", "text")]
    assert {"artefact": "05_examples.jsonl", "view": "animals", "rows": 12, "stale": 12, "unknown": 0} in data["rows"]
    assert cli.main(["spec", "diff", str(tmp_path / "old.md"), str(tmp_path / "old.md"), "--dir", str(tmp_path)]) == 2
    assert "no recipe.json here" in capsys.readouterr().err


def test_the_model_spec_against_an_edited_copy(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "model_spec" / "model_spec.md"
    if not source.is_file():
        pytest.skip("the OpenAI Model Spec is not here")
    text = source.read_text(encoding="utf-8")
    old = spec.load(source)
    target = old.categories["risky_situations"].clauses[1]
    line = next(line for line in target.text.split("\n")[1:] if len(line) > 80 and text.count(line) == 1)
    (tmp_path / "model_spec.md").write_text(text.replace(line, line + " Truly."), encoding="utf-8")
    new = spec.load(tmp_path / "model_spec.md")
    assert [(change.id, change.what) for change in diff(old, new)] == [(target.clause, "text")]
    assert [category for category, differs in reached(old, new).items() if differs] == ["risky_situations"]
