# pyright: basic
"""Few requests under each of many specifications, as a judge gets them in RL: one batch for all against one batch for each.

The judge is the one shipped with the generated world, the requests are judgements under one law of that world, whose 12 categories each have a routed
view of their own. Both sides use the same engine and weights; they take turns within each repetition. Printed: the median and range of the ratio
of CPU times, and how many replies are equal.

    python benchmarks/mixed_prefixes.py [--rows 128 1000]
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict

import torch
from spec_prefix import spread

from preceptor.models import Reply, Request, complete
from preceptor.models.local import LocalModel
from preceptor.records import Message, Sampling
from preceptor.world import lessons
from preceptor.world.pretrain import CHECKPOINTS
from preceptor.world.things import CATEGORIES


def requests(rows: int) -> list[Request]:
    """Judgements of answers in random categories of one law."""
    rng = random.Random(3)
    book = lessons.LawBook(rng, lessons.CHECK_LAWS)
    drawn, found = [book.draw() for _ in CATEGORIES], []
    for _ in range(rows):
        law, category, view = rng.choice(drawn)
        system, turn, _ = lessons.judging(rng, law, category, view)
        messages = (Message(role="system", content=system), Message(role="user", content=turn.user))
        found.append(Request(messages, Sampling(temperature=0.0, max_tokens=192)))
    return found


def one_by_one(local: LocalModel, some: list[Request]) -> list[Reply]:
    """A call for each specification."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, request in enumerate(some):
        groups[request.messages[0].content].append(index)
    replies: dict[int, Reply] = {}
    for indices in groups.values():
        replies |= dict(zip(indices, complete(local, [some[index] for index in indices]), strict=True))
    return [replies[index] for index in range(len(some))]


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 500])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    local = LocalModel.load(CHECKPOINTS / "judge", dtype="float32", batch_size=options.batch)
    for rows in options.rows:
        some, apart, together = requests(rows), [], []
        equal = sum(one == other for one, other in zip(one_by_one(local, some), complete(local, some), strict=True))
        for _ in range(options.repetitions):
            start = time.process_time()
            one_by_one(local, some)
            middle = time.process_time()
            complete(local, some)
            apart.append(middle - start)
            together.append(time.process_time() - middle)
        ratios = [slow / fast for slow, fast in zip(apart, together, strict=True)]
        count = len({request.messages[0].content for request in some})
        print(
            f"{rows} rows, {count} specifications: apart {spread(apart, ' s')}, together {spread(together, ' s')}, ratio {spread(ratios)} "
            f"of {options.repetitions}; equal {equal}/{rows}",
            flush=True,
        )


if __name__ == "__main__":
    main()
