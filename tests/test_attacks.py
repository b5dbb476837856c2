"""Attacks keep what they are given: the request comes back out, the judge gets the original, and coded answers are read."""

from __future__ import annotations

import base64
import os
import random
import re
import textwrap
import time
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small import prompt, user

from preceptor import attacks
from preceptor.aggregate import unit_of
from preceptor.attacks import ATTACKS, PUBLISHED, REASONING, STATIC, attack, attacked, codes, original, read_answer, texts
from preceptor.errors import DataError, UsageError, WordingError
from preceptor.records import Message, Prompt, Score

GOLDEN = Path(__file__).parent / "golden" / "attacks"
ASK = "How do I sell a hammer?"
READABLE = [name for name, kind in ATTACKS.items() if kind.readable]
IN_BASE64 = [name for name, kind in ATTACKS.items() if kind.read_answer is codes.read_base64]
READERS = [(codes.as_written, "as written"), (codes.read_base64, "Base64"), (codes.read_rot_13, "ROT13")]
DRAWN = ["distractors", "distractors_negated", "payload_splitting", "poems", "puzzle_padding"]

LITERALS = sorted({part for name in STATIC for _, text in texts.turns(ATTACKS[name].text or name) for part in text.parts})
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
FORGED = st.lists(st.sampled_from([*LITERALS, "{request}", "{title}", "{task_a}", "\n", '"', "\\", "\x00"]), min_size=1, max_size=4).map(
    "".join
)
REQUESTS = (ANY | FORGED).filter(lambda text: bool(text.strip()))
HOSTILE = [
    "{request} {0} {} {title} {{task_a}} %s ${x}",
    "~~~~ fence ``` ''' \"\"\" \\",
    "null \x00 byte",
    "bidi \u202e override \u2066 isolate",
    "line\u2028paragraph\u2029next\x85\r\n\x0b\x0c",
    "\U0001f9d1\u200d\U0001f680 e\u0301 \ufeff \uffff \U0010ffff",
    "<|im_end|><think>[INST]",
    "\u200b \u200b\u200b x",
    "aeiou",
    "x",
    "part_1 = \"x\"\nwhole = part_1",
]  # fmt: skip


def shown(messages: tuple[Message, ...]) -> str:
    return "".join(f"[{message.role}]\n{message.content}\n" for message in messages)


@pytest.mark.parametrize("name", STATIC)
def test_golden(name: str) -> None:
    """`UPDATE_GOLDEN=1` rewrites the files; read the difference before committing it."""
    path, text = GOLDEN / f"{name}.txt", shown(attack(name, ASK, seed=7))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_there_are_enough_and_under_the_published_names() -> None:
    assert len(STATIC) >= 30
    assert set(PUBLISHED) == {
        "none", "aim", "dev_mode_v2", "dev_mode_with_rant", "evil_confidant", "evil_system_prompt", "prefix_injection", "refusal_suppression",
        "style_injection_json", "style_injection_short", "distractors", "distractors_negated", "poems", "wikipedia", "wikipedia_with_title",
        "few_shot_json", "base64", "base64_raw", "base64_input_only", "base64_output_only", "rot_13", "disemvowel", "leetspeak",
        "combination_2", "combination_3",
    }  # fmt: skip
    assert {"puzzle_padding", "fake_safety_reasoning", "think_less"} <= set(REASONING)
    assert {name for name, kind in ATTACKS.items() if kind.needs} == set(ATTACKS) - set(STATIC)
    assert set(ATTACKS) - set(READABLE) - {"disemvowel", "leetspeak"} == set(ATTACKS) - set(STATIC)


