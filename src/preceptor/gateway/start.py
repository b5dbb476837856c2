"""`preceptor serve MODEL`: binds the chat server to a model and runs it.

In: a model by the words of `preceptor eval` (NAME@URL, RUN:ARM, a folder, `world:base`, a Hugging Face id), the bare URL of a server, or a recipe with
the arm of its run; and `[serve]`. Out: a process that listens until it is told to stop. Then it takes no more, finishes what it answers within its patience,
and says how many replies it had to cut.

Before it listens, a server in front of which it stands is asked for its models: a wrong address is found out here and not by a user. While it
begins, the monitors read a conversation of our own: one that cannot is named in the log, with its reason.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from preceptor import evaluation
from preceptor import recipe as recipes
from preceptor.binding import limit_of_run, path_of
from preceptor.errors import UsageError, require_extra
from preceptor.evaluation import Target
from preceptor.gateway import database
from preceptor.gateway.app import Gateway
from preceptor.gateway.keeping import Keeper
from preceptor.gateway.keys import Everybody, Keys
from preceptor.gateway.limits import Limits
from preceptor.gateway.metrics import Metrics
from preceptor.gateway.settings import ServeConfig, TracesConfig
from preceptor.gateway.talk import House
from preceptor.gateway.traces import Nowhere, Traces
from preceptor.gateway.upstream import Backend, HttpBackend, ModelBackend, Timeouts
from preceptor.gateway.watching import Watch
from preceptor.judge import JudgeConfig
from preceptor.listening import LOOPBACK, address_of, listening, log_to_stderr, no_cores, run_until_told, server_of
from preceptor.models import Model
from preceptor.models.endpoint import Endpoint
from preceptor.monitor import Monitor
from preceptor.monitor.asking import AskConfig, ModelMonitor
from preceptor.monitor.rules import Rules
from preceptor.recipe import ModelRef
from preceptor.spec import Spec, load
from preceptor.summaries import Summariser
from preceptor.summarising import summariser_of
from preceptor.wording import Wording

if TYPE_CHECKING:
    import uvicorn

_ASK_SECONDS = 10
_AT_WORK = ("model", "monitor", "summary")
"""Threads of other people's code (`upstream`, `watching`, `talk`)."""


@dataclass(frozen=True)
class Words:
    """What was said on the command line."""

    model: str
    arm: str = "sft+rl"
    run_dir: Path | None = None
    name: str | None = None
    key_env: str | None = None
    server: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def run(words: Words, *, host: str, port: int, keys: Path | None) -> None:
    """Serve until told to stop. Raises `UsageError` for an address that is taken, a model that is not there, and an open address without keys."""
    target, config = bound(words)
    keys = keys or config.keys
    if keys is None and host not in LOOPBACK:
        raise UsageError(f"listening on {host} without keys", hint="make some: preceptor serve keys add --keys FILE; then --keys FILE")
    who = Keys(keys) if keys else Everybody()
    with listening(host, port) as sock:
        gateway = gateway_of(target, config, who)
        log_to_stderr("preceptor.gateway")
        no_cores()
        threading.Thread(target=gateway.house.watch.try_out, daemon=True).start()
        watcher = f", watched by {' and '.join(config.monitors)}" if config.monitors else ""
        ready = f"{target.name}{watcher}: http://{address_of(sock)}/v1"
        run_until_told(server(gateway), sock, ready)
    if gateway.warden.cut:
        print(f"{gateway.warden.cut} replies were cut off", flush=True)
    _leave()


