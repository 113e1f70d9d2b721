"""In which order layers run, which the order of modules does not say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn

from warmstart.layers.norms import is_norm
from warmstart.undo import on_failure


def in_order_of_running(model: nn.Module, run: Callable[[], object]) -> list[str]:
    """The names of norm layers and of modules that hold parameters, in the order in which ``run`` first calls them.

    ``run`` passes a small batch through the model. What it does not call is left out.

    Returns:
        The names.
    """
    names: dict[str, None] = {}
    with ExitStack() as stack:
        on_failure(stack.close)
        for name, layer in model.named_modules():
            if is_norm(layer) or any(True for _ in layer.parameters(recurse=False)):

                def note(layer: nn.Module, args: Any, name: str = name) -> None:
                    names.setdefault(name)

                stack.callback(layer.register_forward_pre_hook(note).remove)
        run()
    return list(names)