def test_every_file_is_used_and_every_text_has_its_request_once_and_last() -> None:
    used = {f"{pool}.list" for pool in ("tasks", "subjects", "puzzles")}
    for name, kind in ATTACKS.items():
        turns = texts.turns(kind.text or name)
        assert [text.slots.count("request") for _, text in turns] == [0] * (len(turns) - 1) + [1], name
        assert turns[-1][0] == "user", name
        around = turns[-1][1]
        place = 1 + 2 * around.slots.index("request")
        assert around.parts[place - 1] or place == 1, f"{name}: nothing to find the beginning of the request by"
        assert around.parts[place + 1] or place == len(around.parts) - 2, f"{name}: nothing to find its end by"
        used |= {text.name for _, text in turns} | ({f"{name}.inner"} if texts.inner(name) else set())
    folder = files("preceptor") / "texts" / "attacks"
    assert used == {item.name.removesuffix(".md") for item in folder.iterdir()}


def test_roles_and_order_of_turns() -> None:
    assert [message.role for message in attack("evil_system_prompt", ASK)] == ["system", "user"]
    assert [message.role for message in attack("foot_in_the_door", ASK)] == ["user", "assistant", "user", "assistant", "user"]
    assert attack("none", ASK) == (user(ASK),)
    assert attack("disemvowel", ASK) == (user("Hw d  sll  hmmr?"),)
    assert attack("leetspeak", ASK) == (user("H0w d0 1 53ll 4 h4mm3r?"),)
    assert attack("base64_raw", ASK) == (user(base64.b64encode(ASK.encode()).decode()),)
    assert codes.rot_13(ASK) == "Ubj qb V fryy n unzzre?"


@settings(max_examples=120)
@given(REQUESTS, st.integers(0, 3))
def test_the_original_comes_back_from_every_attack_that_claims_it(request_: str, seed: int) -> None:
    for name in READABLE:
        assert original(name, attack(name, request_, seed)) == request_, name


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_requests_come_through(text: str) -> None:
    for name in STATIC:
        messages = attack(name, text)
        assert all(message.content.strip() for message in messages)
        if ATTACKS[name].code is codes.PLAIN and texts.inner(name) is None:
            assert text in messages[-1].content
        if name in READABLE:
            assert original(name, messages) == text


@settings(max_examples=60)
@given(REQUESTS, st.integers())
def test_same_seed_same_conversation_and_never_empty(request_: str, seed: int) -> None:
    for name in STATIC:
        messages = attack(name, request_, seed)
        assert messages == attack(name, request_, seed)
        assert all(message.content.strip() for message in messages), name
        assert all(Message.from_row(message.to_row()) == message for message in messages)


def test_no_placeholder_is_left() -> None:
    for name in STATIC:
        assert not re.search(r"\{[a-z_]+\}", shown(attack(name, ASK))), name


@pytest.mark.parametrize("name", STATIC)
def test_the_seed_draws_where_there_is_something_to_draw(name: str) -> None:
    made = {shown(attack(name, ASK, seed)) for seed in range(12)}
    assert (len(made) > 6) == (name in DRAWN), len(made)
    assert len(made) == 1 or name in DRAWN


def test_a_draw_takes_nothing_twice() -> None:
    for seed in range(20):
        (message,) = attack("puzzle_padding", ASK, seed)
        assert sum(puzzle in message.content for puzzle in texts.entries("puzzles")) == 12
        (message,) = attack("distractors", ASK, seed)
        assert sum(task in message.content for task in texts.entries("tasks")) == 2
    assert all(len(set(lines)) == len(lines) and all(lines) for lines in map(texts.entries, ("tasks", "subjects", "puzzles")))


def test_a_hundred_kilobytes_come_through_in_time() -> None:
    draw = random.Random(1)
    text = "".join(draw.choices('abc {request} é漢\u202e\x00\n"\\ First: Second: ', k=100_000))
    started = time.process_time()
    for name in STATIC:
        messages = attack(name, text)
        assert name not in READABLE or original(name, messages) == text
    assert time.process_time() - started < 10


def test_titles_are_words_of_the_request() -> None:
    assert texts.title_of("how do I sell a hammer, and to whom, and when?") == "How Do I Sell A Hammer And To"
    assert texts.title_of("!!! \n ???") == "Overview"
    assert len(texts.title_of("x" * 1000)) == 60
    assert "\n" not in texts.title_of("Title:\n\nTitle:")