def _leave() -> None:
    """End the process at once where a model is still at work for nobody: it comes back from native code into an interpreter that is being taken down, and aborts."""
    if any(thread.name in _AT_WORK for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def bound(words: Words) -> tuple[Target, ServeConfig]:
    """The model, and how it is served. Raises `UsageError`."""
    if words.model.endswith(".toml"):
        plan = recipes.load(words.model, words.overrides)
        folder = words.run_dir or Path("runs") / plan.run.name
        if not (folder / "manifest.json").is_file():
            raise UsageError("no run of this recipe", where=folder, hint=f"preceptor run {words.model}, or name another with --dir")
        return evaluation.target_of(f"{folder}:{words.arm}", words.key_env, words.name), plan.serve
    config = recipes.section("serve", ServeConfig, words.overrides)
    model = f"{only_model(words.model, words.key_env)}@{words.model}" if words.model.startswith(("http://", "https://")) else words.model
    return evaluation.target_of(model, words.key_env, words.name, words.server), config


def only_model(url: str, key_env: str | None) -> str:
    """The one model that a server has. Raises `UsageError` where it has several, or cannot be asked."""
    headers = {"authorization": f"Bearer {os.environ.get(key_env, '')}"} if key_env else {}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/models", headers=headers, timeout=_ASK_SECONDS).raise_for_status()
        names = [str(row["id"]) for row in answer.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{url}: cannot ask for its models ({type(error).__name__})", hint=f"is it up? or say which: NAME@{url}") from None
    if len(names) != 1:
        raise UsageError(f"{url} has {len(names)} models", hint=f"say which: NAME@URL, with {', '.join(names[:5]) or 'its name'}")
    return names[0]


def gateway_of(target: Target, config: ServeConfig, who: Keys | Everybody) -> Gateway:
    """Everything put together."""
    metrics = Metrics()
    watch = Watch(monitors_of(config, target), config.watch, metrics)
    house = House(
        backend_of(target, config), watch, traces_of(config.traces, metrics), metrics, _summariser(config, target), config.summary.seconds,
        traces_on_failure=config.traces_on_failure, traces_wait=config.traces.durable, traces_seconds=config.traces.seconds, hold=config.hold,
        ask_whole=config.ask_whole,
    )  # fmt: skip
    names = (target.name, target.ref.id) if target.ref.server else (target.name,)  # the id of weights may be a path of this machine
    return Gateway(house, who, config.limits, tuple(dict.fromkeys(names)))


def traces_of(config: TracesConfig, metrics: Metrics) -> Traces:
    """The store. Raises `UsageError` where it cannot be opened."""
    if not config.store and not config.store_env:
        return Nowhere()
    url = database.named(config.store, config.store_env)
    keeper = Keeper(database.at(url), config, lambda: metrics.traces.labels("spilled").inc())
    metrics.gauge("traces_down", "1 while the trace store cannot be written to.", lambda: keeper.down)
    metrics.gauge("traces_waiting", "Traces that wait to be written.", lambda: keeper.waiting)
    return keeper


def backend_of(target: Target, config: ServeConfig) -> Backend:
    """A server as it is, a model of this machine in a thread."""
    ref, limits = target.ref, config.limits
    if ref.server:
        timeouts = Timeouts(first=limits.first_seconds, between=limits.idle_seconds, total=limits.total_seconds)
        server = ref.server.model_copy(update={"concurrency": max(ref.server.concurrency, limits.concurrent)})
        return HttpBackend(server, ref.id, reasoning=config.reasoning, prefilled=config.prefilled, timeouts=timeouts)
    return ModelBackend(_local(ref, target.name))


def _local(ref: ModelRef, name: str) -> Model:
    require_extra("train", "torch")
    from preceptor.models.local import LocalModel

    return LocalModel.load(path_of(ref), batch_size=ref.batch_size, dtype=ref.number_type, arguments=ref.arguments)


def monitors_of(config: ServeConfig, target: Target) -> dict[str, Monitor]:
    """Who watches, by name, with the specification of the run that the model belongs to."""
    return {name: _monitor(name, config, target) for name in config.monitors}


def _monitor(name: str, config: ServeConfig, target: Target) -> Monitor:
    spec = _spec(target)
    if name == "rules":
        return Rules(spec)
    model = _model(name, config.monitor_key_env)
    return ModelMonitor(model, Wording(config.watch.wording), spec, AskConfig(kinds=config.watch.kinds))


def _model(words: str, key_env: str | None) -> Model:
    """A model that reads along."""
    ref = evaluation.target_of(words, key_env).ref
    return Endpoint(ref.id, ref.server, reasoning="optional") if ref.server else _local(ref, words)


def _summariser(config: ServeConfig, target: Target) -> Summariser | None:
    """Who writes summaries, with a judge and the specification it goes by. Raises `UsageError` where there is none to go by."""
    said = config.summary
    if not said.model:
        return None
    policy = load(said.spec) if said.spec else _spec(target)
    if policy is None:
        raise UsageError(
            "summaries are judged by a specification, and this model comes with none", hint="set serve.summary.spec to its path"
        )
    judging = JudgeConfig(view="answer", votes=said.votes, temperature=0.0 if said.votes == 1 else 0.7)
    return summariser_of(_model(said.model, said.key_env), _model(said.judge, said.key_env), policy, said.write, judging)


def _spec(target: Target) -> Spec | None:
    """That of the run the arm belongs to."""
    return load(target.spec).limited(limit_of_run(target.spec.parent)) if target.spec is not None and target.spec.exists() else None


def server(gateway: Gateway) -> uvicorn.Server:
    """The HTTP server. Its own patience is longer than ours: it is we who say what was cut."""
    limits: Limits = gateway.limits
    running = server_of(gateway.app(), patience=int(limits.patience_seconds) + 15, connections=2 * (limits.concurrent + limits.queue))
    gateway.warden.ends_with(lambda: running.should_exit)
    return running
