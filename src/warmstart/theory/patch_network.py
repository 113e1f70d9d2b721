"""A two-layer convolutional network that looks at patches, and how its filters split into features and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from warmstart.data.features_and_noise import PatchExamples, PatchWorld
from warmstart.data.settings import PatchSettings


class PatchNetwork(nn.Module):
    """f_c(x) = sum over patches p and the filters r of class c of relu(<w_r, x_p>)^2 / 2.

    A convolution whose stride is its kernel is a linear map of each patch; the second layer is fixed. The square makes
    filters specialise: the more a filter responds to something, the faster it learns it.
    """

    def __init__(self, images: PatchSettings, filters: int, init_std: float) -> None:
        super().__init__()
        self.classes = images.classes
        self.filters = nn.Linear(images.size, images.classes * filters, bias=False)
        nn.init.normal_(self.filters.weight, std=init_std)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (N, P, size) to outputs (N, classes)."""
        responses = relu(self.filters(patches)).square().sum(dim=1) / 2
        return responses.view(len(patches), self.classes, -1).sum(dim=2)


@dataclass(frozen=True)
class Parts:
    """The lengths of each filter's parts."""

    features: Tensor
    """(filters,): the norm of its projection on the features of all classes."""
    noise: Tensor
    """(filters,): on the noise of the examples seen so far; if these are many, on all but the features."""


@torch.no_grad()
def split_filters(network: PatchNetwork, world: PatchWorld, seen: PatchExamples) -> Parts:
    """Split every filter into its part along features and its part along the noise of the ``seen`` examples."""
    weights = network.filters.weight
    features = weights @ world.basis[: world.classes * world.features].T
    directions, sizes, _ = torch.linalg.svd(seen.noise.T, full_matrices=False)
    span = directions[:, sizes > 1e-4 * sizes.max()]
    return Parts(features.norm(dim=1), (weights @ span).norm(dim=1))


@torch.no_grad()
def remove_noise_(network: PatchNetwork, world: PatchWorld) -> None:
    """Forget exactly the noise: project every filter on the features, in place."""
    noise = world.noise_basis
    weights = network.filters.weight
    weights.sub_(weights @ noise.T @ noise)


def without_empty_patches(patches: Tensor) -> Tensor:
    """Leave out empty patches of (N, P, size), which add nothing without biases: (N, most filled patches, size)."""
    empty = ~patches.any(dim=2)
    filled = int((~empty).sum(dim=1).max())
    order = empty.int().argsort(dim=1, stable=True)[:, :filled]
    return patches.gather(1, order[..., None].expand(-1, -1, patches.shape[2]))