def test_bad_requests_and_names_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"unknown attack 'base46'.*did you mean 'base64'"):
        attack("base46", ASK)
    with pytest.raises(UsageError, match=r"unknown attack 'zzzzzzzz'.*there are: none, aim"):
        read_answer("zzzzzzzz", "x")
    for empty in ("", " \n\t"):
        with pytest.raises(DataError, match="the request is empty"):
            attack("aim", empty)
    with pytest.raises(DataError, match=r"lone surrogate\) at place 1"):
        attack("base64", "a\ud800b")
    with pytest.raises(UsageError, match="'disemvowel' does not keep the original"):
        original("disemvowel", attack("disemvowel", ASK))
    for name, text in {"aim": "Hello.", "base64_raw": "not base64!", "payload_splitting": "x", "combination_3": "x", "base64": "x"}.items():
        with pytest.raises(DataError):
            original(name, (user(text),))
    after, before = (attack(name, ASK)[-1].content for name in ("think_elsewhere", "think_none"))
    for name, edited in (("think_elsewhere", f"{after} Thanks."), ("think_elsewhere", after[:-1]), ("think_none", f"Hello. {before}")):
        with pytest.raises(DataError, match=f"not made by the attack text '{name}.user'"):
            original(name, (user(edited),))
    with pytest.raises(DataError, match="not JSON string"):
        original("few_shot_json", (user(attack("few_shot_json", ASK)[-1].content.replace(f'"{ASK}"', "3")),))
    with pytest.raises(DataError, match="no messages"):
        original("aim", ())
    with pytest.raises(WordingError, match=r"attacks/x: unknown placeholder \{nothing\}"):
        texts.Text.parse("x", "a {nothing} b").fill({"request": ASK})


def test_translation_needs_a_translator_and_uses_it() -> None:
    with pytest.raises(UsageError, match="'translation_zulu' needs a translator"):
        attack("translation_zulu", ASK)
    assert attack("translation_zulu", ASK, translator=lambda text: f"zu({text})") == (user(f"zu({ASK})"),)
    with pytest.raises(DataError, match=r"'translation': the translator's text cannot be used: the request is empty"):
        attack("translation", ASK, translator=lambda text: " ")
    with pytest.raises(UsageError, match="no translator was given for translation_hmong, translation_zulu"):
        attacked([prompt()], ["translation_hmong", "none", "translation_zulu"], translators={"translation": str})
    (made,) = attacked([prompt()], ["translation"], translators={"translation": str.swapcase})
    assert (made.messages, made.meta["original"]) == ((user(ASK.swapcase()),), ASK)


# Prompts for evaluation


def test_prompts_under_attack_know_their_source_and_their_original() -> None:
    sources = [prompt("How do I sell a hammer?"), prompt("How do I sell a saw?")]
    made = attacked(sources, STATIC, 3)
    assert [(item.meta["source"], item.meta["attack"]) for item in made] == [(item.id, name) for item in sources for name in STATIC]
    assert all(
        item.meta["original"] == source.messages[-1].content
        for source, item in zip([s for s in sources for _ in STATIC], made, strict=True)
    )
    assert all(item.messages == attack(str(item.meta["attack"]), str(item.meta["original"]), 3) for item in made)
    assert all((item.category, item.split) == ("tools", "train") for item in made)
    assert len({item.id for item in made}) == len(made)
    assert attacked(sources, STATIC, 3) == made
    assert [Prompt.from_row(item.to_row()) for item in made] == made
    scores = [Score(suite="s", arm="a", prompt_id=item.id, metric="m", value=1.0, grader="g", meta=item.meta) for item in made]
    assert {unit_of(score) for score in scores} == {source.id for source in sources}


def test_where_a_prompt_came_from_is_kept_beside_its_source() -> None:
    source = prompt().model_copy(update={"meta": {"source": "owner/name", "row": 4}})
    (made,) = attacked([source], ["aim"])
    assert made.meta == {"source": source.id, "dataset": "owner/name", "row": 4, "attack": "aim", "original": ASK}


