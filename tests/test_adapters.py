# pyright: basic
"""The judge as the reward of TRL, verl and OpenRLHF: called as they call it, against a live service, with abstentions and without the reasoning."""

from __future__ import annotations

import asyncio
import math
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import tiny
import torch
from served import Served, running
from small import SPEC, prompt
from test_exports import load, tell

from preceptor.errors import DataError, StageFailed
from preceptor.exports import trl, verl, write
from preceptor.exports.answers import JudgeAbstained
from preceptor.exports.client import Service
from preceptor.exports.labels import label_of
from preceptor.judge import Judge, JudgeConfig
from preceptor.models.scripted import ScriptedModel
from preceptor.wording import Wording

CANARY = "w66"
"""A word of the policy's reasoning."""
FINE, POOR, SILENT = "w10", "w11", "w12"
"""Answers the judge likes, dislikes, and has no verdict on."""


def by_the_answer(request: Any) -> str:
    """Judges the tiny models' answers."""
    shown = request.messages[-1].content
    return "hm" if SILENT in shown else f'{{"score": {2 if FINE in shown else 0}, "clauses": []}}'


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that any HTTP client sends, body and address."""
    bodies: list[bytes] = []
    for transport, name in ((httpx.HTTPTransport, "handle_request"), (httpx.AsyncHTTPTransport, "handle_async_request")):
        monkeypatch.setattr(transport, name, _listened(getattr(transport, name), bodies))
    return bodies


def _listened(send: Callable[..., Any], bodies: list[bytes]) -> Callable[..., Any]:
    def listened(transport: Any, request: httpx.Request) -> Any:
        bodies.append(str(request.url).encode() + str(request.headers).encode() + request.content)
        return send(transport, request)

    return listened


@pytest.fixture
def served() -> Iterator[Served]:
    with running(by_the_answer) as service:
        yield service


def written(text: str) -> list[int]:
    return tiny.word_tokenizer()(text, add_special_tokens=False)["input_ids"]


TEXTS = {
    "fine": f"<think> {CANARY} </think> {FINE} <|end|>",
    "poor": f"<think> {CANARY} </think> {POOR} <|end|>",
    "silent": f"<think> {CANARY} </think> {SILENT} <|end|>",
    "cut off": f"<think> {CANARY} </think> {FINE}",
    "unfinished": f"<think> {CANARY} w10",
    "bare": f"{CANARY} {FINE} <|end|>",
    "twice": f"<think> w1 </think> {FINE} <think> {CANARY} </think> w1 <|end|>",
    "empty": f"<think> {CANARY} </think> <|end|>",
}
EXPECTED = {"fine": 1.0, "poor": 0.0, "silent": None, **dict.fromkeys(("cut off", "unfinished", "bare", "twice", "empty"), 0.0)}


# TRL


def trl_arguments(names: Sequence[str]) -> dict[str, Any]:
    """What `GRPOTrainer` hands over in one call."""
    logged: dict[str, Any] = {}
    return {
        "prompts": [[{"role": "user", "content": "w1 w2"}] for _ in names],
        "completions": [[{"role": "assistant", "content": "what TRL decoded"}] for _ in names],
        "completion_ids": [written(TEXTS[name]) for name in names],
        "category": ["tools" for _ in names],
        "trainer_state": None,
        "log_extra": logged.__setitem__,
        "log_metric": logged.__setitem__,
    }


def local_judge() -> Judge:
    return Judge(ScriptedModel(by_the_answer), Wording("brief"), SPEC, JudgeConfig(view="answer", detail="rules", votes=1))


def test_trl_gets_scores_floors_and_none(served: Served, posted: list[bytes]) -> None:
    names = [*TEXTS, "fine", "silent"]
    expected = [EXPECTED[name] for name in names]
    arguments, judge = trl_arguments(names), local_judge()
    assert isinstance(judge.model, ScriptedModel)
    assert trl.in_process(judge, tiny.word_tokenizer())(**arguments) == expected
    assert CANARY not in str(judge.model.requests)
    assert not posted
    remote = trl.remote(Service(url=served.url, spec=SPEC.hash), tiny.word_tokenizer())
    assert asyncio.run(remote(**arguments)) == expected
    assert posted
    assert CANARY.encode() not in b"".join(posted)
    assert len(served.model.requests) == 4, "equal answers are asked about once, and the silent one twice, as the judge does"
    logged = arguments["log_extra"].__self__
    assert logged["judgement"][:4] == ["verdict", "verdict", "abstention unparsable", "floor"]
    assert logged["judge/abstention_rate"] == pytest.approx(0.2)
    assert logged["judge/floor_rate"] == pytest.approx(0.5)


def test_trl_without_a_service_gets_none_and_not_zero() -> None:
    with running() as gone:
        url = gone.url
    remote = trl.remote(Service(url=url, patience_seconds=0.1), tiny.word_tokenizer())
    assert asyncio.run(remote(**trl_arguments(["fine", "bare"]))) == [None, 0.0]


def test_trl_is_told_what_is_wrong_with_its_data(served: Served) -> None:
    arguments = trl_arguments(["fine"])
    with pytest.raises(DataError, match="conversations"):
        trl.in_process(local_judge(), tiny.word_tokenizer())(**{**arguments, "prompts": ["a text"]})
    full = Judge(ScriptedModel([]), Wording("brief"), SPEC, JudgeConfig(view="reasoning+answer"))
    with pytest.raises(StageFailed, match="view='answer'"):
        trl.in_process(full, tiny.word_tokenizer())
    with pytest.raises(StageFailed, match="422"):
        asyncio.run(trl.remote(Service(url=served.url), tiny.word_tokenizer())(**{**arguments, "category": ["stars"]}))


@pytest.mark.parametrize("route", ["in process", "service"])
def test_a_real_grpo_step_leaves_the_abstained_sample_out(
    route: str, served: Served, posted: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of `GRPOTrainer` over fixed completions: two groups of four, one abstention in the first."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func, which stands in for a policy that writes what it is told
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from preceptor.sft import common_arguments, without_deprecations

    tokenizer, order = tiny.word_tokenizer(), ["fine", "poor", "silent", "bare", "fine", "poor", "fine", "cut off"]
    seen: dict[str, Any] = {}

    def rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        completions = [written(TEXTS[name]) for name in order]
        asked = [tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=True, return_dict=False) for one in prompts]
        return {"prompt_ids": asked, "completion_ids": completions, "logprobs": [[0.0] * len(ids) for ids in completions]}

    class Trainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batch = super()._generate_and_score_completions(inputs)
            seen["advantages"] = batch["advantages"].tolist()
            return batch

    reward: Any = trl.in_process(local_judge(), tokenizer) if route == "in process" else trl.remote(Service(url=served.url), tokenizer)
    rows = trl.rows([prompt("w1 w2", split="rl"), prompt("w3 w4", split="rl")])
    with without_deprecations():
        common = common_arguments(tmp_path, 1, 0.0, batch=8, micro=8, save_every=0, seed=0)
        settings = GRPOConfig(**{**common, "num_generations": 4, "max_completion_length": 12, "beta": 0.0, "logging_steps": 1})
        trainer = Trainer(
            model=tiny.qwen3(), reward_funcs=[reward], args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            rollout_func=rollouts,
        )  # fmt: skip
        trainer.train()
    first, second = seen["advantages"][:4], seen["advantages"][4:]
    assert first[2] == 0.0, "the abstained sample"
    kept = torch.tensor([1.0, 0.0, 0.0])
    assert [first[0], first[1], first[3]] == pytest.approx(((kept - kept.mean()) / (kept.std() + 1e-4)).tolist(), abs=1e-4)
    whole = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert second == pytest.approx(((whole - whole.mean()) / (whole.std() + 1e-4)).tolist(), abs=1e-4)
    (logged,) = [row for row in trainer.state.log_history if "reward" in row]
    assert logged["judge/abstention_rate"] == pytest.approx(1 / 8)
    assert CANARY.encode() not in b"".join(posted)
    assert bool(posted) == (route == "service")


# OpenRLHF


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "01_spec").mkdir(parents=True)
    (folder / "01_spec" / "spec.md").write_text(SPEC_FILE)
    tell(folder, [prompt(f"w1 w{number}", split="rl") for number in range(20)])
    return folder


SPEC_FILE = "# Small {version=1}\n## Tools {#tools kind=category}\nThings.\n### T1 {#T1 disposition=refuse}\nSell a tool\n"


def exported(run_dir: Path, out: Path, served: Served, target: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> types.ModuleType:
    """The reward file, loaded as the trainer loads it. The service's specification stands in for the run's."""
    monkeypatch.setattr("preceptor.exports.write.spec.load", lambda path: SPEC)
    getattr(write, target)(run_dir, out, Service(url=served.url), **options)
    return load(out / "reward.py")


def rendered(row: dict[str, Any]) -> Any:
    return tiny.word_tokenizer().apply_chat_template(row["input"], add_generation_prompt=True, tokenize=False)


def test_openrlhf_calls_the_exported_file(
    run_dir: Path, tmp_path: Path, served: Served, posted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `SingleTurnAgentExecutor` does in 0.11.2: in a thread, one element per list, query decoded with special tokens."""
    module = exported(run_dir, tmp_path, served, "openrlhf", monkeypatch, ends=["<|end|>"])
    row = orjson.loads((tmp_path / "train.jsonl").read_bytes().splitlines()[0])
    asked = rendered(row)

    async def rewards() -> dict[str, dict[str, Any]]:
        calls = [asyncio.to_thread(module.reward_func, [asked + text], [asked], [row["label"]]) for text in TEXTS.values()]
        return dict(zip(TEXTS, await asyncio.gather(*calls), strict=True))

    found = asyncio.run(rewards())
    for name, info in found.items():
        if EXPECTED[name] is None:
            assert info["rewards"] is None, "without dynamic filtering a sample without reward stops the run"
            assert math.isnan(info["scores"].item())
            assert not 0 < info["scores"].mean().item() < 1, "and with it, its group is outside every range"
        else:
            assert torch.tensor([info["rewards"]]).item() == info["scores"].item() == EXPECTED[name]
        assert {key: value.shape for key, value in info["extra_logs"].items()} == {"judge_abstained": (1,), "judge_floor": (1,)}
    assert [name for name, info in found.items() if info["extra_logs"]["judge_floor"].item()] == list(TEXTS)[3:]
    assert len(posted) == 3, "floors are not asked about"
    assert CANARY.encode() not in b"".join(posted)


