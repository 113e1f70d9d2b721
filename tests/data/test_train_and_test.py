"""Parts: which is which, the share held out, and what labels mean."""

import numpy as np
import pytest
import torch

from warmstart.data.images import ImageData
from warmstart.data.train_and_test import in_parts, index_labels, order_parts
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
    with pytest.raises(InputError, match="x: the test label '2' is none of the 2 classes"):
        index_labels("x", np.array([1, 0]), np.array([2]), ["a", "b"])
    with pytest.raises(InputError, match="x: the training label '2' is none of the 2 classes"):
        index_labels("x", np.array([1, 2]), None, ["a", "b"])


def test_a_class_of_the_test_part_alone_is_a_class() -> None:
    train, test, classes = index_labels("x", np.array([1, 3]), np.array([3, 2]))
    assert (train.tolist(), test.tolist(), classes) == ([0, 2], [2, 1], ("1", "2", "3"))


def test_there_need_be_no_test_part() -> None:
    def load(labels: list[int]) -> ImageData:
        return in_parts("x", torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor(labels), None, None, "ab")

    data = load([0, 1, 0])
    assert (len(data.train_labels), data.test_images.shape, data.has_test_part) == (3, (0, 1, 2, 2), False)
    assert data.fingerprint() == load([0, 1, 0]).fingerprint() != load([0, 1, 1]).fingerprint()
