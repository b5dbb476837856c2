"""The demo for several seeds: which bars are reached, and what it costs.

    python benchmarks/seeds.py [--seeds 0 1 2] [--out runs]

Every seed is another specification, other prompts and other sampling. Prints one row per bar with the figure of each seed, and one row with
the minutes each run took (0 where the run was found done).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from preceptor import aggregate
from preceptor.records import Score
from preceptor.runs import read_records
from preceptor.world import bars


def main() -> None:
    """Run and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    table: dict[tuple[str, str], list[str]] = {}
    minutes = []
    for seed in arguments.seeds:
        run, started = arguments.out / f"demo-{seed}", time.monotonic()
        command = [sys.executable, "-m", "preceptor", "run", "recipes/demo.toml", "--dir", str(run), "--set", f"run.seed={seed}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        minutes.append(f"{(time.monotonic() - started) / 60:.1f}")
        results = aggregate.summarise(read_records(run / "08_scores.jsonl", Score.from_row))
        for bar in bars.held_against(results):
            table.setdefault((bar.name, bar.wanted), []).append(f"{bar.found.text()}{'' if bar.reached else ' MISSED'}")
    print("figure | wanted | " + " | ".join(f"seed {seed}" for seed in arguments.seeds))
    for (name, wanted), found in table.items():
        print(f"{name} | {wanted} | " + " | ".join(found))
    print("minutes | | " + " | ".join(minutes))


if __name__ == "__main__":
    main()
