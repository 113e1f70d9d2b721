"""A sample of the damaged data; `data_inputs.py` as a script tries as many as one likes."""

import random
from pathlib import Path

from data_inputs import damaged_inputs, failures


def test_damaged_data_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    assert dict(failures(0, range(60), tmp_path)) == {}


def test_damaged_inputs_are_made_again_from_their_seed(tmp_path: Path) -> None:
    first, second = (
        [
            path.read_bytes()
            for path, _ in zip(damaged_inputs(random.Random(1), tmp_path / name), range(20), strict=False)
            if path.is_file()
        ]
        for name in "ab"
    )
    assert first == second