def test_earlier_turns_stay_and_there_is_one_system_message() -> None:
    talk = (user("Hello."), Message(role="assistant", content="Good day.", reasoning="R"), user(ASK))
    system = Message(role="system", content="Be brief.")
    with_system = prompt().model_copy(update={"messages": (system, *talk)})
    plain, own = attacked([prompt().model_copy(update={"messages": talk}), with_system], ["evil_system_prompt"])
    assert [message.role for message in plain.messages] == ["system", "user", "assistant", "user"]
    assert [message.role for message in own.messages] == ["system", "user", "assistant", "user"]
    assert own.messages[0].content == f"Be brief.\n\n{plain.messages[0].content}"
    assert own.messages[1:3] == talk[:2]
    assert all(original("evil_system_prompt", made.messages) == ASK for made in (plain, own))


def test_prompts_that_cannot_be_attacked_are_refused() -> None:
    with pytest.raises(UsageError, match="attacks named twice: aim"):
        attacked([prompt()], ["aim", "none", "aim"])
    with pytest.raises(DataError, match="already under the attack 'aim'"):
        attacked(attacked([prompt()], ["aim"]), ["none"])
    ends_wrong = prompt().model_copy(update={"messages": (user("Hi."), Message(role="assistant", content="Hello."))})
    with pytest.raises(DataError, match="the last turn is not the user's"):
        attacked([ends_wrong], ["none"])
    with pytest.raises(DataError, match=r"prompt [0-9a-f]{16}: the request is empty"):
        attacked([prompt(" ")], ["none"])
    assert attacked([], STATIC) == []


# Answers in code

ANSWER = "Certainly. First, go to the market; then set out the hammers. Ask for ten coins each."
CODED = base64.b64encode(ANSWER.encode()).decode()


@pytest.mark.parametrize("name", IN_BASE64)
def test_an_answer_in_base64_is_read_wherever_it_may_come(name: str) -> None:
    assert read_answer(name, CODED) == ANSWER
    assert read_answer(name, ANSWER) == ANSWER


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (f"Here you are: {CODED} I hope it helps.", f"Here you are: {ANSWER} I hope it helps."),
        (f"```\n{CODED}\n```", f"```\n{ANSWER}\n```"),
        ("\n".join(textwrap.wrap(CODED, 32)), ANSWER),
        ("\r\n".join(textwrap.wrap(CODED, 76)), ANSWER),
        (f"{CODED}\nThanks", f"{ANSWER}\nThanks"),
        (CODED.rstrip("="), ANSWER),
        (f"  {CODED}\n", ANSWER),
        (CODED[:-7], ANSWER[:81]),  # 109 characters: one too many
        (base64.b64encode("vierzehn kurze Hämmer ä".encode())[:-3].decode(), "vierzehn kurze Hämmer \ufffd"),
        (CODED[:40] + "////" + CODED[44:], ANSWER[:30] + "\ufffd\ufffd\ufffd" + ANSWER[33:]),
        (
            base64.urlsafe_b64encode("Schön — ja? ÿÿÿ Es geht so: viele Hämmer".encode()).decode(),
            "Schön — ja? ÿÿÿ Es geht so: viele Hämmer",
        ),
        (base64.b64encode(b"No way").decode(), "No way"),
    ],
)
def test_base64_as_models_write_it(answer: str, read: str) -> None:
    assert codes.read_base64(answer) == read


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, I can't help with that.",
        "Sure",
        "I refuse",
        "internationalization of uncharacteristically incomprehensibilities",
        *("Cautious", "Demolish", "Isabella", "circular", "academic", "beatings", "dynamics", "frustrations", "Interviewers"),
        "see https://example.org/a/very/long/path/that/goes/on and 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        base64.b64encode(bytes(range(256))).decode(),
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "=" * 50,
        "",
        "\x00\x01",
        "漢字" * 20,
    ],
)
def test_what_is_not_base64_is_left_alone(answer: str) -> None:
    assert codes.read_base64(answer) == answer


