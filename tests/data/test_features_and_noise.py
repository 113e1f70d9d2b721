"""Features and noise: what an image is made of, exactly, and that it is always the same data."""

import pytest
import torch

from commands import rows, warmstart
from warmstart.data.features_and_noise import PatchWorld, as_images, draw_examples
from warmstart.data.load import load
from warmstart.errors import InputError
from warmstart.streams.image_stream import image_stream
from warmstart.streams.settings import StreamSettings

WORLD = PatchWorld(classes=3, features=4, grid=3, patch=4, noise=2.0)


def test_features_and_noise_are_orthogonal_and_fill_the_patch():
    assert torch.allclose(WORLD.basis @ WORLD.basis.T, torch.eye(WORLD.size), atol=1e-5)
    assert WORLD.feature_vectors.shape == (3, 4, 48)
    assert len(WORLD.noise_basis) == 48 - 12


def test_an_example_is_its_features_its_noise_and_nothing_else():
    examples = draw_examples(WORLD, seed=0, count=60)
    assert examples.labels.tolist() == [i % 3 for i in range(60)]
    for patches, label, carried, noise in zip(
        examples.patches, examples.labels, examples.carried, examples.noise, strict=True
    ):
        held = patches[patches.any(dim=1)]
        assert len(held) == int(carried.sum()) + 1
        wanted = torch.cat([WORLD.feature_vectors[label][carried], noise[None]])
        assert torch.cdist(held, wanted).min(dim=1).values.max() < 1e-5
    assert (examples.noise @ WORLD.feature_vectors.flatten(0, 1).T).abs().max() < 1e-5
    places = {int(p.any(dim=1).nonzero()[0]) for p in examples.patches}
    assert len(places) > 1


def test_frequencies_and_the_length_of_noise_are_what_was_asked_for():
    examples = draw_examples(WORLD, seed=1, count=30_000)
    assert examples.noise.square().sum(dim=1).mean().sqrt().item() == pytest.approx(2.0, rel=0.01)
    probabilities = torch.from_numpy(WORLD.probabilities(1))
    for label in range(3):
        share = examples.carried[label::3].double().mean(dim=0)
        assert (share - probabilities[label]).abs().max() < 0.02  # 4 standard errors
    assert (probabilities.diff(dim=1) <= 0).all()
    assert probabilities.max() <= WORLD.max_probability


def test_fewer_examples_are_the_beginning_of_more_and_parts_differ():
    few, many = draw_examples(WORLD, 0, 10), draw_examples(WORLD, 0, 20)
    assert torch.equal(few.patches, many.patches[:10])
    assert not torch.equal(few.patches, draw_examples(WORLD, 0, 10, part=1).patches)
    assert not torch.equal(few.patches, draw_examples(WORLD, 1, 10).patches)


def test_a_patch_lies_in_its_place_of_the_image():
    patches = torch.zeros(1, 9, WORLD.size)
    patches[0, 5] = WORLD.feature_vectors[0, 0]  # second row, third column
    changed = (as_images(WORLD, patches)[0] != 128).any(dim=0).nonzero()
    assert changed.min(dim=0).values.tolist() == [4, 8]
    assert changed.max(dim=0).values.tolist() == [7, 11]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "classes is 1"),
        ({"features": 0}, "features is 0"),
        ({"max_probability": 1.2}, "max_probability is 1.2; it must be a finite number, at least 0 and at most 1"),
        ({"noise": -1.0}, "noise is -1.0; it must be a finite number"),
        ({"features": 25}, "features is 25; an image of 25 patches has room for 24; lower features"),
        (
            {"classes": 20},
            "20 classes of 20 features are 400; patches of 192 values have room for 188 beside the noise",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        PatchWorld.of(changes)


def test_the_stream_is_always_the_same_and_fills_many_stages():
    data = load("features-and-noise")
    assert data.fingerprint() == load("features-and-noise").fingerprint()
    assert data.train_images.shape == (4000, 3, 40, 40)
    assert data.test_images.shape == (2000, 3, 40, 40)
    assert data.test_labels.bincount().tolist() == [1000, 1000]
    clipped = (data.train_images == 0) | (data.train_images == 255)
    assert clipped.float().mean() < 0.01
    assert image_stream(data, StreamSettings(stages=80, stage_size=50), seed=0).stages == 80
    assert load("features-and-noise", image_size=20).image_size == 20
    with pytest.raises(InputError, match="did you mean 'features-and-noise'"):
        load("features-and-nois")


def test_compare_takes_it(tmp_path):
    small = ["--stages", 1, "--stage-size", 20, "--seeds", 1, "--methods", "warm", "--threads", 1, "--until", 0.8]
    assert warmstart("compare", "--data", "features-and-noise", *small, "--jobs", 1, "--out", tmp_path) == 0
    assert [(row["data"], row["model"]) for row in rows(tmp_path)] == [("features-and-noise", "small-cnn")]
