"""docs/serving.md: what it shows runs, from a state to another runtime."""

from pages import python_blocks
from PIL import Image


def test_the_page_runs_from_top_to_bottom(state, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").symlink_to(state)
    for name, image in zip(("a.png", "b.png"), trained.task.stage_data(0, 1).test.images[:2], strict=True):
        Image.fromarray(image[0].numpy()).save(name)
    blocks = [block for block in python_blocks("serving.md") if "digits" not in block]  # those are MLflow's
    assert len(blocks) == 5
    names = {}
    for block in blocks:
        exec(block, names)
    assert capsys.readouterr().out.startswith("2 images\n")
    assert names["logits"].shape == names["probabilities"].shape == (5, 10)
