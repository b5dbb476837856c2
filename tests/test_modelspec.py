"""The OpenAI Model Spec: a small one in its format, and the published one where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preceptor import modelspec
from preceptor.errors import SpecError
from preceptor.records import CaseExample
from preceptor.spec import check, describe, estimate_tokens, load

TEXT = """# Overview {#overview}

Hello.

## General principles {#general_principles}

Be good.

# Bounds {#bounds}

Stay here[^ab12].

## Obey the law {#law authority=system}

The law holds, see [?](#risky) and [this](#refusal_style).

!!! meta "Commentary"
    We think so[^zz99].

    Truly.

More law.

**Example**: a caption

~~~xml
<developer>
# Not a heading {#no}
</developer>
<user>
May I?
</user>
<comparison>
<assistant> <!-- GOOD: kind -->
Yes.
</assistant>
<assistant> <!-- BAD[#law] -->
No.
</assistant>
<assistant> <!-- BAD -->
Never.
</assistant>
</comparison>
[...]
<user>
And now?
</user>
<comparison>
<assistant> <!-- OK -->
Hm.
</assistant>
</comparison>
~~~

## Risky {#risky}

Take care.

### Do no harm {#harm authority=root}

No harm.

## When refusing {#refusal_style authority=guideline}

Be brief.
"""
FILES = {
    "examples/ab12.md": "Examples for [^ab12] in Bounds:\n\n**Example**: x\n\n~~~xml\n<user>\nSecret prompt\n</user>\n~~~",
    "examples/cd34.md": "Examples for [^cd34] in Gone:\n",
}


@pytest.fixture(scope="module")
def document() -> modelspec.ModelSpec:
    return modelspec.read(TEXT, "model_spec.md", FILES, "2025.01.01")


def test_sections_keep_text_and_commentary_apart(document: modelspec.ModelSpec):
    law = next(section for section in document.sections if section.id == "law")
    assert (law.title, law.level, law.line, law.authority) == ("Obey the law", 2, 13, "system")
    assert law.text == "The law holds, see Risky and this.\n\nMore law."
    assert law.commentary == ("We think so.\n\nTruly.",)


def test_footnotes_are_tied_to_their_files(document: modelspec.ModelSpec):
    assert [(note.tag, note.line, note.file) for note in document.footnotes] == [("ab12", 11, "examples/ab12.md"), ("zz99", 18, None)]
    assert [example.tag for example in document.unused()] == ["cd34"]


def test_dialogues_keep_every_reply(document: modelspec.ModelSpec):
    first, second = document.dialogues
    assert [(turn.role, turn.text) for turn in first.turns] == [("developer", "# Not a heading {#no}"), ("user", "May I?")]
    assert [(reply.label, reply.text, reply.comment) for reply in first.replies] == [
        ("GOOD", "Yes.", "kind"),
        ("BAD", "No.", "[#law]"),
        ("BAD", "Never.", ""),
    ]
    assert [turn.role for turn in second.turns] == ["developer", "user", "assistant", "omitted", "user"]
    assert second.turns[2].text == "Yes."
    assert second.caption == "a caption"


def test_routing(document: modelspec.ModelSpec):
    spec = modelspec.to_spec(document)
    assert {key: [clause.clause for clause in category.clauses] for key, category in spec.categories.items()} == {
        "bounds": ["bounds", "law", "refusal_style"],
        "risky": ["risky", "harm"],
    }
    law = spec.clause("law")
    assert law is not None
    assert (law.disposition, law.authority, law.text.split("\n")[0]) == (None, "system", "Obey the law.")
    asked = "developer: # Not a heading {#no}\nuser: May I?"
    assert law.examples == (CaseExample(user=asked, good="Yes.", bad="No."), CaseExample(user=asked, bad="Never."))
    assert spec.for_category("risky", "rules") == (
        "Be good.\nPolicies in short:\n- bounds: Bounds: Obey the law; When refusing\nStyle:\n- refuse: Be brief.\n"
        "Policy for risky:\n- Risky. Take care. [risky]\n- Do no harm. No harm. [harm]"
    )


def test_evaluation_prompts_and_commentary_never_reach_a_view(document: modelspec.ModelSpec):
    spec = modelspec.to_spec(document)
    views = [spec.for_category(category) for category in spec.categories]
    assert "Do no harm" in views[0]
    assert not any(text in view for view in views for text in ("Secret prompt", "We think so", "[^"))


def test_lint(document: modelspec.ModelSpec):
    assert [(finding.code, finding.line) for finding in check(modelspec.to_spec(document))] == [
        ("stale-section-title", 1),
        ("unused-example-file", 1),
        ("untied-footnote", 18),
        ("no-example", 59),
        ("no-example", 63),
    ]


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        ("now?\n</user>", "now?", "[...]\n<user>", "never closed by </user>"),
        ("[...]", "stray", "[...]", "'stray' stands outside every message"),
    ],
)
def test_a_damaged_dialogue_names_its_line(old: str, new: str, at: str, message: str):
    with pytest.raises(SpecError, match=message) as caught:
        modelspec.read(TEXT.replace(old, new), "model_spec.md", {})
    assert caught.value.line == TEXT[: TEXT.index(at)].count("\n") + 1 + at.count("\n")


def test_a_file_that_is_no_example_file_is_named():
    with pytest.raises(SpecError, match="not an example file") as caught:
        modelspec.read(TEXT, "model_spec.md", {"examples/x.md": "Something else\n"})
    assert caught.value.where == "examples/x.md"


def test_load_recognises_the_format(tmp_path: Path):
    (tmp_path / "README.md").write_text("# Read me\n", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## v2025.02.03\n", encoding="utf-8")
    (tmp_path / "model_spec.md").write_text(TEXT, encoding="utf-8")
    (tmp_path / "examples").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    whole, alone = load(tmp_path), load(tmp_path / "model_spec.md")
    assert whole == alone
    assert (whole.name, whole.version, dict(describe(whole))["example files used"]) == ("OpenAI Model Spec", "2025.02.03", 1)


# --- the published document


@pytest.fixture(scope="module")
def published() -> Path:
    data = Path(os.environ.get("PRECEPTOR_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "model_spec" / "model_spec.md").is_file():
        pytest.skip("the OpenAI Model Spec is not here; set PRECEPTOR_DATA to the folder that holds model_spec/")
    return data / "model_spec"


def test_the_published_document_is_read_whole(published: Path):
    text = (published / "model_spec.md").read_text(encoding="utf-8")
    rows = dict(describe(load(published)))
    assert rows["headings with an id"] == rows["headings"] == text.count("{#")
    assert sum(rows[f"authority {name}"] for name in modelspec.AUTHORITIES) == text.count(" authority=")
    assert rows["commentary blocks"] == text.count('!!! meta "Commentary"')
    assert rows["footnote tags"] == text.count("[^")
    assert rows["example files"] == len(list((published / "examples").glob("*.md")))
    assert rows["footnote tags with an example file"] == rows["example files used"]
    assert rows["example files used"] + rows["example files unused"] == rows["example files"]
    assert rows["example blocks"] == text.count("~~~xml")
    assert rows["dialogues with replies"] == text.count("<comparison>")
    assert rows["good replies"] == text.count("<!-- GOOD")
    assert rows["bad replies"] == text.count("<!-- BAD")


def test_the_published_document_routes_and_lints(published: Path):
    spec = load(published)
    assert [finding for finding in check(spec) if finding.severity == "error"] == []
    views = {category: spec.for_category(category) for category in spec.categories}
    assert max(map(estimate_tokens, views.values())) < 10_000
    assert "[avoid_regulated_advice]" in views["risky_situations"]
    assert "[avoid_info_hazards]" in views["disallowed_content"]
    background = {"overview", "structure", "risk_taxonomy", "levels_of_authority", "definitions", *modelspec.PRINCIPLES}
    titles_alone = {"seek_truth", "best_work"}
    assert {place.id for place in spec.anchors} - {clause.clause for clause in spec.clauses} == background | titles_alone
