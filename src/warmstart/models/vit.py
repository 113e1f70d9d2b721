"""vit: the vision transformer of Dosovitskiy et al. 2021 (arXiv 2010.11929), small enough for small images.

Width, depth and heads are ViT-Tiny's of DeiT (Touvron et al. 2021, arXiv 2012.12877); patches of 4 pixels make 64 of a
32x32 image. Pre-norm, learned positions, a class token. Queries, keys and values are rows of one linear layer, as in
timm: FIRE finds the former two there, and methods that redraw units the values.
"""

import math

import torch
from torch import Tensor, nn

from warmstart.errors import InputError, at_least_one, require
from warmstart.image_size import ImageSize, height_and_width
from warmstart.models.network import Network

_STD = 0.02
"""Of the truncated normal distribution that linear weights, positions and the class token begin with, as in DeiT."""


class Attention(nn.Module):
    """Every token reads all others, in each head on its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, tokens, width) to as many."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Not PyTorch's fused attention, which has no second derivative on a CPU: sharpness needs one.
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module's call


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with four times as many hidden units."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, tokens, width) to as many."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class ViT(nn.Module):
    """Patches and a class token with their positions, the blocks, and a linear layer on what became of the token."""

    def __init__(
        self, num_classes: int, in_channels: int, patches: int, patch: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, width, patch, patch)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + patches, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (batch, classes), of images (batch, channels, height, width), normalised per channel."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x)[:, 0]))  # type: ignore[no-any-return]  # nn.Module's call is untyped


def vit(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    *,
    patch: int = 4,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
) -> ViT:
    """Return a vision transformer: 5,362,762 parameters for 32x32 colour images of 10 classes.

    Without dropout, whatever the size. Weights are drawn as in DeiT, biases of linear layers start at 0; the patches'
    convolution is PyTorch's.

    Raises:
        InputError: If a setting is below 1, the heads do not divide the width, or the images' sides are no multiples of
            the patch's.
    """
    for name, value in {"patch": patch, "width": width, "depth": depth, "heads": heads}.items():
        at_least_one(name, value)
    require(width % heads == 0, f"width is {width}, which {heads} heads cannot share; make it a multiple of heads")
    sides = height, columns = height_and_width(image_size)
    if any(side % patch for side in sides):
        near = "x".join(str(math.ceil(side / patch) * patch) for side in sides)
        raise InputError(
            f"model vit: patches of {patch} pixels do not cover images of {height}x{columns}; resize them "
            f"(--image-size {near}) or choose another size of patches: vit[patch=N]"
        )
    model = ViT(num_classes, in_channels, (height // patch) * (columns // patch), patch, width, depth, heads)
    for drawn in (model.token, model.positions):
        nn.init.trunc_normal_(drawn, std=_STD)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_STD)
            nn.init.zeros_(module.bias)
    return model


NETWORK = Network(
    "vit",
    vit,
    "a vision transformer as ViT-Tiny, on patches of 4 pixels; sides must be multiples of that",
    "Dosovitskiy et al. (arXiv 2010.11929); width, depth and heads of DeiT (arXiv 2012.12877)",
)
