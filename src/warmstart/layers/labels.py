"""Which unit each element of an activation belongs to: integer labels that follow it through a forward pass.

Every output of a layer has an id above 0. Where outputs of several layers are added or multiplied one by one, the
result gets an id of its own, with theirs as its parents: what reads it reads all of them. 0 is no unit's (the input, a
position embedding). Where different units flow into one number (a sum over channels, a Fourier transform) it is a
mixture's, below 0. A label tensor broadcasts: a dimension along which labels do not change has size 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_FAR = 2**62


@dataclass(frozen=True)
class Mixture:
    """A number that several units flow into."""

    members: frozenset[int]
    what: str
    """What mixed them, as a clause."""
    statistic: bool
    """Whether it is a mean or the like, with which the same units may be normalised."""


def narrowed(labels: Tensor) -> Tensor:
    """A view of size 1 along each dimension in which labels do not change."""
    for dim in range(labels.dim()):
        first = labels.narrow(dim, 0, 1)
        if labels.size(dim) > 1 and bool((labels == first).all()):
            labels = first
    return labels


class Labels:
    """The ids of one forward pass, and the relations between them."""

    def __init__(self) -> None:
        self.ancestors: list[frozenset[int]] = [frozenset()]
        """By id, the outputs of layers that flow into it; of such an output, itself."""
        self.meetings: list[tuple[tuple[frozenset[int], ...], bool]] = []
        """Sides that were added, or multiplied if the second is True: one id each, or many where a mixture met them."""
        self.left: dict[int, str] = {}
        """Ids that no weights of their own read, each with the reason."""
        self.coupled: dict[int, set[str]] = {}
        """Ids that were normalised together with other units, and the layers or operations that did."""
        self._roots = [0]
        self._joined: dict[tuple[tuple[int, ...], bool], int] = {}
        self._mixtures = [Mixture(frozenset(), "", statistic=False)]

    def new(self, count: int) -> Tensor:
        """Make ids (count,) for the outputs of a layer."""
        first = len(self.ancestors)
        self.ancestors += [frozenset((number,)) for number in range(first, first + count)]
        self._roots += range(first, first + count)
        return torch.arange(first, first + count)

    def mixture(self, label: int) -> Mixture:
        """The mixture of a label below 0."""
        return self._mixtures[-label]

    def members(self, labels: Tensor | Iterable[int]) -> frozenset[int]:
        """The ids above 0 that flow into elements with these labels, also through mixtures."""
        found: set[int] = set()
        for label in labels.unique().tolist() if isinstance(labels, Tensor) else labels:
            found |= self.mixture(label).members if label < 0 else {label}
        return frozenset(found - {0})

    def leave(self, ids: Iterable[int], reason: str) -> None:
        """Note why units have no weights of their own that read them; the first reason stays."""
        for number in ids:
            self.left.setdefault(number, reason)

    def mix(self, labels: Tensor | Iterable[int], what: str, *, statistic: bool = False) -> int:
        """Let all elements with these labels flow into one number, by the operation that ``what`` names as a clause.

        Returns:
            The mixture's label; 0 if there are no labels.
        """
        numbers = set(labels.unique().tolist() if isinstance(labels, Tensor) else labels) - {0}
        if not numbers:
            return 0
        if len(numbers) == 1 and min(numbers) < 0:
            return int(min(numbers))
        statistic = statistic and all(self.mixture(n).statistic for n in numbers if n < 0)
        self._mixtures.append(Mixture(self.members(numbers), what, statistic))
        return -(len(self._mixtures) - 1)

    def common(self, labels: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The one label that all elements along some dimensions share; elements without a label do not count.

        Returns:
            The labels with these dimensions of size 1, 0 where there are several, and where that is.
        """
        if not dims:
            return labels, torch.zeros_like(labels, dtype=torch.bool)
        high = labels.where(labels != 0, -_FAR).amax(tuple(dims), keepdim=True)
        low = labels.where(labels != 0, _FAR).amin(tuple(dims), keepdim=True)
        found = high.where(high == low, 0)
        several = low < high
        if several.any():
            rows = labels.movedim(tuple(dims), tuple(range(-len(dims), 0))).flatten(-len(dims))
            rows = rows[several.movedim(tuple(dims), tuple(range(-len(dims), 0))).flatten(-len(dims)).squeeze(-1)]
            kinds, kind_of = rows.unique(dim=0, return_inverse=True)
            values = torch.tensor([self._one(set(kind) - {0}) for kind in kinds.tolist()])
            found[several] = values[kind_of]
            several = several & (found == 0)
        return found, several

    def along(self, labels: Tensor, dims: Sequence[int], what: str, *, statistic: bool = False) -> Tensor:
        """The labels after a reduction over some dimensions, which get size 1; a mixture's where several units meet."""
        found, several = self.common(labels, dims)
        if several.any():
            mixed = labels.where(several, 0)
            found = found.where(~several, self.mix(mixed, what, statistic=statistic))
        return found

    def meet(self, left: Tensor, right: Tensor, what: str, where: str, *, product: bool) -> Tensor:
        """The labels of an elementwise sum, or product, of two tensors, in the layer ``where``."""
        left, right = torch.broadcast_tensors(left, right)
        found = left.where(left != 0, right)
        both = (left != 0) & (right != 0) & (left != right)
        if not both.any():
            return found
        pairs, pair_of = torch.stack([left[both], right[both]], 1).unique(dim=0, return_inverse=True)
        values = torch.tensor(self._pairs(pairs.tolist(), what, where, product))
        found[both] = values[pair_of]
        return found

    def _pairs(self, pairs: list[list[int]], what: str, where: str, product: bool) -> list[int]:
        """The labels of pairs that meet: joined where one to one, as in a sum or a gate, else passed to `leave`."""
        partners: dict[tuple[int, int], set[int]] = {}  # (side, root) -> the roots that it meets
        for a, b in pairs:
            if a > 0 and b > 0:
                partners.setdefault((0, self._root(a)), set()).add(self._root(b))
                partners.setdefault((1, self._root(b)), set()).add(self._root(a))
        roots_in = {
            label: {self._root(n) for n in self.mixture(label).members} for pair in pairs for label in pair if label < 0
        }
        same: list[tuple[int, int]] = []
        found = []
        met_mixture: dict[int, set[int]] = {}
        for a, b in pairs:
            if a < 0 and b < 0:
                found.append(self.mix((a, b), f"{what} mixes its units"))
            elif a < 0 or b < 0:
                unit, label = max(a, b), min(a, b)
                if self.mixture(label).statistic and self._root(unit) in roots_in[label]:
                    self.coupled.setdefault(unit, set()).add(where or what)
                else:
                    self.leave(self.mixture(label).members, self.mixture(label).what)
                    met_mixture.setdefault(label, set()).add(unit)
                found.append(unit)
            elif self._root(a) == self._root(b):
                found.append(self._join((a, b), product))
            else:
                left_spreads = len(partners[0, self._root(a)]) > 1
                right_spreads = len(partners[1, self._root(b)]) > 1
                if not (left_spreads or right_spreads):
                    same.append((a, b))
                    found.append(self._join((a, b), product))
                    continue
                reason = f"one of its units meets several others in {what}"
                self.leave([n for n, spreads in ((a, left_spreads), (b, right_spreads)) if spreads], reason)
                self.meetings.append(((frozenset({a}), frozenset({b})), product))
                one = 0 if left_spreads and right_spreads else b if left_spreads else a
                found.append(one or self.mix((a, b), reason))
        self.meetings += [
            ((frozenset(ids), self.mixture(label).members), product) for label, ids in met_mixture.items()
        ]
        for a, b in same:
            self._roots[self._root(a)] = self._root(b)
        return found

    def _one(self, ids: set[int]) -> int:
        """The id of units that have met before, or 0."""
        roots = {self._root(number) if number > 0 else number for number in ids}
        return self._join(tuple(sorted(ids)), product=False) if len(roots) == 1 and min(ids) > 0 else 0

    def _join(self, parents: tuple[int, ...], product: bool) -> int:
        """The id that its parents flow into, the same whenever they meet again."""
        if (parents, product) not in self._joined:
            number = len(self.ancestors)
            self.ancestors.append(frozenset().union(*(self.ancestors[parent] for parent in parents)))
            self._roots.append(self._root(parents[0]))
            self._joined[parents, product] = number
            self.meetings.append((tuple(frozenset({parent}) for parent in parents), product))
        return self._joined[parents, product]

    def _root(self, number: int) -> int:
        """The representative of all ids that have met one to one."""
        while self._roots[number] != number:
            self._roots[number] = number = self._roots[self._roots[number]]
        return number
