"""Synthetic images whose every part is known: class features that many images share, and each image's own noise.

The data model of Shin et al., NeurIPS 2024 (arXiv 2410.23495), as images. An image is a grid of patches. Of
its class's features it carries each with that feature's probability, each in a patch of its own; one more patch holds
noise that no other image has; the other patches are empty. The place of a patch carries no information. Features are
cosine gratings, orthogonal to each other; the noise is Gaussian and orthogonal to all of them, so that every filter
over patches splits into its part along features and its part along noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.data.images import ImageData
from warmstart.data.settings import PatchSettings
from warmstart.decoding.wanted import Wanted

NAME = "features-and-noise"
"""What `--data` calls these images."""

_TRAIN, _TEST = 4000, 2000
_SEED = 0
_NOISE_PIXELS = 45.0
"""Standard deviation of the noise in uint8 images."""
_PROBABILITIES, _EXAMPLES = range(2)


class PatchWorld(PatchSettings):
    """What images are made of: the features, the directions of noise, how often each feature occurs."""

    @cached_property
    def basis(self) -> Tensor:
        """(size, size), orthonormal rows: the C K features, class by class, then the directions of noise."""
        waves = _gratings(self.patch, self.channels)
        flat, waves = waves[: self.channels], waves[self.channels :]  # the constant patches are noise, not features
        count = self.classes * self.features
        return torch.from_numpy(np.concatenate([waves[:count], waves[count:], flat])).float()

    @property
    def feature_vectors(self) -> Tensor:
        """(C, K, size), of norm 1."""
        return self.basis[: self.classes * self.features].view(self.classes, self.features, -1)

    @property
    def noise_basis(self) -> Tensor:
        """(size - C K, size), orthonormal: the directions of noise."""
        return self.basis[self.classes * self.features :]

    def probabilities(self, seed: int) -> NDArray[np.float64]:
        """How often each feature occurs: (C, K), each row from the most frequent feature to the rarest."""
        drawn = np.random.default_rng([seed, _PROBABILITIES]).random((self.classes, self.features))
        return -np.sort(-self.max_probability * drawn, axis=1)


@dataclass(frozen=True, eq=False)
class PatchExamples:
    """Examples, patch by patch; example i is of class i mod C."""

    patches: Tensor
    """float32 (N, grid * grid, size); an empty patch is 0."""
    labels: Tensor
    """int64 (N,)."""
    carried: Tensor
    """bool (N, K): which of its class's features an example carries."""
    noise: Tensor
    """float32 (N, size): the example's own noise."""


def draw_examples(world: PatchWorld, seed: int, count: int, part: int = 0) -> PatchExamples:
    """Draw a part's first ``count`` examples (part 0 to train on, 1 to test, say); parts share the probabilities."""
    rngs = [np.random.default_rng([seed, _EXAMPLES, part, purpose]) for purpose in range(3)]
    labels = np.arange(count) % world.classes
    carried = torch.from_numpy(rngs[0].random((count, world.features)) < world.probabilities(seed)[labels])
    directions = world.noise_basis
    noise = torch.from_numpy(rngs[1].standard_normal((count, len(directions)), dtype=np.float32))
    noise = noise @ directions * (world.noise / math.sqrt(len(directions)))
    patches = torch.zeros(count, world.grid**2, world.size)
    patches[:, : world.features] = world.feature_vectors[labels] * carried[..., None]
    patches[:, world.features] = noise
    places = torch.from_numpy(rngs[2].random((count, world.grid**2)).argsort(axis=1))
    patches = patches.gather(1, places[..., None].expand_as(patches))
    return PatchExamples(patches, torch.from_numpy(labels), carried, noise)


def as_images(world: PatchWorld, patches: Tensor) -> Tensor:
    """Lay patches (N, grid^2, size) out on grey: uint8 (N, channels, grid * patch, grid * patch), clipped."""
    p, g = world.patch, world.grid
    pixels = patches.view(-1, g, g, world.channels, p, p).permute(0, 3, 1, 4, 2, 5)
    scale = _NOISE_PIXELS * math.sqrt(world.size) / (world.noise or 1.0)
    flat = pixels.reshape(-1, world.channels, g * p, g * p)
    return (128 + scale * flat).round().clamp(0, 255).to(torch.uint8)


def read_features_and_noise(wanted: Wanted) -> ImageData:
    """Make 4000 training and 2000 test images of 40x40 pixels, two classes of 20 features, always the same."""
    world = PatchWorld()
    parts = [draw_examples(world, _SEED, count, part) for part, count in enumerate((_TRAIN, _TEST))]
    train, test = (as_images(world, part.patches) for part in parts)
    train, test = wanted.all_fitted(train), wanted.all_fitted(test)
    classes = tuple(f"class {label + 1}" for label in range(world.classes))
    return ImageData(NAME, train, parts[0].labels, test, parts[1].labels, classes)


def _gratings(patch: int, channels: int) -> NDArray[np.float64]:
    """Orthonormal cosine gratings (DCT-II) in each channel, from the lowest frequency to the highest."""
    t = np.arange(patch)
    waves = np.cos(np.pi * np.outer(t, t + 0.5) / patch) * np.where(t == 0, 1, math.sqrt(2))[:, None] / math.sqrt(patch)
    planes = np.einsum("ai,bj->abij", waves, waves).reshape(patch**2, -1)
    frequency = np.add.outer(t, t).ravel()
    planes = planes[np.argsort(frequency, kind="stable")]
    of_channel: NDArray[np.float64] = np.einsum("pi,cd->pcdi", planes, np.eye(channels))
    return of_channel.reshape(patch**2 * channels, -1)
