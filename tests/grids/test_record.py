import pytest
import torch
import yaml

from warmstart.errors import InputError
from warmstart.grids import record as record_module
from warmstart.grids import settings
from warmstart.grids.record import record, settle_output, with_recorded_threads
from warmstart.grids.settings import CompareConfig, make_config, read_config


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return file

    return write


def recorded(fingerprint="f00d", **settings):
    return record(
        CompareConfig(**{"device": "cpu", "threads": 1, "methods": ("cold", "dash"), **settings}), fingerprint
    )


def test_what_is_written_repeats_the_comparison(tmp_path):
    now = recorded(lr=0.02, out=str(tmp_path))
    assert settle_output(tmp_path, now) == []

    again = make_config(tmp_path / "config.yaml", {})
    assert again == CompareConfig(device="cpu", threads=1, methods=("cold", "dash"), lr=0.02, out=str(tmp_path))
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["recorded"]["torch"] == torch.__version__
    assert written["recorded"]["data_fingerprint"] == "f00d"
    assert "recorded" not in read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data", "photos"),
        ("model", "mlp"),
        ("optimizer", "sam"),
        ("stages", 9),
        ("stage_size", 9),
        ("batch_size", 9),
        ("lr", 0.5),
        ("momentum", 0.5),
        ("weight_decay", 0.5),
        ("until", 0.5),
        ("max_epochs", 9),
        ("image_size", 9),
        ("label_column", "fine"),
        ("threads", 3),
    ],
)
def test_another_value_is_refused_by_the_name_of_its_key_and_the_old_file_stays(tmp_path, key, value):
    settle_output(tmp_path, recorded())
    before = (tmp_path / "config.yaml").read_bytes()

    with pytest.raises(InputError, match=f"holds another configuration: {key} is .* there and {value!r} now"):
        settle_output(tmp_path, recorded(**{key: value}))
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_every_key_but_those_that_change_no_number_is_compared():
    """A new key is compared unless someone decides otherwise here."""
    how = {"out", "jobs", "margin", "executor", "ray_address", "gpus_per_run", "track"}
    assert how == record_module._MAY_DIFFER
    assert record_module._EXTENSIBLE == ("methods", "seeds", "optimizers")


def test_methods_and_seeds_may_be_added_and_how_it_runs_may_change(tmp_path):
    settle_output(tmp_path, recorded(seeds=2, jobs=1))

    more = recorded(seeds=3, methods=("warm", "dash", "cold"), jobs=2, margin=0.01, out="elsewhere")
    assert settle_output(tmp_path, more) == []
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == more


@pytest.mark.parametrize(
    ("fewer", "message"),
    [
        ({"methods": ("cold", "warm")}, "also holds method dash: methods may be added, not dropped"),
        ({"seeds": 1}, "also holds seed 1: seeds may be added, not dropped"),
    ],
)
def test_methods_and_seeds_may_not_be_dropped(tmp_path, fewer, message):
    settle_output(tmp_path, recorded(seeds=2))

    with pytest.raises(InputError, match=message):
        settle_output(tmp_path, recorded(**{"seeds": 2, **fewer}))


def test_changed_data_under_the_same_name_is_noticed(tmp_path):
    settle_output(tmp_path, recorded())

    with pytest.raises(InputError, match="the data at 'digits' has changed since the first start"):
        settle_output(tmp_path, recorded(fingerprint="beef"))


def test_other_versions_are_warned_of_and_the_first_ones_stay_on_record(tmp_path):
    first = recorded()
    first["recorded"]["torch"] = "1.0"
    settle_output(tmp_path, first)

    for _ in range(2):
        (warning,) = settle_output(tmp_path, recorded())
        assert f"torch is {torch.__version__} now and was 1.0" in warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: 3", "was not written by a comparison"),
        ("[broken", "not valid YAML"),
        ("just text", "must hold keys and values"),
    ],
)
def test_a_folder_with_a_config_of_someone_elses_is_left_alone(tmp_path, write, text, message):
    file = write(text)

    with pytest.raises(InputError, match=message):
        settle_output(tmp_path, recorded())
    assert file.read_text() == text


def test_results_without_a_config_are_not_written_over(tmp_path):
    (tmp_path / "results.csv").write_text("precious")

    with pytest.raises(InputError, match=r"holds a results.csv without config.yaml"):
        settle_output(tmp_path, recorded())
    assert not (tmp_path / "config.yaml").exists()


def test_a_larger_grid_keeps_the_threads_of_the_first_start(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "available_cores", lambda: 16)
    first = CompareConfig(seeds=2, device="cpu")
    assert with_recorded_threads(first, tmp_path) == first
    settle_output(tmp_path, record(first, ""))

    more = with_recorded_threads(CompareConfig(seeds=4, device="cpu"), tmp_path)
    assert more.resolved_threads() == 2  # 16 cores for 16 runs would now be 1
    assert with_recorded_threads(CompareConfig(threads=5), tmp_path).threads == 5
