"""What a run's training took: tokens per second, the time of a step by what it went to, memory.

    python benchmarks/gpu_report.py RUN_DIRECTORY [MEMORY_LOG]

Reads `metrics.jsonl` of every trained arm; MEMORY_LOG holds the GPU's used memory in MiB, a line per reading.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import orjson


def rows(folder: Path) -> list[dict[str, Any]]:
    """Steps of an arm but the first two, which warm up."""
    lines = (folder / "metrics.jsonl").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines][2:]


def sft_line(folder: Path) -> str:
    """Tokens per second and seconds per step."""
    steps = rows(folder)
    seconds, tokens = steps[-1]["seconds"] - steps[0]["seconds"], steps[-1]["tokens"] - steps[0]["tokens"]
    return f"{tokens / seconds:10,.0f} tokens/s   {seconds / (len(steps) - 1):8.3f} s a step"


def rl_line(folder: Path) -> str:
    """Median seconds of a step: sampling, the judge, the update."""
    steps = rows(folder)
    parts = {name: statistics.median(step[f"{name}_seconds"] for step in steps) for name in ("generation", "reward", "training")}
    return f"{sum(parts.values()):8.3f} s a step: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in parts.items())


def main() -> None:
    """Print a line per arm."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run", type=Path)
    words.add_argument("memory", type=Path, nargs="?")
    given = words.parse_args()
    for home, line in (("06_sft", sft_line), ("07_rl", rl_line)):
        for folder in sorted((given.run / home).iterdir()):
            print(f"{folder.name:<18} {line(folder)}")
    if given.memory and given.memory.is_file():
        print(f"GPU memory at its peak: {max(map(int, given.memory.read_text().split())) / 1024:.1f} GiB")


if __name__ == "__main__":
    main()
