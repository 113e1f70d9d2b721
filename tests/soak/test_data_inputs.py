"""A sample of the damaged data; `data_inputs.py` as a script tries as many as one likes."""

import random
from itertools import islice
from pathlib import Path

from data_inputs import damaged_inputs, failures


def test_damaged_data_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    assert dict(failures(0, range(60), tmp_path)) == {}


def test_damaged_inputs_are_made_again_from_their_seed(tmp_path: Path) -> None:
    def made(name: str) -> list[dict[str, bytes]]:
        inputs = islice(damaged_inputs(random.Random(1), tmp_path / name), 100)
        return [{file.name: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} for path in inputs]

    assert made("a") == made("b")
