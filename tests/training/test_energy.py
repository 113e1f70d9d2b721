"""Energy is the difference of counters that begin anew; where nothing counts, it is NaN."""

import math

import pytest
import torch

from warmstart.training import energy
from warmstart.training.energy import EnergyMeter, share_device

CPU = torch.device("cpu")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Counters of two packages and a part of one, as Linux has them: in microjoules, up to 1000 J."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")

    def count(**joules):
        for name, value in joules.items():
            (tmp_path / f"intel-rapl:{name[1:].replace('_', ':')}" / "energy_uj").write_text(f"{int(value * 1e6)}\n")

    count(p0=100, p0_0=50, p1=990)
    return count


def test_packages_are_added_and_counters_begin_anew(packages):
    meter = EnergyMeter(CPU)
    packages(p0=130, p0_0=70, p1=5)
    assert meter.since_last() == pytest.approx(30 + 15)
    assert meter.since_last() == 0
    packages(p0=131, p1=5)
    assert meter.since_last() == pytest.approx(1)


def test_runs_that_share_a_device_share_its_energy(packages, monkeypatch):
    monkeypatch.setattr(energy, "_sharing", 1)
    share_device(2)
    meter = EnergyMeter(CPU)
    packages(p0=120)
    assert meter.since_last() == pytest.approx(10)


def test_nothing_is_known_where_nothing_counts_or_a_counter_fails(packages, tmp_path, monkeypatch):
    meter = EnergyMeter(CPU)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert math.isnan(meter.since_last())
    assert math.isnan(EnergyMeter(torch.device("meta")).since_last())
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nowhere")
    assert math.isnan(EnergyMeter(CPU).since_last())
