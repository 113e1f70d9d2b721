from pathlib import Path

from warmstart.runs.key import RunKey

NAMES = ["a b", "a_b", "a/b", "a[b]", "a.b", "A_b", "a__b", "\udcff", "\udcfe", "\u00e9", "e" * 300, "e" * 301]


def test_two_runs_have_two_folders_also_where_capital_letters_are_small_ones():
    folders = {RunKey(method, 0, "sgd").folder(Path("out")).name.lower() for method in NAMES}
    assert len(folders) == len(NAMES)


def test_a_plain_name_is_the_folders_and_any_name_fits_a_file_system():
    assert RunKey("shrink-perturb", 3, "sgd").folder(Path("out")) == Path("out/runs/sgd-shrink-perturb-seed3")
    odd = RunKey("../\x1b[31m" + "\U0001f600" * 300, 0).folder(Path("out"))
    assert odd.parent == Path("out/runs")
    assert odd.name.isascii()
    assert odd.name.isprintable()
    assert len(odd.name) < 255
