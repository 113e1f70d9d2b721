"""Images in a file give the batches that images in memory give."""

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
