"""A model's folder: its weights without pickle, and a card that says how to make the network and what it takes.

``weights.safetensors`` holds the tensors of the state dict by their own names, so that any tool that reads safetensors
finds them. ``model.json`` is the card, with the SHA-256 of the weights, its own, and the versions that wrote them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import nn

from warmstart.errors import DamagedError, InputError, OtherVersionError
from warmstart.image_size import ImageSize
from warmstart.importing import describe
from warmstart.methods.lifecycle import prepare_
from warmstart.methods.registry import parse_method
from warmstart.models.factory import make
from warmstart.models.registry import model_factory
from warmstart.storage.atomic import new_folder, write_bytes, write_text
from warmstart.storage.packing import TensorTable, pack, unpack

CARD, WEIGHTS = "model.json", "weights.safetensors"
CURRENT = "current"
"""In a folder of several models, a symbolic link to the one in service."""
_FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """What a network is, and what becomes of an image before it sees it."""

    model: str
    """As ``--model`` names it: ``small-cnn[width=16]`` or ``pkg.module:factory``."""
    classes: tuple[str, ...]
    channels: int
    """1 for grey images, 3 for colour."""
    image_size: ImageSize
    fit: str
    """How images of other proportions come to that size: ``stretch``, ``crop`` or ``pad``."""
    mean: tuple[float, ...]
    """Of each channel of images in [0, 1]: the network takes ``(image - mean) / std``."""
    std: tuple[float, ...]
    bits: int = 16
    """White is 2^bits - 1 in images of 16 bits."""
    method: str = ""
    """The method that has changed the network before training, if one has (`Method.prepare`), such as norm layers that
    it has put in."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Shown, never needed: stage, accuracy, the data's fingerprint. Anything that JSON can hold."""


def write_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write a model's folder whole or not at all; an earlier model there is replaced.

    Args:
        folder: Made if it is missing. Two processes must not write it at the same time.
        model: The network; only its state dict is stored.
        card: What it is.

    Raises:
        InputError: If the folder holds something else.
    """
    if folder.exists() and not (folder / CARD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there is something else than a model; choose another folder")
    table = TensorTable()
    state = {name: pack(value, name, table) for name, value in model.state_dict().items()}
    weights = to_safetensors(table.tensors, {"format": "pt"})
    content = {
        "format": _FORMAT,
        **asdict(card),
        "weights": {
            "sha256": hashlib.sha256(weights).hexdigest(),
            # Tied tensors are stored once; this says under which name, and holds what is no tensor.
            "elsewhere": {name: mark for name, mark in state.items() if mark != {"$tensor": name}},
        },
        "versions": {"warmstart": version("warmstart"), "torch": str(torch.__version__)},
    }
    plain = json.loads(json.dumps(content))  # as it is read again
    text = json.dumps({**plain, "checksum": _checksum(plain)}, indent=1)
    with new_folder(folder) as filled:
        write_bytes(filled / WEIGHTS, weights)
        write_text(filled / CARD, text + "\n")


def read_card(folder: Path) -> ModelCard:
    """The card of a model; InputError if there is none, or it is damaged."""
    return _read(folder)[0]


def read_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Make the network anew and give it its weights; what the card names, such as a user's factory, is imported.

    Returns:
        The network, on the CPU and in eval mode, and its card.

    Raises:
        InputError: If a file is missing or damaged, or the weights do not fit the network that is made now.
    """
    card, stored = _read(folder)
    tensors = from_safetensors(_whole_weights(folder, stored))
    state = {**tensors, **unpack(stored["elsewhere"], tensors)}
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        factory = model_factory(card.model)
        model = make(factory, len(card.classes), card.channels, card.image_size, name=card.model)
        if card.method:
            prepare_(parse_method(card.method), model)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = describe(error).partition(": ")[2]
        raise InputError(
            f"{folder}: the weights do not fit the network that {card.model} makes now ({reason:.200}); use the code "
            "that trained them"
        ) from error
    return model.eval(), card


def find_model(path: Path) -> Path:
    """The folder of the model that a path names: its own, or the one that ``current`` in it points to.

    Args:
        path: The folder of a model, or the state of `warmstart retrain`.

    Returns:
        The folder, with links resolved, so that a promotion meanwhile changes nothing.

    Raises:
        InputError: If there is none.
    """
    current = path / CURRENT
    if (path / CARD).is_file():
        return path.resolve()
    if current.is_symlink() and not current.exists():
        raise InputError(f"{current} points to {current.readlink()}, which is not there; point it to another model")
    if current.is_dir():
        return current.resolve()
    found = "holds no model" if path.is_dir() else "is no folder"
    raise InputError(f"{path} {found}; name the --state of `warmstart retrain`, or a folder with a {CARD}")


def check_model(folder: Path) -> None:
    """Check a model's folder without making the network.

    Args:
        folder: The model's.

    Raises:
        DamagedError: In one line that names the file, if one is missing or damaged.
        OtherVersionError: If the model is of another format.
    """
    _, stored = _read(folder)
    _whole_weights(folder, stored)


def _read(folder: Path) -> tuple[ModelCard, dict[str, Any]]:
    """The card, and what it says of the weights."""
    file = folder / CARD
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != _FORMAT:
            form = content["format"]
            raise OtherVersionError(
                f"{file}: a model of format {form}, and this warmstart reads format {_FORMAT}; update it"
            )
        if content.pop("checksum") != _checksum(content):
            raise ValueError("the card has changed")
        stored = {"sha256": str(content["weights"]["sha256"]), "elsewhere": dict(content.pop("weights")["elsewhere"])}
        del content["format"], content["versions"]
        return TypeAdapter(ModelCard).validate_python(content), stored
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(f"{file}: no such file; name the folder of a model") from None
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        if isinstance(error, InputError):
            raise
        raise DamagedError(f"{file}: damaged, or no model of warmstart's; {_REMEDY}") from error


def _checksum(content: Mapping[str, Any]) -> str:
    """Of a card without its checksum."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_REMEDY = "restore it from a copy, or go back to an earlier model"


def _whole_weights(folder: Path, stored: Mapping[str, Any]) -> bytes:
    """The content of the file of weights; DamagedError unless it is what the card says."""
    file = folder / WEIGHTS
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{file}: no such file, but {CARD} is there; {_REMEDY}") from None
    if hashlib.sha256(content).hexdigest() != stored["sha256"]:
        raise DamagedError(f"{file}: damaged (its SHA-256 is not the one in {CARD}); {_REMEDY}")
    return content