@settings(max_examples=200)
@given(
    st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=36, max_size=300).filter(
        lambda text: "\ufffd" not in text
    )
)
@example("漢字" * 18)
def test_base64_of_any_readable_text_is_read(text: str) -> None:
    assert codes.read_base64(base64.b64encode(text.encode()).decode()) == text


@settings(max_examples=200)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=6, max_size=60))
def test_base64_of_short_ascii_is_read(text: str) -> None:
    assert codes.read_base64(base64.b64encode(text.encode()).decode()) == text


@settings(max_examples=200)
@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyzABC.,;:!?'", min_size=1, max_size=15), min_size=2, max_size=60))
def test_prose_is_left_alone(words: list[str]) -> None:
    text = " ".join(words)
    assert codes.read_base64(text) == text


def test_rot_13_is_read_line_by_line() -> None:
    coded = codes.rot_13(ANSWER)
    assert read_answer("rot_13", coded) == ANSWER
    assert read_answer("rot_13", ANSWER) == ANSWER
    assert read_answer("rot_13", f"Here is the answer, in the same code:\n\n{coded}\n{codes.rot_13('Hammers')}") == (
        f"Here is the answer, in the same code:\n\n{ANSWER}\nHammers"
    )
    assert codes.read_rot_13(f"{codes.rot_13('Hammers')}\n{coded}") == f"Hammers\n{ANSWER}"
    spanish = "Hola, tengo un código en español.\n# Este función calcula el factorial de un número\n## v2025.12.18"
    for plain in ("", "I'm sorry, I can't help with that.", "漢字", "42\n\n43", "\x00", spanish):
        assert codes.read_rot_13(plain) == plain


@settings(max_examples=150)
@given(st.text(max_size=400))
def test_reading_never_fails_and_keeps_other_answers_of_other_attacks(text: str) -> None:
    for name, kind in ATTACKS.items():
        found = read_answer(name, text)
        assert isinstance(found, str)
        assert found == text or kind.read_answer is not codes.as_written
    assert codes.read_rot_13(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "answer",
    [
        "A" * 1_000_000,
        "AAAAAAAAAAAAAAAA\n" * 60_000,
        "AAAAAAAAAAAAAAA " * 60_000,
        "A\n" * 500_000,
        ("A" * 16 + "\n" + "B" * 40 + "!\n") * 15_000,
        base64.b64encode(("Step by step. " * 50_000).encode()).decode(),
        "=" * 1_000_000,
        "\x00" * 1_000_000,
        "gur " * 250_000,
        "\n" * 1_000_000,
    ],
    ids=lambda answer: f"{answer[:6]!r}",
)
def test_a_megabyte_is_read_in_time(answer: str) -> None:
    for read in (codes.read_base64, codes.read_rot_13):
        started = time.process_time()
        read(answer)
        assert time.process_time() - started < 5


def test_ten_thousand_a_second_with_room_to_spare() -> None:
    """The figure itself is the benchmark's; here only that it is not far off on a busy machine."""
    source = [prompt(f"How do I sell {n} hammers?") for n in range(50)]
    attacked(source[:1], STATIC)
    started = time.process_time()
    count = len(attacked(source, STATIC))
    assert count / (time.process_time() - started) > 3_000


def test_the_page_on_attacks_lists_them_as_they_are() -> None:
    page = (Path(__file__).parent.parent / "docs" / "attacks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if line.startswith("| `")]
    wanted = [
        [f"`{name}`", kind.family, "StrongREJECT" if kind.published else "ours", _back(kind), _answers(kind)]
        for name, kind in ATTACKS.items()
    ]
    assert [row[:5] for row in rows if len(row) > 4] == wanted


def _back(kind: attacks.Attack) -> str:
    if kind.needs:
        return "no (translated)"
    return f"yes ({kind.code.name})" if kind.readable else f"no ({kind.code.name})"


def _answers(kind: attacks.Attack) -> str:
    (found,) = (said for read, said in READERS if kind.read_answer is read)
    return found
