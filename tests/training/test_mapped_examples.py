"""Images in a file give the batches that images in memory give, and are announced to the system before."""

import os

import pytest
import torch

from warmstart.decoding.cache import map_images
from warmstart.training.augmentation import flip
from warmstart.training.examples import Examples
from warmstart.training.mapped_examples import MappedExamples


def test_batches_are_those_of_memory(tmp_path):
    held, labels = torch.randint(256, (40, 3, 4, 6), dtype=torch.uint8), torch.arange(30)
    (tmp_path / "images").write_bytes(held.numpy().tobytes())
    images = map_images(tmp_path / "images", held.shape)[10:]
    scale = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)
    plain, mapped = (
        Examples(held[10:], labels, *scale),
        MappedExamples(images, labels, *scale, torch.arange(30), tmp_path / "images"),
    )
    chosen = torch.randperm(30)[:20]
    for one, other in (
        (plain, mapped),
        (plain.at(chosen), mapped.at(chosen)),
        (plain.at(slice(3, 9)), mapped.at(slice(3, 9))),
    ):
        assert len(one) == len(other)
        shuffled = [examples.shuffled(torch.Generator().manual_seed(1)) for examples in (one, other)]
        for pair in ((one, other), shuffled):
            results = []
            for examples in pair:
                torch.manual_seed(0)
                results.append(examples.batch(slice(1, 5), [flip]))
            assert all(x.equal(y) for x, y in zip(*results, strict=True))
        in_order = [list(examples.in_order(4)) for examples in (one, other)]
        assert all(x[0].equal(y[0]) and x[1].equal(y[1]) for x, y in zip(*in_order, strict=True))
    assert mapped.at(chosen).images is images


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot be told")
def test_the_system_is_told_of_each_image_once_and_a_batch_ahead(tmp_path, monkeypatch):
    (tmp_path / "images").write_bytes(bytes(12 * 48))
    images, scale = map_images(tmp_path / "images", (12, 3, 4, 4)), (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    mapped = MappedExamples(images[2:], torch.zeros(10), *scale, torch.arange(10), tmp_path / "images")
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, begin, size, advice: told.append(begin // size - 2))

    def batch(start, stop):
        told.clear()
        examples.stored(slice(start, stop))
        return list(told)

    examples = mapped
    assert [batch(0, 3), batch(3, 6), batch(6, 9), batch(9, 10)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8], [9], []]
    assert batch(0, 5) == list(range(10))  # once more from the start: what was read may be forgotten by now
    assert batch(5, 10) == []
    assert batch(0, 10) == batch(0, 10) == list(range(10))

    examples = mapped.at(torch.arange(9, -1, -1))  # another order, and a short batch first
    assert [batch(0, 2), batch(2, 6), batch(6, 10)] == [[9, 8, 7, 6], [5, 4, 3, 2, 1, 0], []]
    assert batch(3, 6) == [6, 5, 4, 3, 2, 1]  # not the one that was to come
