"""The command line: one subcommand per stage, in the order of the path. It binds words to calls and decides nothing.

Results go to stdout, complaints to stderr, in one line that says what to do: `preceptor: error: ...`, exit code 2. Everything
heavy is imported inside the command that needs it, so `preceptor --help` costs an interpreter and little more. argparse
rather than typer or click: importing it takes 10 ms, they take 50 and 30 before the first command is declared.

What models write is shown without its control characters: an answer must not be able to move the cursor or retitle the window.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from preceptor import __version__, cli_eval, cli_monitor, cli_serve, cli_summaries, cli_traces
from preceptor.cli_serve import positive
from preceptor.errors import EXTRAS, DataError, MissingExtra, PreceptorError, StageFailed, UsageError
from preceptor.runs import STAGES

if TYPE_CHECKING:
    from preceptor.lineage import Found
    from preceptor.models import Model
    from preceptor.records import Message
    from preceptor.spec import Spec

ABOUT = {
    "prompts": "collect, label, de-duplicate and split the prompts",
    "generate": "draw completions with the specification in context",
    "judge": "have the judge read the completions against the specification",
    "filter": "keep what may be learned; every dropped row has its reason",
    "sft": "train on reasoning and answer, the specification removed",
    "rl": "train with the judge's verdict on the answer as the reward",
    "evals": "score every arm in every suite",
    "monitor": "flag what is wrong with what the arms thought and said",
    "card": "make the page that shows the result",
}
"""One line per stage with a subcommand: `preceptor STAGE RECIPE` runs the path up to and including it."""

INTERRUPTED = 130
BESIDE_A_STAGE = {
    "judge": ("calibrate", "injection", "labels", "serve"), "monitor": ("answers", "measure", "redteam", "intervene", "rollouts"),
    "eval": ("calibrate",), "card": ("beside",), "serve": ("keys",),
}  # fmt: skip
"""Stage -> words that, behind its name, make a command of their own: `judge serve`, beside `judge RECIPE`."""
Command = Callable[[argparse.Namespace], None]


# Commands


def run_stages(arguments: argparse.Namespace) -> None:
    """`preceptor run RECIPE` and `preceptor STAGE RECIPE`."""
    from preceptor import recipe

    plan = recipe.load(arguments.recipe, arguments.set)
    from preceptor import pipeline  # after the recipe: a mistake in it is said before torch is loaded

    run_dir = arguments.dir or Path("runs") / plan.run.name
    arguments.log_dir = run_dir
    if arguments.dry_run:
        from preceptor import dryrun

        dryrun.dry_run(plan, run_dir, until=arguments.until)
        return
    for path in pipeline.run(plan, run_dir, until=arguments.until):
        print(path)


def check_spec(arguments: argparse.Namespace) -> None:
    """`preceptor spec check PATH`: the counts, the findings; exit 2 when one of them is an error."""
    from preceptor import speclint

    loaded = _load_spec(arguments.path)
    for what, count in speclint.describe(loaded):
        print(f"{count:>8,}  {what}")
    findings = speclint.check(loaded)
    if findings:
        print(speclint.render_findings(findings))
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise UsageError(f"{errors} of the findings {'is an error' if errors == 1 else 'are errors'}", where=arguments.path)


def diff_spec(arguments: argparse.Namespace) -> None:
    """`preceptor spec diff OLD NEW`: what changed by clause, which views that reaches, and with --dir which rows of a run."""
    from preceptor import specdiff

    old, new = _load_spec(arguments.old), _load_spec(arguments.new)
    rows = []
    if arguments.dir:
        from preceptor import binding

        old, new, rows = binding.held_against(arguments.dir, old, new)
    changes, views = specdiff.diff(old, new), specdiff.reached(old, new)
    if arguments.json:
        import orjson

        sys.stdout.write(orjson.dumps(specdiff.to_data(old, new, changes, views, rows), option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False)
    for line in specdiff.render(changes, views, rows):
        console.print(line, soft_wrap=True)


def _load_spec(path: Path) -> Spec:
    """The specification at a path; where a recipe is named, the recipe's, with its limit."""
    from preceptor import spec

    if path.suffix != ".toml":
        return spec.load(path)
    from preceptor import binding, recipe

    plan = recipe.load(path)
    if plan.spec.source is None:
        raise UsageError("the generated world writes this recipe's specification", where=path, hint="check 01_spec in a run directory")
    return spec.load(plan.spec.source).limited(binding.limit_of(plan))


