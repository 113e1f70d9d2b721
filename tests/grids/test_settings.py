import pytest
import torch

from commands import warmstart
from warmstart.comparison.settings import CompareSettings
from warmstart.errors import InputError
from warmstart.grids import settings as module
from warmstart.reproduction.protocols import find_protocol
from warmstart.settings import from_file_and_flags
from warmstart.training.recipe import Recipe


def make_config(file, flags):
    return from_file_and_flags(CompareSettings, file, flags)


def test_the_defaults_are_those_of_the_design():
    config = make_config(None, {})

    assert config.methods == ("cold", "warm", "shrink-perturb", "dash")
    assert (config.data, config.model, config.optimizer, config.out) == ("digits", "small-cnn", "sgd", "out/compare")
    assert (config.stages, config.stage_size, config.seeds, config.batch_size) == (6, 50, 5, 16)
    assert (config.lr, config.momentum, config.weight_decay) == (1e-3, 0.9, 0)
    assert (config.until, config.max_epochs) == (0.999, 10_000)


def test_flags_win_over_the_file_and_the_file_over_the_defaults(write):
    config = make_config(write("stages: 3\nseeds: 7\n"), {"seeds": 2})

    assert (config.stages, config.seeds, config.stage_size) == (3, 2, 50)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lr: 1e-3", "lr", 1e-3),  # YAML 1.1 takes this for text
        ("lr: 1", "lr", 1.0),
        ("methods: cold, dash[alpha=0.1,lambda=0.05]", "methods", ("cold", "dash[alpha=0.1,lambda=0.05]")),
        ("methods: [cold, warm]", "methods", ("cold", "warm")),
        ("jobs: 2", "jobs", 2),
        ("jobs: auto", "jobs", "auto"),
        ("image_size: null", "image_size", None),
        ("image_size: 48", "image_size", 48),
        ("image_size: 48X64", "image_size", "48x64"),
        ("image_size: [48, 64]", "image_size", "48x64"),
        ("image_size: 48x48", "image_size", 48),
        ("{image_size: 48, fit: crop}", "fit", "crop"),
        ("skip_unreadable: yes", "skip_unreadable", True),
        ("", "stages", 6),
    ],
)
def test_values_of_a_file(write, text, key, value):
    assert getattr(make_config(write(text), {}), key) == value


def test_a_method_is_written_in_one_way_however_it_was_typed():
    config = make_config(None, {"methods": " dash[ lambda=0.05, alpha=0.3 ] , shrink-perturb[variant=dash]"})

    assert config.methods == ("dash[lambda=0.05]", "shrink-perturb")


