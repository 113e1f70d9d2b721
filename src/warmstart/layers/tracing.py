"""What each operation of a forward pass does to units, seen below autograd.

A weight that a labelled tensor is multiplied by is recorded as read by these units, and what comes out has new ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from warmstart.batches import tensors_in
from warmstart.layers.labels import narrowed
from warmstart.layers.recording import Kind, Recorder
from warmstart.layers.views import View, is_strided, storage_key
from warmstart.undo import on_failure


@dataclass(frozen=True)
class _Call:
    """One operation."""

    op: str
    name: str
    """Without the namespace and the underscore of an operation in place."""
    arguments: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    out: tuple[Tensor, ...]


_LINEAR = {"add", "sub", "rsub", "mul", "div", "neg", "clone", "_to_copy", "dropout", "native_dropout"}
_ALSO_POINTWISE = {
    "hardswish",
    "_prelu_kernel",
    "log_sigmoid_forward",
    "native_dropout",
    "hardsigmoid",
    "rrelu_with_noise",
}
_MOVES = {
    *("cat", "stack", "index", "index_select", "gather", "index_put", "scatter", "select_scatter", "slice_scatter"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d"),
    *("replication_pad2d", "replication_pad3d", "roll", "flip", "repeat", "tril", "triu", "im2col"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
}
_STAY = {"index", "indices", "mask"}
"""Arguments that are indices or masks, not elements to move."""
_STATISTICS = {
    *("mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "std_mean", "logsumexp"),
    *("linalg_vector_norm", "norm", "any", "all", "argmax", "argmin", "median", "nanmean", "nansum"),
}
_ALONG = {
    *("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort"),
    *("topk", "_fft_r2c", "_fft_c2c", "_fft_c2r", "kthvalue"),
}
_POOLS = re.compile(r"_?(mkldnn_)?(adaptive_)?(avg|max)_pool|_?upsample_|grid_sampler_")
_MAKES = re.compile(r".*_like$|new_|fill$|zero$|normal$|uniform$|bernoulli$|resize$|set$")
_SHAPES = {"t", "transpose", "squeeze", "unsqueeze", "as_strided", "resize", "set", "detach", "swap_dims"}
_PRODUCTS: dict[str, tuple[str | None, str, str]] = {
    "mm": (None, "self", "mat2"),
    "bmm": (None, "self", "mat2"),
    "addmm": ("self", "mat1", "mat2"),
    "baddbmm": ("self", "batch1", "batch2"),
    "mv": (None, "self", "vec"),
    "addmv": ("self", "mat", "vec"),
    "dot": (None, "self", "tensor"),
}
"""What is added, and the two factors."""


class Trace(Recorder, TorchDispatchMode):
    """A forward pass in which units are followed."""

    def __init__(self, model: nn.Module) -> None:
        Recorder.__init__(self, model)
        TorchDispatchMode.__init__(self)

    def run(self, run: Callable[[], object]) -> frozenset[int]:
        """Run the forward pass; the ids that flow into what it returns."""
        with ExitStack() as stack:
            on_failure(stack.close)
            for module in self.names:
                stack.callback(module.register_forward_pre_hook(self.enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self.leave).remove)
            # Left as often as it was entered, whoever comes first: the stack, or what puts back after an interruption.
            leave = partial(self._leave, torch._C._len_torch_dispatch_stack())
            on_failure(leave)
            stack.callback(leave)
            self.__enter__()  # type: ignore[no-untyped-call]  # of torch
            output = run()
        found: set[int] = set()
        for tensor in tensors_in(output):
            labels = self.read(tensor)
            found |= self.labels.members(labels) if labels is not None else set()
        return frozenset(found)

    def _leave(self, others: int) -> None:
        """Stop following, however often it was begun; before there were so many ``others``."""
        while torch._C._len_torch_dispatch_stack() > others:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # of torch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:
            whole = func.decompose(*args, **kwargs)  # composite operations, which inference mode does not split
        if whole is not NotImplemented:
            return whole
        out = func(*args, **kwargs)
        arguments = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        name = func._schema.name.partition("::")[2]
        written = name.endswith("_") or "out" in kwargs
        call = _Call(
            func._schema.name.replace("::", "."),
            name.removesuffix("_"),
            arguments,
            tuple(tensors_in([value for key, value in arguments.items() if key != "out"])),
            tuple(tensor for tensor in tensors_in(out) if is_strided(tensor) and tensor.numel() > 0),
        )
        seen = {storage_key(tensor) for tensor in call.tensors if is_strided(tensor)}
        is_view = all(storage_key(tensor) in seen for tensor in call.out) and not written
        if call.out and not is_view and not (written and call.name in _SHAPES):
            self._follow(call, pointwise=torch.Tag.pointwise in func.tags or call.name in _ALSO_POINTWISE)
        return out

    def _follow(self, call: _Call, *, pointwise: bool) -> None:
        """Apply the rule of one operation."""
        for tensor in call.tensors:
            view = self.views.find(tensor)
            if view is not None:
                self.used.setdefault(view.name, call.op)
        labelled = any(self.read(tensor) is not None for tensor in call.tensors)
        if call.name in ("_to_copy", "clone", "repeat"):
            self.views.copied(call.arguments["self"], call.out[0])
        if call.name in _PRODUCTS:
            self._product(call)
        elif call.name == "convolution":
            self._convolution(call)
        elif call.name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
            self._embedding(call)
        elif not labelled or _MAKES.match(call.name):
            for tensor in call.out:
                self.write(tensor, None)
        elif call.name.startswith("_scaled_dot_product_"):
            self._attention(call)
        elif "batch_norm" in call.name or call.name.endswith(("layer_norm", "group_norm", "_rms_norm")):
            self._norm(call)
        elif call.name == "copy":
            source = call.arguments["src"]
            sources = (self.value(call.arguments["self"]), self.value(source))
            self.write(call.out[0], self.read(source), sources)
        elif pointwise:
            self._pointwise(call)
        elif call.name == "glu":
            gate = narrowed(self.full(call.arguments["self"])).expand(call.arguments["self"].shape)
            left, right = gate.chunk(2, call.arguments.get("dim", -1))
            met = self.labels.meet(left, right, call.op, self.where(), product=True)
            self.write(call.out[0], met, nonlinear=True)
        elif call.name in _MOVES and not call.arguments.get("accumulate", False):
            self._move(call)
        elif call.name in _STATISTICS | _ALONG or _POOLS.match(call.name):
            self._reduce(call)
        else:
            parts = [labels for tensor in call.tensors if (labels := self.read(tensor)) is not None]
            mixed = self.labels.mix(torch.cat([part.flatten() for part in parts]), f"{call.op} mixes its units")
            if any(self.weight(tensor) is not None for tensor in call.tensors):
                self.labels.leave(self.labels.members([mixed]), f"{call.op} reads its units in an unknown way")
            for tensor in call.out:
                self.write(tensor, torch.tensor(mixed))

    def _product(self, call: _Call) -> None:
        """Matrix products: with a weight, or of activations."""
        added, left_name, right_name = _PRODUCTS[call.name]
        left, right, out = call.arguments[left_name], call.arguments[right_name], call.out[0]
        if left.dim() == 1:
            left, out = left[None], out[None]
        if right.dim() == 1:
            right, out = right[:, None], out[..., None]
        own, other = self.weight(right), self.weight(left)
        if own is not None and other is not None and self.is_of_innermost(other):
            own = None
        if own is not None:
            self._layer_product(left, right, own, out)
        elif other is not None:
            weight = left.mT
            view = self.weight(weight)
            assert view is not None
            self._layer_product(right.mT, weight, view, out.mT)
        else:
            self._activation_product(call, left, right, out)
        if added is not None:
            bias = call.arguments[added]
            labels = self.read(bias)
            if labels is not None:
                met = self.labels.meet(self.full(out), labels, call.op, self.where(), product=False)
                self.write(out, narrowed(met))
            elif self.weight(bias) is not None:
                self.affine("bias", bias, out)

    def _layer_product(self, x: Tensor, weight: Tensor, view: View, out: Tensor) -> None:
        """The product of x, (..., rows, in), and a weight, (..., in, out)."""
        inputs, outputs = weight.dim() - 2, weight.dim() - 1
        by_batch = [0] if 0 in view.axes() and weight.dim() == 3 else []
        batch = [torch.arange(weight.size(0))] if by_batch else []
        labels = self.read(x)
        if labels is not None:
            what = "several of its units share one weight"
            ids = self.labels.along(labels, [d for d in range(x.dim() - 1) if d not in by_batch], what)
            at = torch.cartesian_prod(*batch, torch.arange(weight.size(inputs))).reshape(-1, 1, len(batch) + 1)
            ids = ids.expand([x.size(d) if d in by_batch or d == x.dim() - 1 else 1 for d in range(x.dim())])
            self.consume(view, [*by_batch, inputs], at, ids, x)
        at = torch.cartesian_prod(*batch, torch.arange(weight.size(outputs))).reshape(-1, 1, len(batch) + 1)
        ids = self.produce(view, [*by_batch, outputs], at)
        self.write(out, ids.reshape(-1, 1, weight.size(outputs)) if by_batch else ids)

    def _activation_product(self, call: _Call, left: Tensor, right: Tensor, out: Tensor) -> None:
        """Units pass where the sum is over positions; units that are summed over are left."""
        passing = []
        for tensor, dim in ((left, -1), (right, -2)):
            labels = self.read(tensor)
            if labels is None:
                passing.append(torch.zeros([1] * tensor.dim(), dtype=torch.long))
                continue
            other = left if tensor is right else right
            how = "those of another layer" if self.read(other) is not None else "what is no parameter"
            what = f"its units are multiplied by {how} in {call.op}"
            found, several = self.labels.common(labels, [labels.dim() + dim])
            if several.any():
                mixed = labels.where(several, 0)
                self.labels.leave(self.labels.members(mixed), what)
                found = found.where(~several, self.labels.mix(mixed, what))
            passing.append(found)
        if all(bool((one > 0).any()) for one in passing):
            what = f"its units are multiplied by those of another layer in {call.op}"
            mixed = torch.tensor(self.labels.mix(torch.cat([one.flatten() for one in passing]), what))
            self.labels.leave(self.labels.members(mixed), what)
            self.write(out, mixed)
        else:
            met = self.labels.meet(passing[0], passing[1], call.op, self.where(), product=True)
            self.write(out, met)

    def _convolution(self, call: _Call) -> None:
        x, weight, bias = (call.arguments[name] for name in ("input", "weight", "bias"))
        transposed, groups = call.arguments["transposed"], call.arguments["groups"]
        view, labels = self.weight(weight), self.read(x)
        if view is None:
            if labels is not None:
                reason = f"{self.where() or call.op} reads its units with a weight that is no parameter"
                self.labels.leave(self.labels.members(labels), reason)
            self.write(call.out[0], None)
            return
        rows, columns = torch.arange(weight.size(0)), torch.arange(weight.size(1))
        by_row: tuple[tuple[int, ...], Tensor] = ((0,), rows.reshape(-1, 1, 1))
        by_column: tuple[tuple[int, ...], Tensor] = ((1,), columns.reshape(-1, 1, 1))
        if groups > 1:  # along the second dimension lie the channels of one group: name the rows of each
            row = rows.reshape(groups, 1, -1, 1).expand(-1, len(columns), -1, -1)
            at = torch.cat([row, columns.reshape(1, -1, 1, 1).expand_as(row)], -1)
            by_column = ((0, 1), at.flatten(0, 1))
        out_of, into = (by_row, by_column) if transposed else (by_column, by_row)
        if labels is not None:
            what = "several of its units share one weight"
            ids = self.labels.along(labels, [d for d in range(x.dim()) if d != 1], what)
            self.consume(view, *out_of, ids.expand(*(x.size(1) if d == 1 else 1 for d in range(x.dim()))), x)
        ids = self.produce(view, *into)
        self.write(call.out[0], ids.reshape(-1, *[1] * (x.dim() - 2)))
        if bias is not None and self.weight(bias) is not None:
            self.affine("bias", bias.reshape(-1, *[1] * (x.dim() - 2)), call.out[0])

    def _embedding(self, call: _Call) -> None:
        weight = call.arguments["weight"]
        view = self.weight(weight)
        ids = None
        if view is not None:
            ids = self.produce(view, (1,), torch.arange(weight.size(1)).reshape(-1, 1, 1), embedding=True)
        self.write(call.out[0], ids)

    def _attention(self, call: _Call) -> None:
        query, key, value, out = *(call.arguments[name] for name in ("query", "key", "value")), call.out[0]
        for tensor in (query, key):
            labels = self.read(tensor)
            if labels is not None:
                reason = f"its units are multiplied by those of another layer in {call.op}"
                self.labels.leave(self.labels.members(labels), reason)
        labels = self.read(value)
        if labels is not None:
            labels = self.labels.along(labels, [value.dim() - 2], f"{call.op} mixes its units")
            if labels.size(1) not in (1, out.size(1)):  # a value head serves several query heads
                labels = labels.repeat_interleave(out.size(1) // labels.size(1), 1)
        self.write(out, labels)

    def _norm(self, call: _Call) -> None:
        """Units pass and get the norm's parameters; those that are normalised together are coupled."""
        x, out = call.arguments["input"], call.out[0]
        labels = self.read(x)
        if labels is None:
            self.write(out, None)
            return
        self.write(out, labels, [self.value(x)])
        per_channel = [1] * (x.dim() - 2)
        together = None
        if "batch_norm" not in call.name:
            if call.name.endswith("group_norm"):
                full = labels.expand(x.shape).reshape(x.size(0), call.arguments["group"], -1)
                together, dims = full, [2]
            else:
                together, dims = labels, list(range(x.dim() - len(call.arguments["normalized_shape"]), x.dim()))
                per_channel = []
            _, several = self.labels.common(together, dims)
            for number in self.labels.members(together.where(several, 0)):
                self.labels.coupled.setdefault(number, set()).add(self.where() or call.op)
        for name in ("weight", "bias", "running_mean", "running_var"):
            parameter = call.arguments.get(name)
            if parameter is not None:
                self.affine("norm", parameter.reshape(*parameter.shape, *per_channel), out)

    def _pointwise(self, call: _Call) -> None:
        found: Tensor | None = None
        labelled = []
        for tensor in call.tensors:
            labels = self.read(tensor)
            if labels is not None:
                product = call.name in ("mul", "div")
                met = labels if found is None else found
                found = self.labels.meet(met, labels, call.op, self.where(), product=product)
                labelled.append(tensor)
        units = [tensor for tensor in labelled if bool((self.full(tensor) > 0).any())]
        passes = call.name in _LINEAR and len(units) == 1
        nonlinear = call.name not in _LINEAR or (call.name in ("mul", "div") and len(units) > 1)
        sources = [self.value(tensor) for tensor in units] if passes else []
        for tensor in call.out:
            self.write(tensor, found, sources, nonlinear=nonlinear)
        for tensor in call.tensors:
            if self.weight(tensor) is not None and call.name not in ("clone", "_to_copy"):
                kind: Kind = "bias" if call.name in ("add", "sub", "rsub") else "norm"
                self.affine(kind, tensor, call.out[0])

    def _move(self, call: _Call) -> None:
        """Move the labels as the elements move."""

        def of(key: str, value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.cpu() if key in _STAY else self.full(value).double()
            if isinstance(value, (list, tuple)):
                return [of(key, item) for item in value]
            return value

        arguments = {key: of(key, value) for key, value in call.arguments.items() if key != "value"}
        function = getattr(torch.ops.aten, call.name)
        moved = function(**arguments)
        self.write(call.out[0], moved.long(), [self.value(tensor) for tensor in call.tensors])

    def _reduce(self, call: _Call) -> None:
        """Units pass where the reduction is over positions, not over channels."""
        x = call.arguments.get("self", call.arguments.get("input"))
        labels = self.read(x)
        if labels is None:
            for tensor in call.out:
                self.write(tensor, None)
            return
        pool = _POOLS.match(call.name)
        dims = call.arguments.get("dim")
        if pool:
            spatial = re.search(r"([123])d", call.name)
            dims = list(range(x.dim() - int(spatial[1]), x.dim())) if spatial else None
        dims = [dims] if isinstance(dims, int) else list(dims or range(x.dim()))
        dims = [d % max(1, x.dim()) for d in dims]
        statistic = bool(pool) or call.name in _STATISTICS
        labels = self.labels.along(labels, dims, f"{call.op} mixes its units", statistic=statistic)
        for tensor in call.out:
            kept = labels if tensor.dim() == x.dim() else labels.squeeze(tuple(dims))
            self.write(tensor, kept, [self.value(x)])
