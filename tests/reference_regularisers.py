"""Slow and obvious references for the methods that act on every update: plain loops over fp64 numbers."""

import math

import torch
from torch import nn


def parseval_gradient(weight, scale, coef, groups=1):
    """4 coef (W W^T - s I) W, one product at a time; a row is an output, of all inputs and kernel positions."""
    result = torch.zeros_like(weight, dtype=torch.float64)
    outputs = weight.shape[0] // groups
    for group in range(groups):
        rows = [weight[group * outputs + i].detach().double().flatten().tolist() for i in range(outputs)]
        for i in range(outputs):
            row = [0.0] * len(rows[i])
            for j in range(outputs):
                product = sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) - (scale if i == j else 0.0)
                row = [total + product * value for total, value in zip(row, rows[j], strict=True)]
            new = torch.tensor(row, dtype=torch.float64).reshape(weight.shape[1:])
            result[group * outputs + i] = 4 * coef * new
    return result


def parseval_loss(matrix, scale):
    """||W W^T - s I||_F^2, as in FIRE's code."""
    return (matrix @ matrix.T - scale * torch.eye(matrix.shape[0], dtype=matrix.dtype)).square().sum()


def dash_l2_penalty(model, initial, coef):
    """The DASH code's coef (sum ||w - w_0||)^2 over the `.weight` of each module."""
    total = 0.0
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.requires_grad:
            total = total + (weight - initial[f"{name}.weight"]).norm()
    return coef * total**2


def slow_and_fast(updates, momentum, period):
    """Hare & Tortoise on one number: what the optimizer adds at each update, and both networks after each."""
    slow = fast = 0.0
    after = []
    for step, change in enumerate(updates, start=1):
        fast = fast + change
        slow = momentum * slow + (1 - momentum) * fast
        if step % period == 0:
            fast = slow
        after.append((slow, fast))
    return after


def soft_weight_rescaling(layers, first, last_norm, coef, classifier_coef):
    """Algorithm 1 on [(weight, bias or None)] in the order in which they run; a last_norm of None means no norm."""
    product, result = 1.0, []
    for number, (weight, bias) in enumerate(layers):
        behind = last_norm is None or number >= last_norm
        its_coef = classifier_coef if last_norm is not None and number > last_norm else coef
        norm, norm_0 = (math.sqrt(sum(v * v for v in w.flatten().tolist())) for w in (weight, first[number]))
        c = (its_coef * norm_0 + (1 - its_coef) * norm) / norm
        product = product * c if behind and number != last_norm else c
        result.append((weight * c, None if bias is None else bias * product))
    return result


def projected(weight, first):
    """||W_0|| W / ||W||, number by number."""
    norm, norm_0 = (math.sqrt(sum(v * v for v in w.double().flatten().tolist())) for w in (weight, first))
    return weight.double() * norm_0 / norm


def feed_forward(norm=True):
    """Layers registered in another order than they run in, so that only the graph tells the order."""

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(7, 4)
            self.hidden = nn.Linear(6, 7)
            self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
            self.first = nn.Linear(5, 6)

        def forward(self, x):
            x = torch.relu(self.norm(self.first(x)))
            return self.out(torch.relu(self.hidden(x)))

    torch.manual_seed(0)
    return Backwards()
