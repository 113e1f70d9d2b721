"""Nights over CIFAR-10: what a warm line costs against training from scratch every night, and what accuracy it has."""

import json
import os
from pathlib import Path

import pytest

from nights import night, rows

PHOTOGRAPHS = Path(os.environ.get("WARMSTART_DATA", Path(__file__).parents[3] / "shared/data")) / "cifar10"
RECIPE = {"epochs": None, "until": 0.95, "batch_size": 64, "lr": 3e-3, "promote": "always"}


def shards(folder, count, size):
    """CIFAR-10's first images as shards, one a night."""
    from pyarrow import parquet as pq

    folder.mkdir(exist_ok=True)
    table = pq.ParquetFile(next(PHOTOGRAPHS.glob("train*.parquet"))).iter_batches(size)
    for number, batch in zip(range(count), table, strict=False):
        file = folder / f"{number:02}.parquet"
        if not file.exists():
            import pyarrow as pa

            pq.write_table(pa.Table.from_batches([batch]), file)


def steps_and_accuracies(state):
    """Of each stage."""
    results = [json.loads(row["result"]) for row in rows(state, "SELECT result FROM runs ORDER BY stage")]
    return [result["steps"] for result in results], [result["test_accuracy"] for result in results]


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"{PHOTOGRAPHS} is not there")
def test_warm_nights_cost_less_than_cold_ones_at_no_lower_accuracy(tmp_path):
    data, nights, size = tmp_path / "data", 4, 400
    for number in range(1, nights + 1):
        shards(data, number, size)
        for method in ("dash", "cold"):
            night(data, tmp_path / method, method=method, **RECIPE)
    (dash, accuracies), (cold, from_scratch) = (steps_and_accuracies(tmp_path / name) for name in ("dash", "cold"))
    assert len(dash) == len(cold) == nights
    assert dash[0] == cold[0]
    assert sum(dash) < 0.9 * sum(cold)
    assert accuracies[-1] > from_scratch[-1] - 0.02
