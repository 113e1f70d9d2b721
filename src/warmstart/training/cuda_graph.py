"""A training step recorded as a CUDA graph and replayed: one launch instead of hundreds, so that Python never lags.

After "CUDA Graphs" in PyTorch's notes on CUDA semantics. The batches before a recording are trained as usual, on the
stream that it needs: they warm up everything that is allocated or chosen once, and nothing has to be undone. The
recording itself computes nothing; its batch is the first that is replayed.
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
from torch.optim import Optimizer

WARM_UP = 3
"""Batches of a shape before it is recorded."""

_WAITS = "called a synchronizing CUDA operation"


def can_capture(model: nn.Module, optimizer: Optimizer) -> bool:
    """Say whether a step can be recorded: on a GPU, with an update that never asks the host.

    Args:
        model: The network.
        optimizer: Its optimizer; of PyTorch's, those with ``fused=True`` read the learning rate on the device.

    Returns:
        Whether it can.
    """
    on_gpu = all(parameter.is_cuda for parameter in model.parameters())
    return on_gpu and all(group.get("fused") for group in optimizer.param_groups)


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


class CapturedStep:
    """A step that does the same as another one; each shape of batch is recorded at its fourth occurrence."""

    def __init__(self, step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], optimizer: Optimizer) -> None:
        """Prepare; nothing is recorded yet.

        Args:
            step: The step as it is without recording, on one GPU.
            optimizer: What it updates with; its groups' ``lr`` is copied to the device whenever it changes.
        """
        self._step, self._groups = step, optimizer.param_groups
        device = self._groups[0]["params"][0].device
        self._rates = [torch.full((), float(group["lr"]), device=device) for group in self._groups]
        self._written = [float(group["lr"]) for group in self._groups]
        self._stream = _stream(device)
        self._pool = torch.cuda.graph_pool_handle()  # recordings never run at the same time, so they share memory
        self._seen: Counter[torch.Size] = Counter()
        self._recordings: dict[torch.Size, _Recording] = {}
        self._recordable = True

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Do one update.

        Args:
            inputs: A batch.
            labels: Its labels.

        Returns:
            Loss and accuracy before the update; they hold until the next call.
        """
        shape = inputs.shape
        if self._recordable and shape not in self._recordings and self._seen[shape] == WARM_UP:
            self._record(inputs, labels)
        if shape in self._recordings:
            return self._replay(self._recordings[shape], inputs, labels)
        self._seen[shape] += 1
        with self._watched(self._recordable and self._seen[shape] == WARM_UP):
            return self._warm_up(inputs, labels)

    def _warm_up(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        main = torch.cuda.current_stream(inputs.device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            results = self._step(inputs, labels)
        main.wait_stream(self._stream)
        return results

    def _replay(self, recording: _Recording, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        for i, group in enumerate(self._groups):
            if (rate := float(group["lr"])) != self._written[i]:
                self._rates[i].fill_(rate)
                self._written[i] = rate
        recording.inputs.copy_(inputs)
        recording.labels.copy_(labels)
        recording.graph.replay()
        return recording.results

    def _record(self, inputs: Tensor, labels: Tensor) -> None:
        graph, inputs, labels = torch.cuda.CUDAGraph(), inputs.clone(), labels.clone()
        generator = torch.cuda.default_generators[inputs.device.index]
        before = generator.clone_state()
        # A recording that fails leaves its own stream current, and the generator in a state where it refuses to draw.
        back = torch.cuda.stream(torch.cuda.current_stream(inputs.device))
        try:
            with back, self._update_on_device(), self._graph(graph):
                results = self._step(inputs, labels)
        except RuntimeError as error:
            generator.graphsafe_set_state(before)
            self._give_up(str(error).partition("\n")[0])
        else:
            self._recordings[inputs.shape] = _Recording(graph, inputs, labels, results)

    def _graph(self, graph: torch.cuda.CUDAGraph) -> AbstractContextManager[None]:
        # What other threads do meanwhile, such as pinning memory for a loader of the user's, is none of its business.
        return torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")

    @contextmanager
    def _update_on_device(self) -> Iterator[None]:
        """An update that reads its learning rate on the device, and says so."""
        before = [dict(group) for group in self._groups]
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:  # outside a recording this would warn, and with ``fused`` changes nothing
                group["capturable"] = True
        try:
            yield
        finally:
            for group, settings in zip(self._groups, before, strict=True):
                group.update(settings)

    @contextmanager
    def _watched(self, watch: bool) -> Iterator[None]:
        """Find out whether a step waits for the device, which cannot be recorded; a failed recording costs more."""
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
