"""The states that most tests of nights begin with; a file of another beginning has its own."""

import pytest

from nights import arrive, night


@pytest.fixture
def data(tmp_path):
    arrive(tmp_path / "data", 0, 60)
    return tmp_path / "data"


@pytest.fixture
def begun(data, tmp_path):
    """A promoted stage, and more data."""
    night(data, tmp_path / "state")
    arrive(data, 60, 75)
    return tmp_path / "state"


@pytest.fixture
def state(data, begun):
    """Two promoted stages."""
    night(data, begun)
    return begun
