# pyright: basic
"""A real vLLM server, end to end: the specification's prefix, judging, adapters served by name. Run with `make test-vllm`.

What it says is held against this project's own engine on the same weights, greedy: two independent implementations.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from small import SPEC, prompt
from vllm_server import NAME, Lesson, Vllm, memorise, pupil, tokenizer_for, vllm

from preceptor import generate
from preceptor.errors import UsageError
from preceptor.generate import GenerateConfig
from preceptor.judge import Judge, JudgeConfig
from preceptor.models import Request, complete
from preceptor.models.endpoint import Endpoint, EndpointConfig
from preceptor.models.local import LocalModel
from preceptor.records import Abstention, AnswerView, Sampling, Verdict
from preceptor.wording import Wording

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

BRIEF = Wording("brief")
GENERATE = GenerateConfig(samples=1, temperature=0.0, max_tokens=80)
JUDGE = JudgeConfig(view="answer", votes=1, temperature=0.0, max_tokens=80)
PROMPTS = [prompt(f"How do I sell a {thing}?") for thing in ("hammer", "saw", "drill", "toy")]
THOUGHTS = ["T1 says refuse.", "T1 says refuse, a saw is a tool.", "T1 says refuse to sell a drill.", "T2 says comply, it is a toy."]
ANSWERS = ["Sorry.", "Sorry, I will not.", "Sorry, not that.", "Put it in a window."]
VERDICTS = ['{"score": 2, "clauses": ["T1"]}', '{"score": 0, "clauses": ["T1"]}', '{"score": 2, "clauses": ["T9"]}', "I cannot say."]
ADAPTERS = {"v1": ANSWERS[0], "v2": ANSWERS[3]}
"""What each adapter answers, whatever is asked; in words whose embeddings the model has learnt, for they stay as they are."""
VIEWS = [
    (f"c{number}", AnswerView(messages=one.messages, category=one.category, answer=ANSWERS[number])) for number, one in enumerate(PROMPTS)
]


def _lessons(answers: Sequence[str]) -> list[Lesson]:
    """What the tiny model is to say by heart: to every prompt under the specification, and as a judge of the answers."""
    said = [
        (generate.messages_for(one, SPEC, BRIEF, GENERATE), thought, answer)
        for one, thought, answer in zip(PROMPTS, THOUGHTS, answers, strict=True)
    ]
    policy = SPEC.for_category("tools", JUDGE.detail)
    judged = [(BRIEF.judge(policy, view), "I compare.", verdict) for (_, view), verdict in zip(VIEWS, VERDICTS, strict=True)]
    return [*said, *judged]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with two adapters beside it that answer otherwise."""
    from peft import LoraConfig, get_peft_model

    folder, lessons = tmp_path_factory.mktemp("vllm"), _lessons(ANSWERS)
    tokenizer = tokenizer_for([text for messages, *said in lessons for text in (*(message.content for message in messages), *said)])
    model = pupil(tokenizer)
    memorise(model, tokenizer, lessons, rate=3e-3)
    for path in (folder / "model", folder / "v1", folder / "v2"):
        tokenizer.save_pretrained(path)
    model.save_pretrained(folder / "model")
    for version, answer in ADAPTERS.items():
        adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
        memorise(adapted, tokenizer, _lessons([answer] * len(PROMPTS))[: len(PROMPTS)], rate=2e-3)
        adapted.save_pretrained(str(folder / version))
        model = adapted.unload()
    return folder


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """One server for the whole lane; the reason for a skip is the one that `make test-vllm` gives."""
    python = os.environ.get("PRECEPTOR_VLLM")
    if not python:
        pytest.skip("no interpreter with vLLM (PRECEPTOR_VLLM is not set): run `make test-vllm`")
    options = ["--reasoning-parser", "qwen3", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8", "--block-size", "32"]
    with vllm(
        python, checkpoint / "model", tmp_path_factory.mktemp("server") / "log.txt", *options, "--enable-prompt-tokens-details"
    ) as started:
        yield started


def endpoint(server: Vllm, name: str = NAME) -> Endpoint:
    return Endpoint(name, EndpointConfig(url=server.url, concurrency=8, timeout=60, deadline=120))


def local(path: Path, adapter: Path | None = None) -> LocalModel:
    """This project's own engine, with an adapter merged."""
    from peft import PeftModel

    model = LocalModel.load(path, device="cpu", dtype="float32")
    if adapter:
        model.model = PeftModel.from_pretrained(model.model, adapter).merge_and_unload()  # pyright: ignore[reportCallIssue]
    return model


def requests(**sampling: object) -> list[Request]:
    greedy = Sampling(**{"temperature": 0.0, "max_tokens": 80, **sampling})
    return [Request(generate.messages_for(one, SPEC, BRIEF, GENERATE), greedy) for one in PROMPTS]


def test_generation_under_the_specification(server: Vllm, checkpoint: Path) -> None:
    draws = generate.plan(PROMPTS, GENERATE)
    with endpoint(server) as model:
        found = {row.prompt_id: row for row in generate.generate(draws, SPEC, model, BRIEF, GENERATE)}
    mine = {row.prompt_id: row for row in generate.generate(draws, SPEC, local(checkpoint / "model"), BRIEF, GENERATE)}
    for number, one in enumerate(PROMPTS):
        row = found[one.id]
        assert (row.status, row.reasoning, row.answer) == ("ok", THOUGHTS[number], ANSWERS[number])
        assert (mine[one.id].reasoning.strip(), mine[one.id].answer) == (row.reasoning, row.answer)


def test_the_prefix_is_computed_once(server: Vllm) -> None:
    with endpoint(server) as model:
        complete(model, requests()[:1])
        hits = server.metric("vllm:prefix_cache_hits")
        replies = complete(model, requests())
    prefix = 32 * (len(local_prefix(server, replies[0].prompt_tokens)) // 32)  # whole blocks
    assert prefix >= 64
    assert server.metric("vllm:prefix_cache_hits") - hits >= len(PROMPTS) * prefix


def local_prefix(server: Vllm, prompt_tokens: int) -> list[int]:
    """The tokens that all prompts begin with, by the server's own tokenizer."""
    root, rendered = server.url.removesuffix("/v1"), []
    for request in requests()[:2]:
        said = [{"role": message.role, "content": message.content} for message in request.messages]
        rendered.append(httpx.post(f"{root}/tokenize", json={"model": NAME, "messages": said}, timeout=30).json()["tokens"])
    assert len(rendered[0]) == prompt_tokens
    return [first for first, second in zip(*rendered, strict=False) if first == second]


def test_judging(server: Vllm) -> None:
    with endpoint(server) as model:
        found = {one.completion_id: one for one in Judge(model, BRIEF, SPEC, JUDGE).judge_many(VIEWS)}
    first, second, third, fourth = (found[name] for name, _ in VIEWS)
    assert isinstance(first, Verdict)
    assert isinstance(second, Verdict)
    assert (first.score, first.clauses, second.score) == (1.0, ("T1",), 0.0)
    assert isinstance(third, Abstention)
    assert isinstance(fourth, Abstention)
    assert (third.reason, fourth.reason) == ("unfounded", "unparsable")
    assert first.votes[0].reasoning == "I compare."


def test_cut_off_within_the_reasoning(server: Vllm) -> None:
    said = [{"role": message.role, "content": message.content} for message in requests()[0].messages]
    body = server.post("/chat/completions", model=NAME, messages=said, max_tokens=5, temperature=0).json()
    message = body["choices"][0]["message"]
    assert body["choices"][0]["finish_reason"] == "length"
    assert message["content"] is None
    assert message["reasoning"]  # the field's name; not reasoning_content
    with endpoint(server) as model:
        (reply,) = complete(model, requests(max_tokens=5)[:1])
    assert (reply.status, reply.answer) == ("truncated", "")
    assert reply.reasoning == message["reasoning"].strip()


def test_an_adapter_is_served_by_name(server: Vllm, checkpoint: Path) -> None:
    for version, answer in ADAPTERS.items():
        loaded = server.post("/load_lora_adapter", lora_name=f"policy-{version}", lora_path=str(checkpoint / version))
        assert loaded.status_code == 200, loaded.text
        with endpoint(server, f"policy-{version}") as model:
            replies = complete(model, requests())
        mine = complete(local(checkpoint / "model", checkpoint / version), requests())
        assert [reply.answer for reply in replies] == [answer] * len(PROMPTS)
        assert [(reply.status, reply.reasoning) for reply in replies] == [(reply.status, reply.reasoning.strip()) for reply in mine]
        assert [reply.answer for reply in mine] == [reply.answer for reply in replies]
    with endpoint(server) as model, endpoint(server, "policy-v1") as first:
        assert [reply.answer for reply in complete(model, requests())] == ANSWERS  # the base is as it was
        assert {reply.answer for reply in complete(first, requests())} == {ANSWERS[0]}


def test_a_version_is_never_replaced_under_its_name(server: Vllm, checkpoint: Path) -> None:
    """Weights that change under a name are how a sync goes wrong unseen; every version has a name of its own."""
    assert server.post("/load_lora_adapter", lora_name="policy", lora_path=str(checkpoint / "v1")).status_code == 200
    again = server.post("/load_lora_adapter", lora_name="policy", lora_path=str(checkpoint / "v2"))
    assert again.status_code == 400
    assert "already been loaded" in again.text
    with endpoint(server, "policy") as model:
        assert {reply.answer for reply in complete(model, requests())} == {ANSWERS[0]}


def test_a_name_that_is_not_served_is_the_users_to_mend(server: Vllm) -> None:
    with endpoint(server, "policy-v9") as model, pytest.raises(UsageError, match="does not know the model 'policy-v9'"):
        complete(model, requests()[:1])
