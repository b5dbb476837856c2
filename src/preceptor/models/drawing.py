# pyright: basic
"""Which token is taken from a row's logits.

In: next-token logits of a batch, temperatures, nuclei, one uniform number per row.  Out: one token per row, by inverse CDF, so that equal logits and
an equal number always give the same token.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 64
"""Most likely tokens looked at before a whole distribution is sorted for `top_p`."""
BROKEN = -1
"""Drawn where the logits are not numbers."""


def uniforms(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of the Philox stream keyed by `seed`."""
    return np.random.Generator(np.random.Philox(key=seed % 2**64)).random(count, dtype=np.float32)


def draw(logits: Tensor, temperature: Tensor | None, top_p: Tensor | None, uniform: Tensor, *, greedy: bool) -> Tensor:
    """One token per row of `logits` (R, V): by inverse CDF at `uniform` where `temperature` > 0, else the largest.

    `temperature` None: all greedy. `greedy`: whether any row is. `top_p` None: no row has one below 1. Rows whose
    logits are not numbers give `BROKEN`."""
    logits = logits.float()
    if temperature is None:
        best, tokens = logits.max(-1)
        return tokens.masked_fill(~best.isfinite(), BROKEN)
    if not bool((temperature == 1).all()):
        logits = logits / temperature.where(temperature > 0, 1.0)[:, None]  # greedy rows keep their order
    chances = torch.softmax(logits, -1)
    cumulative = chances.cumsum(-1)
    tokens = _invert(cumulative, uniform)
    if top_p is not None:
        narrow = torch.nonzero(top_p < 1).flatten()
        tokens[narrow] = _nucleus(chances[narrow], top_p[narrow], uniform[narrow])
    if greedy:
        tokens = tokens.where(temperature > 0, logits.argmax(-1))
    return tokens.masked_fill(~cumulative[:, -1].isfinite(), BROKEN)


def _invert(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """First index whose cumulative weight exceeds `uniform` times the total; never one of weight zero."""
    total = cumulative[:, -1:]
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).flatten().clamp(max=cumulative.shape[1] - 1)


def _nucleus(chances: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Inverse CDF over the fewest most likely tokens that hold `top_p` of the mass. Nearly always a few candidates
    hold it; only rows where they do not are sorted whole (measured: 6 ms against 90 ms for 256 rows of 6000)."""
    ordered, ids = chances.topk(min(CANDIDATES, chances.shape[1]), -1)
    tokens = _narrowed(ordered, ids, top_p, uniform)
    flat = torch.nonzero(ordered.sum(-1) < top_p).flatten()
    if len(flat):
        ordered, ids = chances[flat].sort(dim=-1, descending=True, stable=True)
        tokens[flat] = _narrowed(ordered, ids, top_p[flat], uniform[flat])
    return tokens


def _narrowed(ordered: Tensor, ids: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p[:, None], 0.0)
    return ids.gather(1, _invert(kept.cumsum(-1), uniform)[:, None]).flatten()
