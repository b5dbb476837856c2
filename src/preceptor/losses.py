# pyright: basic
"""Cross-entropy of a language-model head, head and loss in one, a few rows at a time.

The logits of a batch are by far its largest tensors (tokens x vocabulary, several times over in forward and backward), and of another size
at every step, which no allocator reuses well. Here they exist for a slice of rows only, and their gradient is taken at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 128
"""Rows of logits that exist at one time."""


class HeadLoss(torch.autograd.Function):
    """Sum over rows of `-log softmax(hidden @ weight.T)[target]`; the gradients are computed with it and scaled in `backward`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """`hidden` (N, width), `weight` (vocabulary, width), `targets` (N); matrix products in `dtype`. A scalar in float32."""
        total, w = hidden.new_zeros((), dtype=torch.float32), weight.to(dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), ROWS):
            rows, wanted = hidden[start : start + ROWS].to(dtype), targets[start : start + ROWS, None]
            logits = (rows @ w.T).float()
            right, highest = logits.gather(1, wanted), logits.amax(1, keepdim=True)
            grad = logits.sub_(highest).exp_()
            mass = grad.sum(1, keepdim=True)
            total += (mass.log() + highest - right).sum()
            grad = grad.div_(mass).scatter_add_(1, wanted, torch.full_like(right, -1.0)).to(dtype)
            grad_hidden[start : start + ROWS] = grad @ w
            grad_weight += grad.T @ rows
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The stored gradients, scaled."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0].to(grad_hidden.dtype), grad_weight * grads[0], None, None


def head_loss(hidden: Tensor, head: torch.nn.Linear, targets: Tensor) -> Tensor:
    """Cross-entropy summed over the rows of `hidden` (N, width) against token ids `targets` (N), for a head without bias. Products are
    taken in the type that autocast asks for, else in that of `hidden`."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    loss = HeadLoss.apply(hidden, head.weight, targets, dtype)
    assert isinstance(loss, Tensor)
    return loss
