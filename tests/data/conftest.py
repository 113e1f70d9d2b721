"""Where the real images are."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """The path of a real data set, or a skip where it is not."""
    root = Path(os.environ.get("WARMSTART_DATA", REPOSITORY / ".." / "shared" / "data"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"{path} is not there; WARMSTART_DATA names the folder of real images")
        return path

    return find
