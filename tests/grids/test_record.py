import re

import pytest
import torch
import yaml

from warmstart.comparison.settings import CompareRecord, CompareSettings
from warmstart.errors import InputError
from warmstart.grids import settings as module
from warmstart.grids.record import Provenance, check_output, settled, write_record
from warmstart.settings import from_file_and_flags


def recorded(fingerprint="f00d", **settings):
    chosen = CompareSettings.of({"device": "cpu", "threads": 1, "methods": ("cold", "dash"), **settings})
    return CompareRecord(settings=chosen, data_fingerprint=fingerprint, provenance=Provenance.here())


def settle_output(out, now):
    warnings = check_output(out, now)
    write_record(out, now)
    return warnings


def test_what_is_written_repeats_the_comparison(tmp_path):
    now = recorded(lr=0.02, out=str(tmp_path))
    assert settle_output(tmp_path, now) == []

    again = from_file_and_flags(CompareSettings, tmp_path / "config.yaml", {})
    assert again == now.settings
    assert CompareRecord.read(tmp_path) == now
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["recorded"]["torch"] == torch.__version__
    assert written["recorded"]["data_fingerprint"] == "f00d"


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
    how = ["jobs", "executor", "ray_address", "gpus_per_run", "track", "out"]
    # What a protocol stands for is compared, and a cache holds what the data are.
    assert set(CompareSettings.names_of("running")) == {*how, "protocol", "cache", "diagnose"}
    assert CompareSettings.names_of("reading") == ["margin"]
    assert CompareSettings.names_of("extensible") == ["methods", "seeds"]


def test_methods_and_seeds_may_be_added_and_how_it_runs_may_change(tmp_path):
    settle_output(tmp_path, recorded(seeds=2, jobs=1))

    more = recorded(seeds=3, methods=("warm", "dash", "cold"), jobs=2, margin=0.01, out="elsewhere")
    assert settle_output(tmp_path, more) == []
    assert CompareRecord.read(tmp_path) == more


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


def test_the_most_seeds_may_be_raised_and_not_lowered(tmp_path):
    for now in ({}, {"max_seeds": 10}, {"max_seeds": 20}):
        assert settle_output(tmp_path, recorded(**now)) == []
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (config["seeds"], config["max_seeds"]) == (5, 20)
    for lower in ({}, {"max_seeds": 10}):
        with pytest.raises(InputError, match="has max_seeds 20: it may be raised, not lowered or left out"):
            settle_output(tmp_path, recorded(**lower))


def test_seeds_that_may_be_added_have_their_runs_numbers_whenever_they_are(tmp_path):
    plain, added = recorded(seeds=3), recorded(seeds=2, max_seeds=3)
    assert plain.identities() == added.identities()
    assert plain.settings.runs() == added.settings.runs()
    assert added.settings.runs(2) == plain.settings.runs()[:4]
    assert (plain.settings.looks, added.settings.looks) == ((3,), (3,))


def test_changed_data_under_the_same_name_is_noticed(tmp_path):
    settle_output(tmp_path, recorded())

    with pytest.raises(InputError, match="the data at 'digits' has changed since the first start"):
        settle_output(tmp_path, recorded(fingerprint="beef"))


def test_other_versions_are_warned_of_and_the_first_ones_stay_on_record(tmp_path):
    first = recorded()
    old = first.provenance.model_copy(update={"torch": "1.0"})
    settle_output(tmp_path, first.model_copy(update={"provenance": old}))

    for _ in range(2):
        (warning,) = settle_output(tmp_path, recorded())
        assert f"torch is {torch.__version__} now and was 1.0" in warning


def test_a_folder_that_does_not_name_its_processor_goes_on(tmp_path):
    settle_output(tmp_path, recorded())
    file = tmp_path / "config.yaml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "processor:" not in line))
    assert file.read_text().count("\n") == len(lines) - 1

    assert settle_output(tmp_path, recorded()) == []


def test_another_processor_is_warned_of_unless_the_first_one_is_not_known(tmp_path):
    first = recorded()
    for earlier, warnings in (("", 0), ("Another CPU", 1)):
        (out := tmp_path / f"{warnings} warnings").mkdir()
        old = first.provenance.model_copy(update={"processor": earlier})
        settle_output(out, first.model_copy(update={"provenance": old}))
        now = first.model_copy(update={"provenance": first.provenance.model_copy(update={"processor": "This CPU"})})
        assert len(settle_output(out, now)) == warnings


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


def test_a_folder_of_an_older_version_is_refused_in_one_line(tmp_path, write):
    write("stages: 3\nrecorded: {torch: '2.13.0'}")

    with pytest.raises(InputError, match="was written by an older warmstart; choose another --out"):
        settle_output(tmp_path, recorded())


def test_a_record_is_read_without_importing_what_it_names(tmp_path):
    now = recorded(methods="cold")
    theirs = now.settings.model_copy(update={"methods": ("cold", "no_such_module:Mine")})
    settle_output(tmp_path, now.model_copy(update={"settings": theirs}))

    assert CompareRecord.read(tmp_path).settings.methods == ("cold", "no_such_module:Mine")


@pytest.mark.parametrize("line", ["stages: three", "recorded: {kind: compare}", "lr: -1"])
def test_a_damaged_record_is_one_line_that_names_the_file(tmp_path, line):
    settle_output(tmp_path, recorded())
    file = tmp_path / "config.yaml"
    content = yaml.safe_load(file.read_text()) | yaml.safe_load(line)
    file.write_text(yaml.safe_dump(content))

    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: [^\n]*$"):
        CompareRecord.read(tmp_path)


def test_a_larger_grid_keeps_the_threads_of_the_first_start(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 16)
    first = settled(CompareSettings(seeds=2, device="cpu"), tmp_path)
    assert first.threads == 2
    settle_output(tmp_path, recorded().model_copy(update={"settings": first}))

    more = CompareSettings(seeds=4, device="cpu")
    assert settled(more, tmp_path).threads == 2
    assert settled(more, None).threads == 1  # 16 cores for 16 runs
    assert settled(CompareSettings(threads=5, device="cpu"), tmp_path).threads == 5
