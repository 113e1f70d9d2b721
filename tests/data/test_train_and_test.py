"""Parts: which is which, the share held out, and what labels mean."""

import numpy as np
import pytest
import torch

from warmstart.data.train_and_test import index_labels, order_parts, with_test_part
from warmstart.errors import InputError


def test_the_test_part_is_preferred_to_the_validation_part() -> None:
    assert order_parts(["Valid", "extra", "Test", "Train"]) == ("Train", ["Test", "Valid"])
    assert order_parts(["a", "b"]) == (None, [])


def test_labels_are_numbered_and_keep_their_names() -> None:
    train, test, classes = index_labels("x", np.array([7, -2, 7, 40]), np.array([40, -2]))
    assert (train.tolist(), test.tolist(), classes) == ([1, 0, 1, 2], [2, 0], ("-2", "7", "40"))
    train, test, classes = index_labels("x", np.array([2, 0]), None, ["a", "b", "c"])
    assert (train.tolist(), test, classes) == ([2, 0], None, ("a", "b", "c"))
    train, _, classes = index_labels("x", np.array(["dog", "cat"]), None)
    assert (train.tolist(), classes) == ([1, 0], ("cat", "dog"))


def test_labels_without_meaning_are_refused() -> None:
    with pytest.raises(InputError, match="x: the test label '3' occurs in no training example"):
        index_labels("x", np.array([1, 2]), np.array([3]))
    with pytest.raises(InputError, match="x: the training label '2' is none of the 2 classes"):
        index_labels("x", np.array([1, 2]), None, ["a", "b"])


def test_a_fifth_of_each_class_is_given_up_and_always_the_same() -> None:
    labels = torch.tensor([0] * 100 + [1] * 10 + [2] * 2 + [3])
    images = torch.arange(113, dtype=torch.uint8)[:, None, None, None]
    data = with_test_part("x", images, labels, None, None, "abcd")
    assert data.test_labels.bincount(minlength=4).tolist() == [20, 2, 1, 0]
    assert sorted([*data.train_images.flatten().tolist(), *data.test_images.flatten().tolist()]) == list(range(113))
    assert data.test_images[:20].flatten().tolist() != list(range(20))
    assert with_test_part("x", images, labels, None, None, "abcd").fingerprint() == data.fingerprint()
    assert torch.equal(labels[data.test_images.flatten().long()], data.test_labels)


def test_single_examples_cannot_be_given_up() -> None:
    with pytest.raises(InputError, match="too few examples to hold out 20%"):
        with_test_part("x", torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]), None, None, "ab")
