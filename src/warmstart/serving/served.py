"""`load`: a promoted model, ready to say what is in an image."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch import Tensor, nn

from warmstart.errors import at_least_one
from warmstart.serving.inputs import Images, no_pixels, to_pixels
from warmstart.serving.model_folder import ModelCard, find_model, read_model
from warmstart.serving.predictions import Predictions
from warmstart.training.devices import find_device
from warmstart.training.evaluation import BATCH, outputs
from warmstart.training.examples import Examples, on_device

_turn = threading.Lock()
"""While a network computes: precision is the whole process's, and modes are the network's."""


class Served:
    """A network in eval mode, with all that an image needs before it.

    Threads may share it; all networks of a process take turns.
    """

    def __init__(self, model: nn.Module, card: ModelCard, folder: Path, device: torch.device) -> None:
        """Move the network to the device; `load` reads it from a folder."""
        self.model = model.to(device).eval()
        self.card = card
        """Its classes, image size and normalisation, and what is known ``about`` it, such as its stage."""
        self.folder = folder
        self.device = device

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return self.card.classes

    @property
    def batch_size(self) -> int:
        """How many images are computed at a time if nobody says: fewer of large ones."""
        return self._examples(no_pixels(self.card)).in_a_pass(BATCH)

    def preprocess(self, images: Images) -> Tensor:
        """Turn images into the network's input: ``served.model(served.preprocess(images))`` are logits.

        Args:
            images: As for `predict`.

        Returns:
            float32 (N, C, H, W), normalised, on the network's device.

        Raises:
            InputError: If an image cannot be read, or an array is not one of uint8 images.
        """
        examples = self._examples(to_pixels(images, self.card))
        return examples.normalised(examples.images)

    def predict(self, images: Images, batch_size: int | None = None) -> Predictions:
        """Say what is in one or many images.

        They are decoded, resized, and brought to grey or colour by the code that read the training data, so that the
        network sees what it was trained on. (Of large JPEG files that holds to the last bit for paths only: they are
        decoded at a fraction of their size, and a PIL image at full size.)

        Args:
            images: The path of an image file, a PIL image, an array or tensor of uint8 pixels, or a list of these. An
                array is (H, W), (N, H, W), (H, W, C), (N, H, W, C) or (N, C, H, W), with 1 or 3 channels; (3, H, W) is
                one colour image for a network that takes colour, and three grey ones for another.
            batch_size: Images that are computed at a time, on which rounding may depend; 500 of small images and fewer
                of large ones if not given, as when the model was evaluated.

        Returns:
            The class of each image, and the probabilities of all.

        Raises:
            InputError: If an image cannot be read, or an array is not one of uint8 images.
        """
        size = None if batch_size is None else at_least_one("batch_size", batch_size)
        return self.predict_pixels(to_pixels(images, self.card), size)

    def predict_pixels(self, pixels: Tensor, batch_size: int | None = None) -> Predictions:
        """Say what is in images that have the network's size and channels already, uint8 (N, C, H, W)."""
        labels, probabilities = [], []
        with _turn:
            for logits, _ in outputs(self.model, self._examples(pixels), channels_last=True, batch_size=batch_size):
                labels.append(logits.argmax(1).cpu())
                probabilities.append(logits.softmax(1).cpu())
        return Predictions(torch.cat(labels), self.classes, torch.cat(probabilities))

    def _examples(self, pixels: Tensor) -> Examples:
        """The images, which stay where they are and travel batch by batch, with labels that nobody reads."""
        none = torch.zeros(len(pixels), dtype=torch.int64)
        scale = torch.tensor(self.card.mean), torch.tensor(self.card.std)
        empty = on_device(pixels[:0], none[:0], *scale, self.device)
        return Examples(pixels, none, empty.mean, empty.std)


def load(path: str | Path, device: str = "auto") -> Served:
    """Load a model for predictions: the one that `warmstart retrain` has promoted last, or any other of its models.

    Args:
        path: The ``--state`` of `warmstart retrain`, whose current model is meant, or the folder of a model.
        device: Such as ``cpu`` or ``cuda:1``; ``auto`` is the accelerator that is there, else the CPU.

    Returns:
        The network with its classes and preprocessing. A later promotion does not change it: load again for that.

    Raises:
        InputError: If there is no model, a file of it is damaged, or the device is not there.
    """
    folder = find_model(Path(path).expanduser())
    model, card = read_model(folder)
    return Served(model, card, folder, find_device(device))
