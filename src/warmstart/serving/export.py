"""A model as one file for other runtimes, preprocessing included: uint8 images in, logits and probabilities out."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from warmstart.errors import InputError, one_of
from warmstart.image_size import height_and_width
from warmstart.importing import describe
from warmstart.serving.model_folder import ModelCard
from warmstart.serving.served import Served
from warmstart.storage.atomic import new_file

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
"""Kind -> how the names of its files end."""
CARD = "card.json"
"""Where a file holds the card: in ONNX a key of the model's metadata, in torch's archive the name of an extra file."""


def export(served: Served, kind: str, file: str | Path) -> None:
    """Write a model for a runtime that has none of this code, whole or not at all.

    The file takes ``images``, uint8 (N, C, H, W) of the network's size and channels, any number of them, and gives
    ``logits`` and ``probabilities``, float32 (N, classes). Resizing to that size is left to the caller. Classes and the
    rest of the model's card are in it as well: JSON called ``card.json``.

    Args:
        served: The model, as `load` gives it.
        kind: ``onnx`` for ONNX Runtime and the like; ``torch`` for `torch.export.load`, from Python or C++.
        file: Its folder must exist; an earlier file is replaced.

    Raises:
        InputError: If the kind is unknown, a package is missing, or PyTorch cannot trace the network.
    """
    one_of("export", kind, SUFFIXES)
    content = _to_onnx(served) if kind == "onnx" else _to_archive(served)
    with new_file(Path(file)) as opened:
        opened.write(content)


class _InService(nn.Module):
    """The network with what comes before and after it."""

    mean: Tensor
    std: Tensor

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.network = copy.deepcopy(served.model).cpu().eval()
        for name in ("mean", "std"):
            self.register_buffer(name, 255 * torch.tensor(getattr(served.card, name)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network((images.to(torch.float32) - self.mean) / self.std)
        return logits, logits.softmax(1)


def _traced(served: Served) -> ExportedProgram:
    """The network as a graph that takes any number of images."""
    card = served.card
    images = torch.zeros(3, card.channels, *height_and_width(card.image_size), dtype=torch.uint8)
    with _in_words(card), torch.no_grad():
        return torch.export.export(_InService(served), (images,), dynamic_shapes=({0: Dim("N", min=1)},))


def _to_archive(served: Served) -> bytes:
    content = io.BytesIO()
    with _in_words(served.card):
        torch.export.save(_traced(served), content, extra_files={CARD: json.dumps(asdict(served.card))})
    return content.getvalue()


def _to_onnx(served: Served) -> bytes:
    try:
        import onnx  # noqa: F401  # torch imports both late, and says less clearly that they are missing
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export to onnx needs two packages ({error}); pip install 'warmstart[onnx]'") from None
    traced = _traced(served)
    with _in_words(served.card):
        program: Any = torch.onnx.export(
            traced, (), input_names=["images"], output_names=["logits", "probabilities"], dynamo=True, verbose=False
        )
        program.model.metadata_props[CARD] = json.dumps(asdict(served.card))
        content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _in_words(card: ModelCard) -> Iterator[None]:
    """Keep PyTorch's remarks on its own code to itself, and turn whatever it raises over a network into one line."""
    remarks = logging.getLogger("torch.onnx")
    level = remarks.level
    try:
        remarks.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # of many kinds, and some of a page
        raise InputError(
            f"model {card.model} cannot be exported: {describe(error):.300}; torch.export must be able to trace it for "
            "any number of images"
        ) from error
    finally:
        remarks.setLevel(level)
