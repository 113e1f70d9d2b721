"""The examples in the docstrings of the face run, and give what they say."""

import doctest

import pytest
import torch

import warmstart as ws

GIVEN = {"torch": torch, "ws": ws}
EXAMPLES = [
    test
    for name in dir(ws)
    if getattr(getattr(ws, name), "__module__", "").startswith("warmstart.")
    for test in doctest.DocTestFinder(recurse=False).find(getattr(ws, name), f"ws.{name}", globs=GIVEN)
    if test.examples
]


def test_there_are_examples():
    assert {"ws.dash_", "ws.GradientEMA", "ws.oldest_first", "ws.validate"} <= {test.name for test in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example):
    said = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)
