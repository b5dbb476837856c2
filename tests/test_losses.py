"""The loss of the head: the same value and the same gradients as PyTorch's own, whatever the number of rows."""

from __future__ import annotations

import pytest
import torch

from preceptor.losses import ROWS, head_loss


def reference(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(head(hidden).float(), targets, reduction="sum")


@pytest.mark.parametrize(("amp", "tolerance"), [(False, 1e-5), (True, 2e-2)])
@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 3])
def test_value_and_gradients_are_those_of_cross_entropy(rows: int, amp: bool, tolerance: float) -> None:
    torch.manual_seed(rows)
    start, head, targets = torch.randn(rows, 16), torch.nn.Linear(16, 50, bias=False), torch.randint(0, 50, (rows,))
    found = []
    for loss_of in (reference, head_loss):
        hidden = start.clone().requires_grad_()
        head.weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            loss = loss_of(hidden, head, targets) / 7
        loss.backward()
        assert hidden.grad is not None
        assert head.weight.grad is not None
        found.append((loss.detach(), hidden.grad, head.weight.grad))
    for wanted, got in zip(*found, strict=True):
        assert (wanted - got).abs().max() <= tolerance * wanted.abs().max()
    assert found[1][0].dtype == torch.float32


def test_no_rows_cost_nothing() -> None:
    head = torch.nn.Linear(4, 9, bias=False)
    assert head_loss(torch.zeros(0, 4), head, torch.zeros(0, dtype=torch.long)) == 0