def alphas(count):
    return ", ".join(f"'dash[alpha={number / count}]'" for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage_sise: 3", "key 'stage_sise' is unknown; did you mean 'stage_size'?"),
        ("stage-size: 3", "key 'stage-size' is unknown; did you mean 'stage_size'?"),
        ("methods: [cold, dsh]", "method 'dsh' is unknown; did you mean 'dash'?"),
        ("methods: cold,cold", "'cold' appears twice"),
        ("methods: dash,dash[alpha=0.3]", "'dash' appears twice"),
        ("methods: ''", "methods is empty"),
        ("methods: 5", "methods is 5"),
        ("methods: dash[alpha=7]", "alpha is 7.0; it must be a finite number, above 0 and at most 1"),
        ("methods: dash[alfa=0.1]", "dash has no setting 'alfa'; did you mean 'alpha'?"),
        ("methods: dash[alpha=0.1", "no closing bracket"),
        ("optimizer: adm", "optimizer 'adm' is unknown; did you mean 'adamw'?"),
        ("lr: .nan", "lr is nan; it must be a finite number, above 0"),
        ("lr: .inf", "lr is inf; it must be a finite number, above 0"),
        ("lr: 0", "lr is 0.0; it must be a finite number, above 0"),
        ("lr: fast", "lr is 'fast'"),
        ("momentum: 1", "momentum is 1.0; it must be a finite number, at least 0 and below 1"),
        ("weight_decay: -1", "weight_decay is -1.0; it must be a finite number, at least 0"),
        ("until: 99.9", "until is 99.9; it must be a finite number, above 0 and at most 1"),
        ("margin: -0.1", "margin is -0.1"),
        ("stages: 0", "stages is 0; it must be at least 1"),
        ("stages: 2.5", "stages is 2.5"),
        ("seeds: [0, 1]", "seeds is [0, 1]"),
        ("seeds: true", "seeds is True; give a number or a name, not true or false"),
        ("seeds: yes", "seeds is 'yes'"),
        ("seeds: 1000000000", "seeds is 1000000000; it must be at least 1 and at most 10000"),
        (f"seeds: {'9' * 4000}", "seeds is 9999999999"),
        (f"seeds: {'9' * 5000}", "not valid YAML"),
        ("seeds: !!int abc", "not valid YAML"),
        ("seeds: 1:30", "seeds is '1:30'"),
        ("stages: !!timestamp abc", "not valid YAML"),
        ("out: !!binary aGVsbG8=", "not valid YAML"),
        ("lr: 2026-11-30", "lr is '2026-11-30'"),
        ("lr: 0.1\nlr: 0.2", "not valid YAML (key 'lr' stands there twice)"),
        ("out: &a a\ndata: *a", "not valid YAML (it refers to another part of itself with '*'; write the values out)"),
        ("methods: " + "[" * 3000, "not valid YAML"),
        (f"methods: [{alphas(19_999)}]", "methods has 19,999 items; give at most 10,000"),
        ("methods: [cold, cold]", "methods: 'cold' appears twice"),
        (f"methods: [{alphas(20)}]\nseeds: 9999", "methods x seeds are 199,980 runs; ask for at most 100,000"),
        ("lr: " + "1" * 2**20, "bytes are no configuration; check its path"),
        ("batch_size: -4", "batch_size is -4; it must be at least 1"),
        ("max_seeds: 4", "max_seeds is 4, below seeds, 5; ask for at least as many"),
        ("max_seeds: 0", "max_seeds is 0; it must be at least 1 and at most 10000"),
        ("max_epochs: 0", "max_epochs is 0; it must be at least 1"),
        ("image_size: 0", "image_size is 0; it must be at least 1"),
        ("image_size: 10x0", "image_size is 10x0; it must be at least 1"),
        ("image_size: 10x5000", "image_size is 10x5000; it must be at most 4096 a side"),
        ("image_size: small", "image_size is 'small'; give N for squares or HxW (height x width), such as 48x64"),
        ("image_size: 1x2x3", "image_size is '1x2x3'; give N for squares or HxW"),
        ("image_size: 3.5", "image_size is 3.5; give N for squares or HxW"),
        ("fit: crop", "fit is crop, which has no effect without a size; add --image-size N or HxW"),
        ("{image_size: 8, fit: squeeze}", "fit 'squeeze' is unknown"),
        ("cache: ''", "cache is empty"),
        ("image_size: 100000", "image_size is 100000; it must be at least 1 and at most 4096"),
        ("jobs: 0", "jobs is '0'; it must be 'auto' or a whole number, at least 1 and at most 1024"),
        ("jobs: 1e9", "jobs is '1000000000.0'; it must be"),
        ("threads: 999999999999999999999", "threads is '999999999999999999999'; it must be 'auto' or a whole number"),
        ("threads: many", "threads is 'many'; it must be 'auto' or a whole number, at least 1"),
        ("out: ''", "out is empty"),
        ("out: null", "out is None"),
        ("data: ' '", "data is empty"),
        ("- stages", "must hold keys and values"),
        ("stages: [1", "not valid YAML"),
        ("stages: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line_that_names_the_file(write, text, message):
    file = write(text)
    with pytest.raises(InputError) as caught:
        make_config(file, {})

    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(InputError, match=r"nosuch.yaml: cannot be read \(No such file or directory\)"):
        make_config(tmp_path / "nosuch.yaml", {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid YAML"):
        make_config(tmp_path / "binary.yaml", {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
@pytest.mark.parametrize("name", ["cuda", "cuda:3", "gpu"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(InputError, match=f"device '{name}' is not there; this machine has cpu"):
        make_config(None, {"device": name}).resolved_device()


def test_threads_are_shared_out_among_the_runs_whatever_jobs_says(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 32)

    for jobs in ("auto", 1, 4):
        assert CompareSettings(methods=("cold", "dash"), seeds=5, jobs=jobs).resolved_threads() == 3
    assert CompareSettings(seeds=50).resolved_threads() == 1
    assert CompareSettings(threads=7).resolved_threads() == 7


def test_threads_are_shared_out_among_the_runs_of_the_first_look(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 32)
    assert CompareSettings(methods=("cold", "dash"), seeds=5, max_seeds=50).resolved_threads() == 3


def test_a_protocol_stands_for_a_whole_recipe_which_flags_and_files_change(write, tmp_path):
    named = CompareSettings.of({"protocol": "practice", "epochs": 3})
    assert (named.epochs, named.schedule, named.warmup, named.nesterov, named.augment) == (
        *(3, "cosine", 1, True),
        ("crop", "flip"),
    )
    assert (named.lr, named.weight_decay, named.batch_size) == (0.1, 5e-4, 64)
    assert CompareSettings.of({"protocol": "practice", "stage_size": 1000}).batch_size == 128

    file = write("protocol: practice\nlr: 0.2\nstages: 3")
    assert make_config(file, {"warmup": 2}).model_dump(include={"lr", "warmup", "epochs", "stages"}) == {
        "lr": 0.2,
        "warmup": 2,
        "epochs": 30,
        "stages": 3,
    }
    recorded = write("lr: 0.2\nepochs: 7")
    assert make_config(recorded, {"protocol": "practice"}).lr == 0.1
    with pytest.raises(InputError, match=r"protocol 'practise' is unknown; did you mean 'practice'\?"):
        CompareSettings.of({"protocol": "practise"})


def test_incremental_is_the_recipe_of_the_papers_table_and_sota_that_of_its_appendix():
    for name in ("incremental", "sota"):
        ours = CompareSettings.of({"protocol": name})
        theirs = find_protocol(name, "cifar10").recipe
        assert {key: getattr(ours, key) for key in Recipe.described()} == {
            key: getattr(theirs, key) for key in Recipe.described()
        }


def test_a_list_of_numbers_is_a_flag_like_any_other(tmp_path):
    small = ["--stages", 2, "--stage-size", 30, "--methods", "warm", "--seeds", 1, "--epochs", 4, "--schedule", "step"]
    assert (
        warmstart("compare", *small, "--threads", 1, "--milestones", "1,3", "--jobs", 1, "--out", tmp_path / "out") == 0
    )
    assert "milestones:\n- 1\n- 3\n" in (tmp_path / "out" / "config.yaml").read_text()
    assert CompareSettings.of({"milestones": 3, "epochs": 4, "schedule": "step"}).milestones == (3,)
