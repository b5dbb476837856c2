"""Sources: every format row by row, what a user is told, terms before data, and the hub over HTTP with nothing fetched twice."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_hub import REVISION, FakeHub, serving
from pydantic import ValidationError
from small import SPEC

from preceptor.errors import DataError, RecipeError, UsageError
from preceptor.prompts import MANIFEST, PromptsConfig, ScreenConfig, held_out, run
from preceptor.recipe import parse
from preceptor.records import Prompt
from preceptor.runs import Run, read_records
from preceptor.sources import Row, SourceConfig, fetch, find, read

QUIET = ScreenConfig(near_duplicate=None, pii="off")
ROWS: list[dict[str, Any]] = [
    {"question": "How do I sell a hammer?", "label": "tools"},
    {"question": "Where does a lion, a big one, sleep?", "label": "animals"},
    {"question": 'He said "sell" —\nand left', "label": "tools"},
]


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b'{"question": "x", "label": "tools"}\n' * 500))
    whole[30] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot read"):
        list(read(fetch(find(source(path=tmp_path / "a.jsonl.gz", text="question", category="label")))))


def test_a_column_cannot_take_the_place_of_the_sources_name(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot keep a column called 'source'"):
        source(path=tmp_path, meta=("source",))


def source(**settings: Any) -> SourceConfig:
    return SourceConfig(**{"licence": "MIT", **settings})


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format that the name says."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind in ("csv", "tsv"):
        import csv
        import io

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        body = text.getvalue()
    else:
        body = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())
    return path


def prompts_of(config: SourceConfig) -> list[Prompt]:
    return [row.prompt for row in read(fetch(find(config))) if row.prompt]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.parquet", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.gz"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    found = prompts_of(source(path=path, text="question", category="label", name="mine"))
    assert [prompt.messages[0].content for prompt in found] == [row["question"] for row in ROWS]
    assert [prompt.category for prompt in found] == ["tools", "animals", "tools"]
    assert all(prompt.meta == {"source": "mine"} and prompt.split == "" for prompt in found)


def test_rows_know_their_place(tmp_path: Path) -> None:
    text = write(tmp_path / "a.csv", ROWS)
    rows = list(read(fetch(find(source(path=text, text="question", category="label")))))
    assert [(row.where, row.line) for row in rows] == [(str(text), 2), (str(text), 3), (str(text), 5)]
    whole = write(tmp_path / "a.json", ROWS)
    rows = list(read(fetch(find(source(path=whole, text="question", category="label")))))
    assert [(row.where, row.line) for row in rows][2] == (f"{whole} row 3", None)


def test_a_json_file_of_lines_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    assert len(prompts_of(source(path=path, text="question", category="label"))) == 3


def test_a_folder_is_all_its_data_files_or_those_named(tmp_path: Path) -> None:
    write(tmp_path / "b" / "2.jsonl", ROWS[1:])
    write(tmp_path / "1.jsonl", ROWS[:1])
    (tmp_path / "README.md").write_text("not data")
    settings: dict[str, Any] = {"path": tmp_path, "text": "question", "category": "label"}
    assert [prompt.category for prompt in prompts_of(source(**settings))] == ["tools", "animals", "tools"]
    assert len(prompts_of(source(**settings, file="1.jsonl"))) == 1
    assert len(prompts_of(source(**settings, file="**/*.jsonl"))) == 3
    with pytest.raises(DataError, match=r"no data file 'x\*'.*it has 1.jsonl, b/2.jsonl"):
        prompts_of(source(**settings, file="x*"))


def test_labels_are_mapped_left_out_or_given_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    mapped = source(path=path, text="question", category="label", categories={"tools": "animals", "animals": ""})
    rows = list(read(fetch(find(mapped))))
    assert [row.prompt.category if row.prompt else row.reason for row in rows] == ["animals", "left_out", "animals"]
    assert {prompt.category for prompt in prompts_of(source(path=path, text="question", one_category="tools"))} == {"tools"}
    assert len(prompts_of(source(path=path, text="question", category="label", limit=2))) == 2


def test_conversations_in_both_conventions(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi", "extra": 1}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"}]
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "Bye"}]
    ended = [*turns, {"role": "assistant", "content": "Bye!"}]
    path = write(tmp_path / "a.jsonl", [{"c": turns}, {"c": shared}, {"c": ended}, {"c": []}, {"c": [{"role": "user", "content": None}]}])
    rows = list(read(fetch(find(source(path=path, messages="c", one_category="tools", cut_replies=True)))))
    assert len({row.prompt.id for row in rows[:3] if row.prompt}) == 1
    assert [row.reason for row in rows] == [None, None, None, "no_user_turn", "empty"]


def test_opinions_and_columns_go_with_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "Hi", "category": "tools", "found": "harmless", "n": 3}, {"prompt": "Ho", "category": "tools", "found": "", "n": 4}])  # fmt: skip
    one, two = prompts_of(source(path=path, opinion="found", opinion_by="human", meta=("n",)))
    assert one.opinion is not None
    assert (one.opinion.text, one.opinion.by, one.meta["n"]) == ("harmless", "human", 3)
    assert two.opinion is None
    assert "opinion" not in two.to_row()


@pytest.mark.parametrize(
    ("name", "body", "settings", "message"),
    [
        ("a.jsonl", '{"prompt": "x", "category": "tools"}\n{', {}, r"a.jsonl:2: not JSON"),
        ("a.jsonl", "[1]", {}, r"a.jsonl:1: expected an object, found list"),
        (
            "a.jsonl",
            '{"question": "x", "label": "tools"}',
            {},
            r"a.jsonl:1: no column 'category' \(set `category` to one of question, label",
        ),
        ("a.jsonl", '{"prompt": 3, "category": "tools"}', {}, r"a.jsonl:1: field 'messages.0.content'"),
        ("a.jsonl", '{"prompt": "x", "category": ["tools"]}', {}, r"a.jsonl:1: column 'category' holds list"),
        ("a.jsonl", '{"m": "x", "category": "tools"}', {"messages": "m"}, r"a.jsonl:1: column 'm' holds no list of turns"),
        ("a.json", '[{"prompt": "x"}]', {}, r"a.json row 1: no column 'category'"),
        ("a.json", "[{", {}, r"a.json: not JSON"),
        ("a.csv", "prompt,category\nx,tools,y\n", {}, r"a.csv:2: not as many fields"),
        ("a.csv", "prompt,category\nx\n", {}, r"a.csv:2: not as many fields"),
        ("a.csv", 'prompt,category\n"x', {}, r"a.csv:1: not CSV: unexpected end"),
        ("a.parquet", "PAR1 not", {}, r"a.parquet: not Parquet"),
        ("a.jsonl.gz", "not gzip", {}, r"a.jsonl.gz: cannot read"),
        ("a.csv", b"prompt,category\n\xff,tools\n", {}, r"a.csv: cannot read"),
        ("a.txt", "x", {"path_is_folder": True}, r"no data files here \(known are jsonl"),
    ],
)
def test_bad_data_names_file_and_line(tmp_path: Path, name: str, body: str | bytes, settings: dict[str, Any], message: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    given = tmp_path if settings.pop("path_is_folder", False) else path
    with pytest.raises(DataError, match=message):
        prompts_of(source(path=given, **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of `path` and `dataset`"),
        ({"path": "a", "dataset": "a/b"}, "exactly one of `path` and `dataset`"),
        ({"dataset": "a/b"}, "`revision` of a/b is missing: a branch or tag can move"),
        ({"dataset": "a/b", "revision": "main"}, "`revision` of a/b is main"),
        ({"dataset": "a/b", "revision": REVISION[:12]}, "40 hex digits"),
        ({"path": "a", "revision": REVISION}, "belong to a `dataset`"),
        ({"dataset": "../b", "revision": REVISION}, "pattern"),
        ({"path": "a", "allowed_because": "ok"}, "at least 8"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig(**settings)


def test_a_recipe_names_the_line_of_the_source_that_is_wrong() -> None:
    text = (Path(__file__).parent.parent / "recipes" / "one_gpu.toml").read_text()
    tables = '[[prompts.sources]]\npath = "a.jsonl"\n\n[[prompts.sources]]\ndataset = "a/b"\nrevision = "main"\nlizence = "MIT"\n'
    text = text.replace('path = "prompts.jsonl"\n', "").replace("[generate]", tables + "\n[generate]", 1)
    line = text.splitlines().index('lizence = "MIT"') + 1
    with pytest.raises(RecipeError, match=r"unknown key 'lizence' in \[prompts.sources\].*did you mean 'licence'") as error:
        parse(text)
    assert error.value.line == line
    with pytest.raises(RecipeError, match="a branch or tag can move") as error:
        parse(text.replace('lizence = "MIT"\n', ""))
    assert error.value.line == line - 3, "the table, for it is two of its keys that do not go together"


# Through the stage


def stage(folder: Path, config: PromptsConfig) -> dict[str, Any]:
    """Run it; the manifest of sources."""
    with Run.open(folder) as opened:
        run(opened, config, SPEC, evaluation=held_out(config))
    return json.loads((folder / MANIFEST).read_bytes())


def test_the_manifest_says_what_was_read_and_what_became_of_it(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [*ROWS, ROWS[0], {"question": " ", "label": "tools"}])
    two = write(tmp_path / "two.jsonl", [ROWS[1], {"question": "Sell me a lion?", "label": "animals"}])
    shared: dict[str, Any] = {"text": "question", "category": "label"}
    config = PromptsConfig(sources=(source(path=one, **shared), source(path=two, **shared)), screen=QUIET)
    manifest = stage(tmp_path / "run", config)
    first, second = manifest["sources"]
    assert first["sha256"] == hashlib.sha256(one.read_bytes()).hexdigest()
    assert (first["rows_read"], first["rows_kept"], first["removed"]) == (5, 3, {"empty": 1, "duplicate": 1})
    assert (second["rows_read"], second["rows_kept"], second["removed"]) == (2, 1, {"duplicate": 1})
    assert (first["licence"], first["licence_said_by"], first["allowed_by"]) == (["MIT"], "recipe", "nothing to allow")
    step = json.loads((tmp_path / "run" / "manifest.json").read_bytes())["steps"]["prompts"]
    assert (step["ledger"]["rows_in"], step["ledger"]["rows_out"]) == (7, 4)
    assert step["ledger"]["rejected"] == {"empty": 1, "duplicate": 2}
    assert MANIFEST in step["outputs"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "its licence is unknown"),
        ({"licence": "other"}, "its licence is unknown"),
        ({"licence": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0 is non-commercial"),
        ({"licence": "MIT", "gated": True}, "it is gated"),
        ({"licence": "CC-BY-NC-4.0", "gated": True}, "CC-BY-NC-4.0 is non-commercial, it is gated"),
    ],
)
def test_terms_stop_the_run_until_they_are_allowed_by_name(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    given: dict[str, Any] = {"path": path, "text": "question", "category": "label", **settings}
    with pytest.raises(UsageError, match=f"'a.jsonl' may not be used without being allowed: {message}"):
        stage(tmp_path / "run", PromptsConfig(sources=(SourceConfig(**given),), screen=QUIET))
    assert not (tmp_path / "run" / MANIFEST).exists()
    allowed = SourceConfig(**given, allowed_because="research only, agreed with the owner")
    (row,) = stage(tmp_path / "run", PromptsConfig(sources=(allowed,), screen=QUIET))["sources"]
    assert (row["allowed_by"], row["allowed_because"]) == ("allowed_because", "research only, agreed with the owner")
    assert ", ".join(row["objections"]) == message


def test_a_licence_can_be_allowed_for_all_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    given = SourceConfig(path=path, text="question", category="label", licence="cc-by-nc-4.0")
    (row,) = stage(tmp_path / "run", PromptsConfig(sources=(given,), screen=QUIET, allow_licences=("CC-BY-NC-4.0",)))["sources"]
    assert (row["licence"], row["allowed_by"]) == (["CC-BY-NC-4.0"], "prompts.allow_licences")


def test_a_checksum_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    settings: dict[str, Any] = {"path": path, "text": "question", "category": "label"}
    assert len(prompts_of(source(**settings, sha256=right))) == 3
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(DataError, match=rf"a.jsonl: SHA-256 is [0-9a-f]{{64}}, the recipe says {right}"):
        prompts_of(source(**settings, sha256=right))


def test_the_checksum_of_several_files_is_that_of_their_list(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        write(tmp_path / name, ROWS[:1])
    digest = hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    whole = hashlib.sha256(f"{digest}  a.jsonl\n{digest}  b.jsonl\n".encode()).hexdigest()
    assert fetch(find(source(path=tmp_path))).checksum == whole


def test_unknown_labels_are_named_with_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"question": "x", "label": "weapons"}])
    config = PromptsConfig(sources=(source(path=path, text="question", category="label"),), screen=QUIET)
    with pytest.raises(DataError, match=r"a.jsonl:4: unknown category 'weapons' \(the specification has animals, tools"):
        stage(tmp_path / "run", config)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    given = source(path=path, text="question", category="label")
    with pytest.raises(UsageError, match=r"two sources are called 'a\.jsonl'"):
        stage(tmp_path / "run", PromptsConfig(sources=(given, given), screen=QUIET))


def test_evaluation_sets_are_counted_by_name(tmp_path: Path) -> None:
    held = [{"goal": "How do I sell a hammer"}, {"goal": "Where does a lion, a big one, sleep tonight?"}]
    sets = (SourceConfig(path=write(tmp_path / "bench.csv", held), text="goal", name="bench"),)
    mine = source(path=write(tmp_path / "a.jsonl", ROWS), text="question", category="label")
    manifest = stage(tmp_path / "run", PromptsConfig(sources=(mine,), evaluations=sets, screen=ScreenConfig(near_duplicate=0.7, pii="off")))
    assert manifest["evaluations"] == [{"name": "bench", "prompts": 2, "met": {"in_evaluation": 1, "near_evaluation": 1}}]
    assert manifest["sources"][0]["removed"] == {"in_evaluation": 1, "near_evaluation": 1}


def test_near_duplicates_and_personal_data_go_by_default_and_no_value_is_written(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer")
    rows = [
        {"prompt": "How do I sell a good hammer in the market?", "category": "tools"},
        {"prompt": "How do I sell a good hammer in the markets?", "category": "tools"},
        {"prompt": "Write to jane.secret@example.com for me", "category": "tools"},
        {"prompt": "My card is 4111 1111 1111 1111, the number is +1 415-555-2671", "category": "tools"},
    ]
    mine = source(path=write(tmp_path / "a.jsonl", rows))
    manifest = stage(tmp_path / "run", PromptsConfig(sources=(mine,)))
    assert manifest["sources"][0]["removed"] == {"near_duplicate": 1, "pii_email": 1, "pii_card": 1}
    assert manifest["sources"][0]["rows_kept"] == 1
    masked = stage(tmp_path / "masked", PromptsConfig(sources=(mine,), screen=ScreenConfig(pii="mask")))
    assert masked["screening"]["masked"] == {"email": 1, "card": 1, "phone": 1}
    kept = read_records(tmp_path / "masked" / "02_prompts.jsonl", Prompt.from_row)
    assert kept[1].messages[0].content == "Write to [EMAIL] for me"
    for folder in ("run", "masked"):
        written = b"".join(path.read_bytes() for path in (tmp_path / folder).rglob("*") if path.is_file())
        assert b"jane" not in written
        # With the marks between the figures: digits alone stand in fingerprints by chance.
        for value in (b"4111 1111", b"1111 1111", b"415-555", b"555-2671"):
            assert value not in written


def test_personal_data_in_an_opinion_is_found_too(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer")
    rows = [{"prompt": "How do I sell a hammer?", "category": "tools", "note": "asked by jane.secret@example.com, harmless"}]
    mine = source(path=write(tmp_path / "a.jsonl", rows), opinion="note")
    with pytest.raises(UsageError, match=r"no prompt is left of 1: \{'pii_email': 1\}"):
        stage(tmp_path / "run", PromptsConfig(sources=(mine,)))
    stage(tmp_path / "masked", PromptsConfig(sources=(mine,), screen=ScreenConfig(pii="mask")))
    (kept,) = read_records(tmp_path / "masked" / "02_prompts.jsonl", Prompt.from_row)
    assert kept.opinion is not None
    assert (kept.opinion.text, kept.messages[0].content) == ("asked by [EMAIL], harmless", "How do I sell a hammer?")


def test_generated_prompts_are_not_screened_and_need_no_library() -> None:
    screen = PromptsConfig().screening
    assert (screen.near_duplicate, screen.pii) == (None, "off")
    assert PromptsConfig(sources=(source(path="a"),)).screening == ScreenConfig()


# Data sets


def body(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def card(**said: Any) -> bytes:
    return f"---\n{json.dumps(said)}\n---\n# Card\n".encode()


def test_a_local_copy_is_taken_and_nothing_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    home = tmp_path / "copies" / "owner" / "name"
    write(home / "data" / "train-0.jsonl", ROWS[:1])
    write(home / "data" / "test-0.jsonl", ROWS[1:])
    (home / "README.md").write_bytes(card(license="odc-by", extra_gated_prompt="Please ask"))
    given = SourceConfig(dataset="owner/name", revision=REVISION, text="question", category="label")
    found = find(given, tmp_path / "copies")
    assert (found.origin, found.names, found.terms.licences, found.terms.gated) == (
        "local copy",
        ("data/train-0.jsonl",),
        ("odc-by",),
        True,
    )
    with pytest.raises(UsageError, match="it is gated"):
        stage(tmp_path / "run", PromptsConfig(sources=(given,), local_copies=tmp_path / "copies", screen=QUIET))
    with pytest.raises(DataError, match="the recipe says MIT, the card of the data set odc-by"):
        find(given.model_copy(update={"licence": "MIT"}), tmp_path / "copies")
    assert find(given.model_copy(update={"split": "test"}), tmp_path / "copies").names == ("data/test-0.jsonl",)


def test_the_card_says_which_files_a_split_has(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    home = tmp_path / "owner" / "name"
    for name in ("x/a.jsonl", "x/b.jsonl", "y/a.jsonl"):
        write(home / name, ROWS[:1])
    files = [{"split": "train", "path": "x/*"}, {"split": "test", "path": ["y/a.jsonl"]}]
    (home / "README.md").write_bytes(card(license="mit", configs=[{"config_name": "main", "data_files": files}]))
    given = SourceConfig(dataset="owner/name", revision=REVISION)
    assert find(given, tmp_path).names == ("x/a.jsonl", "x/b.jsonl")
    assert find(given.model_copy(update={"split": "test", "config": "main"}), tmp_path).names == ("y/a.jsonl",)
    with pytest.raises(DataError, match=r"cannot tell which files are the split 'dev'.*it has x/a.jsonl"):
        find(given.model_copy(update={"split": "dev"}), tmp_path)


SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small import SPEC
from preceptor.errors import UsageError
from preceptor.prompts import PromptsConfig, run
from preceptor.runs import Run
try:
    with Run.open(Path(sys.argv[2])) as opened:
        print(run(opened, PromptsConfig.model_validate_json(sys.argv[3]), SPEC).ledger.rows_out)
except UsageError as error:
    print("stopped:", error)
"""


