"""A forward and backward pass recorded as a CUDA graph and replayed: one launch instead of hundreds.

After "CUDA Graphs" in PyTorch's notes on CUDA semantics. Only the gradients are recorded; what is done with them, a
method's changes and the optimizer's update, runs after each replay as after each backward pass. So all methods and
optimizers are trained in one way. The update adds a few launches and some Python, which a GPU that still computes
gradients does not wait for.

The passes before a recording are done as usual, on the stream that it needs: they warm up everything that is allocated
or chosen once, and nothing has to be undone. The recording itself computes nothing; its batch is the first that is
replayed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Passes over a shape of batch before it is recorded."""

_WAITS = "called a synchronizing CUDA operation"

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``gradients(inputs, labels) -> (loss, accuracy)``, and each parameter's ``.grad``, which was None before."""


def can_record(model: nn.Module) -> bool:
    """Whether a network's gradients can be recorded: all of it is on a GPU."""
    return all(parameter.is_cuda for parameter in model.parameters())


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all stages of a process: cuBLAS keeps a workspace for each stream that it has ever worked on."""
    return torch.cuda.Stream(device)


@dataclass(frozen=True, eq=False)
class _Recording:
    """A graph, what it reads and what it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    labels: Tensor
    results: tuple[Tensor, Tensor]
    gradients: list[Tensor | None]
    """Of each parameter. They belong to the recording: another one may use their memory for something else."""
    watched: dict[str, Tensor]


class RecordedGradients:
    """Gradients as another function computes them; each shape of batch is recorded at its fourth pass."""

    def __init__(self, gradients: Gradients, model: nn.Module, watched: dict[str, Tensor] | None = None) -> None:
        """Prepare; nothing is recorded yet.

        Args:
            gradients: How they are computed without recording.
            model: The network, on one GPU. From now on its parameters and buffers are changed in place.
            watched: What its forward hooks put activations into; after a replay it holds those of that recording.
        """
        self._gradients, self._watched = gradients, {} if watched is None else watched
        self._parameters = list(model.parameters())
        layers = list(model.modules())
        self._tensors = [tensors for layer in layers for tensors in (layer._parameters, layer._buffers) if tensors]
        self._places = self._addresses()
        self._stream = _stream(self._parameters[0].device)
        self._pool = torch.cuda.graph_pool_handle()  # recordings never run at the same time, so they share memory
        self._seen: Counter[torch.Size] = Counter()
        self._recordings: dict[torch.Size, _Recording] = {}
        self._recordable = True

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch, which hold until the next call; returns loss and accuracy."""
        shape = inputs.shape
        if self._recordable and self._addresses() != self._places:
            self._give_up("a parameter or buffer was given other memory; change it in place, as copy_ does")
        if self._recordable and shape not in self._recordings and self._seen[shape] == WARM_UP:
            self._record(inputs, labels)
        if shape in self._recordings:
            return self._replay(self._recordings[shape], inputs, labels)
        self._seen[shape] += 1
        with self._noticing_waits(self._recordable and self._seen[shape] == WARM_UP):
            return self._warm_up(inputs, labels)

    def _warm_up(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        main = torch.cuda.current_stream(inputs.device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            results = self._gradients(inputs, labels)
        main.wait_stream(self._stream)
        return results

    def _replay(self, recording: _Recording, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        recording.inputs.copy_(inputs)
        recording.labels.copy_(labels)
        recording.graph.replay()
        for parameter, gradient in zip(self._parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        self._watched.clear()
        self._watched.update(recording.watched)
        loss, accuracy = recording.results
        return loss.clone(), accuracy.clone()  # the second pass of SAM's update is a replay too

    def _record(self, inputs: Tensor, labels: Tensor) -> None:
        graph, inputs, labels = torch.cuda.CUDAGraph(), inputs.clone(), labels.clone()
        generator = torch.cuda.default_generators[inputs.device.index]
        before = generator.clone_state()
        # A recording that fails leaves its own stream current, and the generator in a state where it refuses to draw.
        back = torch.cuda.stream(torch.cuda.current_stream(inputs.device))
        self._watched.clear()
        self._clear_gradients()  # so that the backward pass writes them, into the graph's memory, and adds to nothing
        try:
            with back, self._graph(graph):
                results = self._gradients(inputs, labels)
        except RuntimeError as error:
            self._clear_gradients()
            generator.graphsafe_set_state(before)
            self._give_up(str(error).partition("\n")[0])
        else:
            gradients = [parameter.grad for parameter in self._parameters]
            watched = {name: tensor.detach() for name, tensor in self._watched.items()}
            self._recordings[inputs.shape] = _Recording(graph, inputs, labels, results, gradients, watched)

    def _graph(self, graph: torch.cuda.CUDAGraph) -> AbstractContextManager[None]:
        # What other threads do meanwhile, such as pinning memory for a loader of the user's, is none of its business.
        return torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")

    def _clear_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _addresses(self) -> list[int]:
        """Where the network lies; a replay would go on with what lay there at the recording."""
        return [tensor.data_ptr() for layer in self._tensors for tensor in layer.values() if tensor is not None]

    @contextmanager
    def _noticing_waits(self, watch: bool) -> Iterator[None]:
        """Find out whether a pass waits for the device, which cannot be recorded; a failed recording costs more."""
        if not watch:
            yield
            return
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        if waits := [warning for warning in seen if _WAITS in str(warning.message)]:
            self._give_up(f"{waits[0].filename}:{waits[0].lineno} waits for the GPU")

    def _give_up(self, reason: str) -> None:
        self._recordable = False
        self._recordings.clear()  # they draw from the generator as it was, and one way to run is enough
        warnings.warn(f"the training step runs without a CUDA graph, which is slower: {reason}", stacklevel=2)
