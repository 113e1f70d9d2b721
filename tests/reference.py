"""Slow and obvious references, in plain PyTorch: one neuron at a time, straight from METHODS.md and the papers."""

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
