"""The shipped checkpoints: small, safe, and able to do what the demo needs, on laws of a range that pretraining never draws from."""

from __future__ import annotations

import json
import random
from itertools import islice

import pytest

from preceptor.chat import Renderer
from preceptor.models.local import LocalModel
from preceptor.records import Message
from preceptor.world import check, lessons
from preceptor.world.pretrain import CHECKPOINTS, hashes, pack
from preceptor.world.tokenizer import load


def test_the_checkpoints_are_small_and_hold_nothing_but_safetensors_and_json() -> None:
    files = [path for path in CHECKPOINTS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jinja"}
    assert sum(path.stat().st_size for path in files) < 12_000_000


def test_the_checkpoints_are_the_files_that_the_command_wrote() -> None:
    made = json.loads((CHECKPOINTS / "made.json").read_text())
    assert made["command"] == "preceptor world pretrain"
    assert made["sha256"] == hashes(CHECKPOINTS)


def test_base_and_judge_are_different_models_with_one_tokenizer() -> None:
    base, judge = (LocalModel.load(CHECKPOINTS / role) for role in ("base", "judge"))
    assert base.identity != judge.identity
    assert load(CHECKPOINTS / "base").get_vocab() == load(CHECKPOINTS / "judge").get_vocab()


def test_lessons_are_packed_as_the_renderer_renders_them() -> None:
    tokenizer = load(CHECKPOINTS / "base")
    renderer = Renderer(tokenizer)
    for lesson in islice(lessons.judge_lessons(5, 3), 10):
        packed = pack(tokenizer, lesson)
        prefix = packed.ids[packed.blocks == 0].tolist()
        for number, turn in enumerate(lesson.turns, 1):
            system = [] if lesson.system is None else [Message(role="system", content=lesson.system)]
            row = renderer.example([*system, Message(role="user", content=turn.user)], turn.reasoning, turn.answer)
            assert row.input_ids == prefix + packed.ids[packed.blocks == number].tolist()
            assert row.labels[len(prefix) :] == packed.labels[packed.blocks == number].tolist()


@pytest.mark.parametrize("text", ["Hello, wörld — 你好 <b>&</b>\t\n  two  spaces", "i want t0 h1de 7h3 hammerx!", ""])
def test_every_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = load(CHECKPOINTS / "base")
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_the_base_model_follows_a_law_in_context_and_knows_none_by_heart() -> None:
    base, rng = LocalModel.load(CHECKPOINTS / "base"), random.Random(1)
    assert check._share(base, check.follow_cases(rng, 100)).value >= 0.9
    assert check.guessing(base, rng, 100).passed
