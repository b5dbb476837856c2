# pyright: basic
"""Attention over several shared prefixes and the rows' own slots, for any Hugging Face model with full attention.

In: queries of a batch, the slots its rows have written, and a `View`: which row follows which prefix.  Out: softmax attention over both.

The one idea: the queries of all rows that follow one prefix meet it in one matrix product, so its keys are read once and not once per row. Every row
meets its own slots in another product, and the two parts are put together by their logarithmic sums: exact, not an approximation.

Not here: windows, sinks, caps and position biases, which are refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "preceptor_shared_prefix"


@dataclass
class Prefix:
    """A prefix as a model remembers it. By layer number: `cached`, keys and values (kv heads, P, D) of attention layers, and
    `states` (width, kernel) of convolution layers."""

    length: int
    cached: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)


class Sharing:
    """Which rows follow which prefix: `order` sorts the rows by prefix and `back` undoes it (both None where they lie so);
    `spans` are the prefixes with the range of sorted rows that follow each."""

    def __init__(self, owners: Sequence[Hashable], prefixes: dict, device: torch.device):
        kinds = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
        order = sorted(range(len(owners)), key=lambda row: kinds[owners[row]])
        sorted_already = order == list(range(len(owners)))
        self.order = None if sorted_already else torch.tensor(order, device=device)
        self.back = None if self.order is None else self.order.argsort()
        self.spans: list[tuple[Prefix, int, int]] = []
        start = 0
        for owner in kinds:
            stop = start + sum(other == owner for other in owners)
            self.spans.append((prefixes[owner], start, stop))
            start = stop

    @property
    def empty(self) -> bool:
        """Whether no row follows a prefix."""
        return not any(prefix.length for prefix, _, _ in self.spans)


@dataclass
class View:
    """What an attention layer needs besides its own cache. `bias`: 0 or -inf, broadcast over scores (rows, kv heads, groups, queries, slots)."""

    sharing: Sharing
    bias: Tensor


def shared_prefix_attention(
    module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    view: View,
    **kwargs,
) -> tuple[Tensor, None]:
    """Softmax attention over prefix and slots. query (R, H, Q, D), key and value (R, K, S, D), out (R, Q, H, D).

    Raises `ValueError` for attention that is more than this (windows, sinks, caps, position biases)."""
    extra = [name for name in ("sliding_window", "softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if extra or dropout:
        raise ValueError(f"attention with {', '.join(extra) or 'dropout'}")
    rows, heads, queries, width = query.shape
    kv_heads = key.shape[1]
    query = (query * scaling).reshape(rows, kv_heads, -1, width)  # heads of one group lie together
    own = torch.matmul(query, key.transpose(2, 3)).float()
    own = (own.view(rows, kv_heads, -1, queries, own.shape[-1]) + view.bias).view(own.shape)
    top = own.amax(-1, keepdim=True)
    if view.sharing.empty:
        weights = own.sub_(top).exp_()
        out = torch.matmul(weights.to(value.dtype), value) / weights.sum(-1, keepdim=True)
    else:
        out_there, top_there, total_there = _prefix_parts(query, view.sharing, module.layer_idx)
        top_both = torch.maximum(top, top_there)
        weights = own.sub_(top_both).exp_()
        share = (top_there - top_both).exp_()
        total = weights.sum(-1, keepdim=True) + total_there * share
        out = (torch.matmul(weights.to(value.dtype), value) + out_there * share) / total
    return out.to(value.dtype).reshape(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


def _prefix_parts(query: Tensor, sharing: Sharing, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """The prefixes' part of the softmax for queries (R, K, G, D): weighted values (R, K, G, D), largest score and sum of weights (R, K, G, 1)."""
    rows, kv_heads, group, width = query.shape
    by_head = query.transpose(0, 1)
    if sharing.order is not None:
        by_head = by_head[:, sharing.order]
    folded = by_head.reshape(kv_heads, rows * group, width)
    parts = [_part(folded[:, start * group : stop * group], *prefix.cached[layer]) for prefix, start, stop in sharing.spans]
    joined = []
    for pieces in zip(*parts, strict=True):
        whole = (pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)).view(kv_heads, rows, group, -1)
        joined.append((whole if sharing.back is None else whole[:, sharing.back]).transpose(0, 1))
    return joined[0], joined[1], joined[2]


def _part(folded: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (K, N, D) against one prefix (K, P, D)."""
    if not keys.shape[1]:
        none = folded.new_zeros((*folded.shape[:2], 1), dtype=torch.float)
        return folded.new_zeros((*folded.shape[:2], values.shape[2])), none - torch.inf, none
    scores = torch.matmul(folded, keys.transpose(1, 2)).float()
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    return torch.matmul(weights.to(values.dtype), values), top, weights.sum(-1, keepdim=True)


AttentionInterface.register(ATTENTION, shared_prefix_attention)