def show(arguments: argparse.Namespace) -> None:
    """`preceptor show ID`: one row and its ancestry from clause to score."""
    from preceptor import lineage

    for found in lineage.trace(arguments.dir or newest_run(Path("runs")), arguments.id):
        print("\n".join(_shown(found)))


def _shown(found: Found) -> Iterable[str]:
    mark = {"ancestor": " ", "row": ">", "descendant": " "}[found.relation]
    yield f"{mark} {found.artefact}:{found.line}  {found.row.get('id', '')}"
    if found.relation == "descendant":
        return
    for name, value in found.row.items():
        if name != "id" and value not in (None, "", [], {}):
            yield f"    {name}: " + _value(value)


def _value(value: Any) -> str:
    import orjson

    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return printable(text).replace("\n", "\n        ")


def newest_run(home: Path) -> Path:
    """The run directory whose manifest was written last. Raises `DataError` where there is none."""
    manifests = sorted(home.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise DataError("no run directory here", where=home, hint="name one with --dir, or make one with `preceptor run RECIPE`")
    return manifests[-1].parent


def chat(arguments: argparse.Namespace) -> None:
    """`preceptor chat`: talk to any arm of a run."""
    from preceptor import pipeline

    run_dir = arguments.dir or newest_run(Path("runs"))
    arguments.log_dir = run_dir
    converse(pipeline.chat_model(run_dir, arguments.arm), reasoning=arguments.reasoning, max_tokens=arguments.max_tokens)


def converse(model: Model, *, reasoning: bool, max_tokens: int) -> None:
    """Turns until the end of input or `/quit`. `/reasoning` shows or hides the reasoning, `/reset` forgets the conversation."""
    from preceptor.models import Request, complete
    from preceptor.records import Message, Sampling

    print(f"{printable(model.name)}: /reasoning shows or hides the reasoning, /reset starts again, /quit ends")
    messages: tuple[Message, ...] = ()
    while (said := _heard()) != "/quit":
        if said == "/reset":
            messages = ()
        elif said == "/reasoning":
            reasoning = not reasoning
            print(f"reasoning {'shown' if reasoning else 'hidden'}")
        elif said:
            asked = (*messages, Message(role="user", content=said))
            (reply,) = complete(model, [Request(asked, Sampling(temperature=0, max_tokens=max_tokens))])
            if reasoning and reply.reasoning:
                print(f"[{printable(reply.reasoning)}]")
            print(printable(reply.answer) if reply.status == "ok" else f"({reply.status}: {printable(reply.detail or reply.answer)})")
            messages = (*asked, Message(role="assistant", content=reply.answer)) if reply.status == "ok" else messages


def _heard() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return "/quit"


def pretrain_world(arguments: argparse.Namespace) -> None:
    """`preceptor world pretrain`: rebuild tokenizer and checkpoints from the seed."""
    from preceptor.world import pretrain

    names = ("seed", "width", "steps", "batch_tokens", "learning_rate")
    said: dict[str, Any] = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.depth is not None:
        said["layers"] = ("conv", "full_attention") * (arguments.depth // 2)
    if said and arguments.out is None:
        raise UsageError("other settings than those of the shipped checkpoints", hint="--out FOLDER, so that these are not overwritten")
    pretrain.main(arguments.out or pretrain.CHECKPOINTS, said, tuple(arguments.role or ("base", "judge")))


def check_world(arguments: argparse.Namespace) -> None:
    """`preceptor world check`: measure what the world's models can do, and print it."""
    from preceptor.world import check

    findings = check.main(n=arguments.n)
    for found in findings:
        figure, side = found.estimate, "at most" if found.at_most else "at least"
        interval = f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] n={figure.n}"
        print(f"{'ok   ' if found.passed else 'SHORT'} {interval}  {side} {found.bar:.3f}  {found.name}")
    short = sum(not found.passed for found in findings)
    if short:
        raise StageFailed(f"{short} of {len(findings)} figures fall short of their bar")


def serve_judge(arguments: argparse.Namespace) -> None:
    """`preceptor judge serve RECIPE`."""
    from preceptor import recipe

    plan = recipe.load(arguments.recipe, arguments.set)
    from preceptor.serve import start
    from preceptor.serve.desk import Limits

    limits = Limits(queue_items=arguments.queue, batch_items=arguments.batch, timeout_seconds=arguments.timeout)
    start.run(plan, arguments.dir, host=arguments.host, port=arguments.port, key_env=arguments.key_env, limits=limits)


def export(arguments: argparse.Namespace) -> None:
    """`preceptor export verl RUN` and `preceptor export openrlhf RUN`."""
    from preceptor.binding import limit_of_run
    from preceptor.exports import write
    from preceptor.exports.client import Service

    service, limit = Service.at(arguments.url, arguments.key_env), limit_of_run(arguments.run)
    if arguments.target == "verl":
        written = write.verl(arguments.run, arguments.out, service, ends=arguments.end, prefilled=arguments.prefilled, limit=limit)
    else:
        written = write.openrlhf(arguments.run, arguments.out, service, ends=arguments.end, limit=limit)
    for path in written:
        print(path)


def calibrate_judge(arguments: argparse.Namespace) -> None:
    """`preceptor judge calibrate RECIPE`: the judge against labels; the table, and the path of the report."""
    from preceptor import recipe

    plan = recipe.load(arguments.recipe, arguments.set)
    from preceptor import trials

    found, path = trials.run_calibration(plan, arguments.labels, reward=arguments.reward, n=arguments.n, out=arguments.out)
    trials.print_report(found)
    print(path)


def inject_judge(arguments: argparse.Namespace) -> None:
    """`preceptor judge injection RECIPE`: bad replies that try to be graded better; the rates, and the path of the rows."""
    from preceptor import recipe

    plan = recipe.load(arguments.recipe, arguments.set)
    from preceptor import trials

    found, path = trials.run_injection(plan, arguments.labels, reward=arguments.reward, each=arguments.each, out=arguments.out)
    trials.print_outcome(found)
    print(path)


def convert_labels(arguments: argparse.Namespace) -> None:
    """`preceptor judge labels xstest FOLDER`: published human labels as a labels file."""
    from preceptor.judge import labels, xstest

    rows = xstest.labels(arguments.folder)
    labels.write(arguments.out, rows)
    print(f"{len(rows):,} labelled replies, {sum(row.score == 1 for row in rows):,} of them good")
    print(arguments.out)


def printable(text: str) -> str:
    """Text without control characters other than line feeds and tabs; each becomes `\N{REPLACEMENT CHARACTER}`."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


# The words


class Parser(argparse.ArgumentParser):
    """Complains in one line, like everything else here, and takes no option by its beginning: `--n 3` was `--name 3`."""

    def __init__(self, **words: Any):
        super().__init__(**words, allow_abbrev=False)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices or ()
        if choices and value not in choices and (near := difflib.get_close_matches(str(value), choices, n=1)):
            raise argparse.ArgumentError(action, f"no such choice: {value!r}; did you mean {near[0]!r}?")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with 2."""
        self.exit(2, f"preceptor: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def parser() -> Parser:
    """All subcommands, in the order of the path."""
    main = Parser(prog="preceptor", description="Teach a reasoning model a written specification, and prove it with a card.")
    main.add_argument("--version", action="version", version=f"preceptor {__version__}")
    commands = main.add_subparsers(metavar="COMMAND", required=True)
    _add_stage(commands, "run", "the whole path, from the specification to the card", until=STAGES[-1])
    spec = commands.add_parser("spec", help="read a specification").add_subparsers(metavar="COMMAND", required=True)
    check = _add(spec, "check", check_spec, "print its counts and whatever is wrong with it, by file and line")
    check.add_argument("path", type=Path, help="a Markdown file, a folder of them, or a recipe")
    diff = _add(spec, "diff", diff_spec, "say which clauses changed, and which rows of a run have to be made again")
    diff.add_argument("old", type=Path, help="a Markdown file, a folder of them, or a recipe; RUN/01_spec is what a run was made from")
    diff.add_argument("new", type=Path, help="the same")
    diff.add_argument("--dir", type=Path, help="a run directory: count its rows that were made from views that read differently now")
    diff.add_argument("--json", action="store_true", help="print plain data")
    for stage in STAGES:
        if stage in ABOUT:
            _add_stage(commands, stage, ABOUT[stage], until=stage)
        if stage == "judge":
            _add_trials(commands)
            _add_judge_serve(commands)
        if stage == "monitor":
            cli_monitor.add(commands, _add)
            cli_summaries.add(commands, _add)
    cli_eval.add(commands, _add)
    cli_serve.add(commands, _add)
    cli_traces.add(commands, _add)
    _add_readers(commands)
    _add_export(commands)
    _add_world(commands)
    return main


def joined(words: Sequence[str]) -> list[str]:
    """`judge serve ...` as one word and the rest: argparse cannot tell a command from the recipe of a stage. A recipe called `serve` is `./serve`."""
    if len(words) > 1 and words[1] in BESIDE_A_STAGE.get(words[0], ()):
        return [f"{words[0]} {words[1]}", *words[2:]]
    return list(words)


def _add(commands: Any, name: str, command: Command, about: str) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    added.add_argument("--debug", action="store_true", help="print the traceback of an unexpected error")
    added.set_defaults(command=command, log_dir=None)
    return added


def _add_stage(commands: Any, name: str, about: str, until: str) -> None:
    stage = _add(commands, name, run_stages, about)
    stage.add_argument("recipe", type=Path, help="a TOML file, for example recipes/demo.toml")
    stage.add_argument("--dir", type=Path, help="the run directory (default: runs/NAME, by the recipe's name)")
    stage.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: --set generate.samples=2")
    stage.add_argument("--dry-run", action="store_true", help="make the prompts, then only say what the rest would ask for and cost")
    stage.set_defaults(until=until)


def _add_judge_serve(commands: Any) -> None:
    serve = _add(commands, "judge serve", serve_judge, "answer over HTTP as the judge that rewards RL")
    serve.add_argument("recipe", type=Path, help="a TOML file, for example recipes/demo.toml")
    serve.add_argument("--dir", type=Path, help="a run directory whose specification it judges by (default: the recipe's)")
    serve.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: --set reward.votes=3")
    serve.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    serve.add_argument("--port", type=int, default=8100, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--key-env", metavar="NAME", help="the environment variable that holds the key clients must show")
    serve.add_argument("--queue", type=positive, default=4096, help="items that may wait (default: %(default)s)")
    serve.add_argument("--batch", type=positive, default=512, help="items judged together at most (default: %(default)s)")
    serve.add_argument("--timeout", type=positive, default=300, help="seconds after which an item is an abstention (default: %(default)s)")


def _add_trials(commands: Any) -> None:
    calibrate = _add(commands, "judge calibrate", calibrate_judge, "hold the judge against labelled replies")
    calibrate.add_argument(
        "--n", type=int, default=1000, help="replies drawn from the generated world, without --labels (default: %(default)s)"
    )
    attack = _add(commands, "judge injection", inject_judge, "try to talk the judge into a better grade")
    attack.add_argument("--each", type=int, default=5, help="bad replies that every attempt is made with (default: %(default)s)")
    for trial in (calibrate, attack):
        trial.add_argument("recipe", type=Path, help="a TOML file; its judge is asked")
        trial.add_argument("--labels", type=Path, help="JSONL rows of prompt, category, answer and label (default: the generated world's)")
        trial.add_argument("--reward", action="store_true", help="the judge as RL asks it (answers only), not as the filter does")
        trial.add_argument("--out", type=Path, help="folder of reports (default: judge.calibration of the recipe, else calibration)")
        trial.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: --set judge.votes=5")
    convert = _add(commands, "judge labels", convert_labels, "write published human labels as a labels file")
    convert.add_argument("dataset", choices=["xstest"], help="whose labels")
    convert.add_argument("folder", type=Path, help="the data set as published")
    convert.add_argument("--out", type=Path, required=True, help="the labels file to write")


def _add_readers(commands: Any) -> None:
    row = _add(commands, "show", show, "print one row and its ancestry, from clause to score")
    row.add_argument("id", help="a row's id or the beginning of it, or a clause's id")
    talk = _add(commands, "chat", chat, "talk to an arm of a run")
    talk.add_argument("--arm", default="sft+rl", help="which arm (default: %(default)s)")
    talk.add_argument("--reasoning", action=argparse.BooleanOptionalAction, default=True, help="show the reasoning (default) or hide it")
    talk.add_argument("--max-tokens", type=int, default=512, help="new tokens per turn, reasoning and answer (default: %(default)s)")
    for reader in (row, talk):
        reader.add_argument("--dir", type=Path, help="the run directory (default: the newest in runs/)")


def _add_export(commands: Any) -> None:
    exports = commands.add_parser("export", help="train elsewhere, with the judge service as the reward").add_subparsers(
        metavar="COMMAND", required=True
    )
    for target, name in (("verl", "verl"), ("openrlhf", "OpenRLHF")):
        made = _add(exports, target, export, f"write the data set and the reward file for {name}")
        made.add_argument("run", type=Path, help="a run directory with its prompts")
        made.add_argument("--out", type=Path, required=True, help="the folder to write into")
        made.add_argument("--url", default="http://127.0.0.1:8100", help="where `preceptor judge serve` listens (default: %(default)s)")
        made.add_argument("--key-env", metavar="NAME", help="the environment variable that holds the service's key")
        made.add_argument("--end", action="append", default=[], metavar="TEXT", help="an end-of-turn token of the policy, as text")
        made.set_defaults(target=target)
        if target == "verl":
            made.add_argument(
                "--prefilled", action="store_true", help="the policy's template opens the reasoning block (compute_score only)"
            )


def _add_world(commands: Any) -> None:
    world = commands.add_parser("world", help="the generated world").add_subparsers(metavar="COMMAND", required=True)
    pretrain = _add(world, "pretrain", pretrain_world, "rebuild its tokenizer and checkpoints from a seed")
    pretrain.add_argument("--seed", type=int, help="another seed than that of the shipped checkpoints")
    pretrain.add_argument("--out", type=Path, help="where they go (default: into the package)")
    pretrain.add_argument(
        "--role", action="append", choices=["base", "judge", "monitor", "monitor_small"], help="only this one (default: base and judge)"
    )
    for name, kind in (("width", int), ("depth", int), ("steps", int), ("batch-tokens", int), ("learning-rate", float)):
        pretrain.add_argument(
            f"--{name}", type=kind, help="another than the shipped checkpoints have" if name != "depth" else "layers, an even number"
        )
    check = _add(world, "check", check_world, "measure what its models can do")
    check.add_argument("--n", type=int, default=1000, help="cases per figure (default: %(default)s)")


# The boundary


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. 0 done, 2 something to mend, 130 interrupted, 1 anything else."""
    arguments = parser().parse_args(joined(sys.argv[1:] if words is None else words))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # before it is imported, here and in processes started from here
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except PreceptorError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        if words is None:  # the process ends here: a second Ctrl-C would only break into its end
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _complain("interrupted; the same command again goes on from here", INTERRUPTED)
    except (BrokenPipeError, SystemExit) as closed:  # the reader (`| head`) has seen enough, which rich makes an exit with 1
        if getattr(closed, "code", 1) != 1:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the one place where everything else ends
        return _unexpected(error, arguments)
    return 0


def _complain(message: str, code: int) -> int:
    print(f"preceptor: error: {' '.join(printable(message).split())}", file=sys.stderr)
    return code


def _unexpected(error: Exception, arguments: argparse.Namespace) -> int:
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        missing = MissingExtra(f"this needs {error.name!r}, which is not installed", hint=f"pip install 'preceptor[{EXTRAS[error.name]}]'")
        return _complain(str(missing), missing.exit_code)
    if arguments.debug:
        traceback.print_exception(error)
        return 1
    log = _log(error, arguments.log_dir)
    return _complain(f"unexpected {type(error).__name__}: {error} (traceback in {log}, or run again with --debug)", 1)


def _log(error: Exception, run_dir: Path | None) -> Path:
    """Write the traceback into the run directory, or where that cannot be written to, into the folder for temporary files."""
    text = "".join(traceback.format_exception(error))
    if run_dir is not None and run_dir.is_dir() and os.access(run_dir, os.W_OK):
        path = run_dir / "error.log"
        path.write_text(text, encoding="utf-8")
        return path
    with tempfile.NamedTemporaryFile("w", prefix="preceptor-", suffix=".log", encoding="utf-8", delete=False) as file:
        file.write(text)
    return Path(file.name)


if __name__ == "__main__":
    sys.exit(main())
