"""How long `preceptor --help` takes, against an interpreter that does nothing, alternating in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(*words: str) -> float:
    """Wall time of one interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Median and range of both, and their ratio."""
    pairs = [(seconds("-m", "preceptor", "--help"), seconds("-c", "pass")) for _ in range(9)]
    for name, times in (("preceptor --help", [pair[0] for pair in pairs]), ("python -c pass", [pair[1] for pair in pairs])):
        print(f"{name}: median {statistics.median(times):.3f} s, range {min(times):.3f} to {max(times):.3f}, n={len(times)}")
    print(f"ratio: median {statistics.median(a / b for a, b in pairs):.1f}")


if __name__ == "__main__":
    main()
