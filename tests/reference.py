"""Slow and obvious references, in plain PyTorch: one neuron at a time, straight from the papers."""

import itertools
import math

import torch
from torch import nn


def dash(model, batches, loss_fn, alpha, lambda_):
    """The scales and new weights that DASH should give, over every batch, in fp64 arithmetic.

    Returns {parameter name: (list of scales, new weights)} for Linear and Conv weights and biases.
    """
    was_training = model.training
    model.eval()
    average = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    for inputs, targets in batches:
        gradients = torch.autograd.grad(loss_fn(model(inputs), targets), list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
            average[name] = (1 - alpha) * average[name] + alpha * (-gradient.double())
    model.train(was_training)
    results = {}
    for prefix, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            for key, dims in (("weight", 1 if isinstance(layer, nn.Linear) else 2), ("bias", 0)):
                parameter = getattr(layer, key)
                if parameter is not None:
                    name = f"{prefix}.{key}"
                    results[name] = _shrink(average[name], parameter.detach().double(), dims, lambda_)
    return results


def _shrink(gradient, weight, dims, lambda_):
    """Flatten to (neurons, weights), scale each row, put it back."""
    neurons = math.prod(weight.shape[:dims])
    rows, toward = weight.reshape(neurons, -1), gradient.reshape(neurons, -1)
    dot, norms = (rows * toward).sum(1), rows.norm(dim=1) * toward.norm(dim=1)
    cosine = torch.where(norms > 0, dot / norms, 0.0)
    scales = torch.minimum(torch.ones_like(cosine), torch.maximum(torch.full_like(cosine, lambda_), cosine))
    return scales.tolist(), (scales[:, None] * rows).reshape(weight.shape)


def moving_average(gradients, alpha):
    """G in closed form: the gradient k places from the end has the weight -alpha (1-alpha)^k."""
    weights = [-alpha * (1 - alpha) ** k for k in range(len(gradients))]
    return sum(weight * gradient.double() for weight, gradient in zip(weights, reversed(gradients), strict=True))


def gradients_of(model, batches, loss_fn):
    """Parameter name -> the gradients of all batches, in eval mode."""
    model.eval()
    found = {name: [] for name, _ in model.named_parameters()}
    for inputs, targets in batches:
        for name, gradient in zip(
            found, torch.autograd.grad(loss_fn(model(inputs), targets), list(model.parameters())), strict=True
        ):
            found[name].append(gradient)
    return found


SHRINK_AND_BLEND = {"ash": (0.4, 0.1), "hare-tortoise": (0.2, 0.8)}
"""Ash and Adams 2020: 0.4 w + 0.1 w_fresh. Lee et al. 2024: (1-c) w + c w_0 with c = 0.8."""

SHRINK_AND_NOISE = {"dash": (0.3, 0.01), "renate": (0.95, 0.001)}
"""Shin et al. 2024: 0.3 w + N(0, 0.01^2). Renate: 0.95 w + N(0, 0.001^2)."""


def l2_init_gradient(model, loss, initial, coef):
    """The gradient of  loss + (coef / 2) sum ||w - w_0||^2  by autograd, for each trainable parameter."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    penalty = sum((p - initial[name]).square().sum() for name, p in trainable.items())
    gradients = torch.autograd.grad(loss + coef / 2 * penalty, list(trainable.values()))
    return dict(zip(trainable, gradients, strict=True))


def polar_factor(matrix):
    """U V^T of a matrix U S V^T."""
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def fire(weight, groups=1, transposed=False, polar=polar_factor):
    """sqrt(d_out / d_in) U V^T / (k_h k_w) of each matrix U S V^T of a weight, in fp64, one position at a time."""
    result = torch.empty_like(weight, dtype=torch.float64)
    positions = [()] if weight.dim() == 2 else list(itertools.product(*(range(size) for size in weight.shape[2:])))
    rows = weight.shape[0] // groups
    for group in range(groups):
        block = slice(group * rows, (group + 1) * rows)
        for position in positions:
            matrix = weight.detach()[(block, slice(None), *position)].double()
            d_out, d_in = reversed(matrix.shape) if transposed else matrix.shape
            result[(block, slice(None), *position)] = math.sqrt(d_out / d_in) / len(positions) * polar(matrix)
    return result


def newton_schulz(matrix, iterations):
    """X <- 1.5 X - 0.5 X X^T X from W / ||W||_F, as published; the authors take 10 iterations."""
    x = matrix / matrix.norm()
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x
