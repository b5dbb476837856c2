"""Rows per second and core of the path around the models: prompts, generate, judge and filter with a model that answers at once.

What is left is ours: planning, rendering texts, records, journals, hashing, parsing verdicts. One process, one thread; the time is that of the
processor. Printed: rows per processor second of each stage and of all together, and the memory at its peak.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from preceptor import filter, generate, judge, prompts, spec
from preceptor.judge import Judge, JudgeConfig
from preceptor.models import Reply, Request
from preceptor.records import Message, Prompt
from preceptor.runs import Run
from preceptor.wording import Wording

ROOT = Path(__file__).parent.parent


class AtOnce:
    """Implements `Model`: the same reply to everything."""

    def __init__(self, name: str, reasoning: str, answer: str):
        self.name, self.identity, self.reply = name, name, Reply(reasoning, answer, "ok", "", 1000, 100)

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Every request is looked at, as any model would."""
        for index in range(len(requests)):
            assert requests[index].messages
            yield index, self.reply


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", type=int, default=20_000)
    given = words.parse_args()
    policy = spec.load(ROOT / "specs" / "house")
    categories = sorted(policy.categories)
    made = (
        Prompt(messages=(Message(role="user", content=f"How would one go about task number {n}?"),), category=categories[n % len(categories)], split="")
        for n in range(given.rows)
    )  # fmt: skip
    wording = Wording("full")
    writer = AtOnce("writer", "The clause asks me to refuse this. " * 10, "Sorry, I can't help with that.")
    reader = AtOnce("reader", "It refuses.", '{"score": 2, "clauses": [], "quotes": ["Sorry"]}')
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "run") as run:
        stages = {
            "prompts": lambda: prompts.run(run, prompts.PromptsConfig(rl_fraction=0), policy, prompts=made),
            "generate": lambda: generate.run(run, generate.GenerateConfig(samples=1), policy, writer, wording),
            "judge": lambda: judge.run(run, Judge(reader, wording, policy, JudgeConfig(votes=1))),
            "filter": lambda: filter.run(run, filter.FilterConfig(), policy),
        }
        spent = 0.0
        for name, stage in stages.items():
            before = time.process_time()
            summary = stage()
            seconds = time.process_time() - before
            spent += seconds
            print(f"{name:<10} {summary.ledger.rows_in / seconds:>9,.0f} rows per second and core")
        print(f"{'together':<10} {given.rows / spent:>9,.0f} rows per second and core, n = {given.rows:,}")
    unit = 1e9 if sys.platform == "darwin" else 1e6
    print(f"memory at its peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GB")


if __name__ == "__main__":
    main()