def test_openrlhf_stops_where_the_set_up_is_wrong(run_dir: Path, tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    module = exported(run_dir, tmp_path, served, "openrlhf", monkeypatch, ends=["<|end|>"])
    label = label_of(prompt("w1 w2"))
    with pytest.raises(DataError, match="does not begin with its prompt"):
        module.reward_func(["w2" + TEXTS["fine"]], ["w1 w2"], [label])
    with pytest.raises(DataError, match="preceptor export"):
        module.reward_func([TEXTS["fine"]], [""], ["tools"])
    monkeypatch.undo()
    write.openrlhf(run_dir, tmp_path / "other", Service(url=served.url), ends=["<|end|>"])
    with pytest.raises(StageFailed, match="judges by specification"):
        load(tmp_path / "other" / "reward.py").reward_func([TEXTS["fine"]], [""], [label])


# verl


@pytest.fixture
def fake_verl(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    """The two names of verl that are used: the base class of reward managers, and the registry of estimators, which is given back."""
    registered: dict[str, Callable[..., Any]] = {}

    class RewardManagerBase:
        def __init__(self, config: Any, tokenizer: Any, compute_score: Any):
            self.config, self.tokenizer, self.compute_score = config, tokenizer, compute_score

    def register_adv_est(name: str) -> Callable[..., Any]:
        return lambda function: registered.setdefault(name, function)

    for name, content in {
        "verl.experimental.reward_loop.reward_manager.base": {"RewardManagerBase": RewardManagerBase},
        "verl.trainer.ppo.core_algos": {"register_adv_est": register_adv_est},
    }.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
        sys.modules[name].__dict__.update(content)
    monkeypatch.delitem(sys.modules, "preceptor.exports.verl_plugin", raising=False)
    return registered


class Proto(list):
    """`DataProto` as far as reward managers see it: a slice is another, an element has `batch` and `non_tensor_batch`."""

    def __getitem__(self, index: Any) -> Any:
        return Proto(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)


def row_of(text: str, *, pad: int = 0) -> Proto:
    asked, response = written("<|user|> w1 w2 <|end|> <|assistant|>"), written(text)
    mask = [0] * pad + [1] * (len(asked) + len(response)) + [0] * pad
    batch = {
        "prompts": torch.tensor([1] * pad + asked),
        "responses": torch.tensor(response + [1] * pad),
        "attention_mask": torch.tensor(mask),
    }
    extra = {"label": label_of(prompt("w1 w2")), "split": "train", "index": 0}
    told = {"data_source": "preceptor", "reward_model": {"ground_truth": "tools"}, "extra_info": extra}
    return Proto([types.SimpleNamespace(batch=batch, non_tensor_batch=told)])


def config(estimator: str) -> Any:
    return types.SimpleNamespace(algorithm=types.SimpleNamespace(adv_estimator=estimator))


def manager_of(module: types.ModuleType, estimator: str) -> Any:
    """As verl's `load_extern_object` finds the class and `load_reward_manager` makes one."""
    return module.PreceptorRewardManager(
        config=config(estimator),
        tokenizer=tiny.word_tokenizer(),
        compute_score=None,
        reward_router_address=None,
        reward_model_tokenizer=None,
    )


@pytest.mark.parametrize("pad", [0, 3])
def test_verls_reward_manager_splits_by_token_ids(
    pad: int, fake_verl: Any, run_dir: Path, tmp_path: Path, served: Served, posted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = exported(run_dir, tmp_path, served, "verl", monkeypatch)
    manager = manager_of(module, verl.ESTIMATOR)

    async def rewards() -> dict[str, Any]:
        found = await asyncio.gather(*(manager.run_single(row_of(text, pad=pad)) for text in TEXTS.values()))
        return dict(zip(TEXTS, found, strict=True))

    found = asyncio.run(rewards())
    for name, result in found.items():
        expected = EXPECTED[name]
        assert result["reward_score"] == expected or (expected is None and math.isnan(result["reward_score"]))
        assert result["reward_extra_info"] == {
            "judge_abstained": float(name == "silent"),
            "judge_floor": float(list(TEXTS).index(name) > 2),
        }
    assert len(posted) == 3
    assert CANARY.encode() not in b"".join(posted)


def test_verl_without_the_estimator_stops_at_an_abstention(
    fake_verl: Any, run_dir: Path, tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = exported(run_dir, tmp_path, served, "verl", monkeypatch)
    manager = manager_of(module, "grpo")
    assert asyncio.run(manager.run_single(row_of(TEXTS["fine"])))["reward_score"] == 1.0
    with pytest.raises(JudgeAbstained, match=r"unparsable.*algorithm.adv_estimator=grpo_judged"):
        asyncio.run(manager.run_single(row_of(TEXTS["silent"])))


def test_verls_plain_function_is_called_by_name(
    run_dir: Path, tmp_path: Path, served: Served, posted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the `naive` manager does: awaited, with these names, the text decoded without special tokens; what is unknown to us is passed over."""
    module = exported(run_dir, tmp_path, served, "verl", monkeypatch)
    assert asyncio.iscoroutinefunction(module.compute_score)

    def score(text: str) -> Any:
        told = {"label": label_of(prompt("w1 w2")), "num_turns": None, "rollout_reward_scores": {}}
        return asyncio.run(
            module.compute_score(
                data_source="preceptor", solution_str=text, ground_truth="tools", extra_info=told, reward_router_address="x"
            )
        )

    assert score(f"<think> {CANARY} </think> {FINE}") == {"score": 1.0, "judge_abstained": 0.0, "judge_floor": 0.0}
    assert score(f"{CANARY} {FINE}")["score"] == 0.0
    assert score(f"analysis{CANARY}assistantfinal{FINE}") == {"score": 0.0, "judge_abstained": 0.0, "judge_floor": 1.0}
    with pytest.raises(JudgeAbstained):
        score(f"<think> {CANARY} </think> {SILENT}")
    assert CANARY.encode() not in b"".join(posted)
    with pytest.raises(AttributeError):
        module.something_else  # noqa: B018


def test_the_plugin_registers_the_estimator(fake_verl: dict[str, Callable[..., Any]]) -> None:
    import preceptor.exports.verl_plugin  # noqa: F401  # what verl does with VERL_USE_EXTERNAL_MODULES

    assert fake_verl == {"grpo_judged": verl.grpo_judged}


def test_the_estimator_leaves_abstentions_out() -> None:
    nan = math.nan
    outcomes = [1.0, 0.0, nan, 0.0, nan, 1.0, 0.5, nan]
    groups = ["a", "a", "a", "a", "b", "b", "c", "c"]
    rewards, mask = torch.zeros(8, 5), torch.ones(8, 5)
    mask[:, 4] = 0
    rewards[:, 3] = torch.tensor(outcomes)
    before = mask.clone()
    advantages, returns = verl.grpo_judged(rewards, mask, index=groups, config={"norm_adv_by_std_in_grpo": True})
    judged = torch.tensor([1.0, 0.0, 0.0])
    expected = (judged - judged.mean()) / (judged.std() + 1e-6)
    assert not advantages.isnan().any()
    assert torch.equal(advantages, returns)
    assert advantages[[0, 1, 3], 0].tolist() == pytest.approx(expected.tolist())
    assert not advantages[[2, 4, 5, 6, 7]].any(), "abstained, or alone in its group"
    assert not mask[[2, 4, 7]].any(), "no policy loss, no KL, no entropy from an abstained sample"
    assert torch.equal(mask[[0, 1, 3, 5, 6]], before[[0, 1, 3, 5, 6]])
    assert not advantages[:, 4].any()
    plain, _ = verl.grpo_judged(rewards, before.clone(), index=groups, config={"norm_adv_by_std_in_grpo": False})
    assert plain[[0, 1, 3], 0].tolist() == pytest.approx((judged - judged.mean()).tolist())
