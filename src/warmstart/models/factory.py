"""What a model factory is, and the check of one before a run uses it."""

from typing import Protocol

import torch
from torch import Tensor, nn

from warmstart.errors import InputError
from warmstart.image_size import ImageSize, height_and_width
from warmstart.importing import describe
from warmstart.network import require_module


class ModelFactory(Protocol):
    """Makes a freshly initialised network each time it is called."""

    def __call__(self, num_classes: int, in_channels: int, image_size: ImageSize, /) -> nn.Module:
        """Make a network for (batch, in_channels, height, width) images with one logit a class."""


def check_factory(
    factory: ModelFactory, num_classes: int, in_channels: int, image_size: ImageSize, *, name: str = "factory"
) -> None:
    """Make a network twice and let it classify two black images, in eval mode on the CPU; random states are restored.

    Raises:
        InputError: If the factory raises, returns no trainable network or twice the same weights, or if the network
            cannot read such images or gives anything but one logit a class.
    """
    # Reading the random state of an unused CUDA would start it, and workers forked later could then not use it.
    in_use = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count() if in_use else 0)), torch.no_grad():
        model = make(factory, num_classes, in_channels, image_size, name=name)
        again = make(factory, num_classes, in_channels, image_size, name=name)
        if not set(model.parameters()).isdisjoint(again.parameters()):
            raise InputError(
                f"model {name}: two calls returned networks that share weights, so no method could start afresh; "
                "make the network inside the function"
            )
        del again
        images = torch.zeros(2, in_channels, *height_and_width(image_size))
        try:
            logits = model.cpu().eval()(images)
        except (Exception, SystemExit) as error:  # the network is the user's and may raise anything
            raise InputError(
                f"model {name}: the network cannot read images of shape {tuple(images.shape)}: {describe(error)}"
            ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"type {type(logits).__name__}"
        raise InputError(
            f"model {name}: the network's output for 2 images has {got}; "
            f"{num_classes} classes need a tensor of shape (2, {num_classes})"
        )


def make(factory: ModelFactory, num_classes: int, in_channels: int, image_size: ImageSize, *, name: str) -> nn.Module:
    """Call a factory; InputError if it raises, or what it returns is no network that can be trained."""
    called = f"called as factory({num_classes}, {in_channels}, {image_size}) (num_classes, in_channels, image_size)"
    try:
        model = factory(num_classes, in_channels, image_size)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the factory is the user's and may raise anything
        raise InputError(f"model {name}: {called} it raised {describe(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name}: {called} it returned {type(model).__name__}, not a torch.nn.Module")
    require_module(model, f"model {name}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"model {name}: the network has no trainable parameter; leave some unfrozen")
    return model