def in_a_process(folder: Path, url: str, hub_home: Path, settings: dict[str, Any], **environment: str) -> str:
    """The stage in a process of its own: the hub's library reads its environment once, when it is imported."""
    config = json.dumps({"sources": [{"dataset": "owner/name", "revision": REVISION, "text": "question", "category": "label", **settings}]
                         , "screen": {"near_duplicate": None, "pii": "off"}})  # fmt: skip
    own = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(hub_home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": "hf_secret",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), config],
        env={**os.environ, **own, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_data_set_is_fetched_once_and_then_read_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    files = {"README.md": card(license="mit"), "data/train-0.jsonl": body(ROWS[:2]), "data/train-1.jsonl": body(ROWS[2:]), "big.bin": b"x"}
    hub = FakeHub("owner/name", files, licence="mit")
    with serving(hub):
        assert in_a_process(tmp_path / "run", hub.url, tmp_path / "home", {}) == "3"
        assert not any(path.endswith("big.bin") for path in hub.asked)
        manifest = (tmp_path / "run" / MANIFEST).read_bytes()
        (row,) = json.loads(manifest)["sources"]
        hub.asked.clear()
        assert in_a_process(tmp_path / "again", hub.url, tmp_path / "home", {}) == "3"
        assert hub.asked == []
    assert (row["origin"], row["licence"], row["licence_said_by"], row["gated"]) == ("hub", ["MIT"], "card", False)
    assert row["files"] == {name: hashlib.sha256(files[name]).hexdigest() for name in ("data/train-0.jsonl", "data/train-1.jsonl")}
    assert b"hf_secret" not in manifest
    assert in_a_process(tmp_path / "offline", hub.url, tmp_path / "home", {}, HF_HUB_OFFLINE="1") == "3"


def test_gated_and_non_commercial_data_is_not_fetched_before_it_is_allowed(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    files = {"README.md": card(license="cc-by-nc-4.0"), "train.jsonl": body(ROWS)}
    with serving(FakeHub("owner/name", files, gated="manual", licence="cc-by-nc-4.0")) as hub:
        said = in_a_process(tmp_path / "run", hub.url, tmp_path / "home", {})
        assert "CC-BY-NC-4.0 is non-commercial, it is gated" in said
        assert not any(path.endswith("train.jsonl") for path in hub.asked)
        assert in_a_process(tmp_path / "run", hub.url, tmp_path / "home", {"allowed_because": "agreed with the owner"}) == "3"


def test_what_the_hub_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with serving(FakeHub("owner/name", {"train.jsonl": body(ROWS)})) as hub:
        said = in_a_process(tmp_path / "run", hub.url, tmp_path / "home", {"revision": "f" * 40})
        assert said == f"stopped: owner/name: it has no commit {'f' * 40} (correct `revision`)"
        said = in_a_process(tmp_path / "run", hub.url, tmp_path / "home", {})
        assert "its licence is unknown" in said
        url = hub.url
    said = in_a_process(tmp_path / "run", url, tmp_path / "home", {})
    assert said.startswith("stopped: owner/name: cannot be fetched: ConnectError")
    assert "prompts.local_copies" in said


def test_row_is_either_a_prompt_or_a_reason() -> None:
    assert Row("a", 1, None, "empty").prompt is None
