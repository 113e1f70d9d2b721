"""The scripts of the recipes run as they stand and do what their pages say; tests/test_docs.py reads the pages."""

import copy
import logging
import os
import re
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

SCRIPTS = Path(__file__).parents[1] / "examples" / "recipes"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a recipe's script in a folder of its own, as a user does; gives its names and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name):
        names = runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return names, capsys.readouterr().out

    return run


def test_the_imagenet_script_acts_once_and_begins_its_schedule_again(run):
    _, first = run("imagenet_script")
    june, july = first.split("dash(")
    assert june == july[july.index("epoch 0") :]  # all epochs again, at the same rates
    assert june.startswith("epoch 0, learning rate 0.1\n")
    assert "old data has 25.5% of the average's weight" in july
    _, again = run("imagenet_script")
    assert again == ""


def test_an_interrupted_imagenet_script_goes_on_without_acting_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = runpy.run_path(str(SCRIPTS / "imagenet_script.py"))
    june, july = tmp_path / "june", tmp_path / "july"
    recipe["photograph"]("2026-06", images=10)
    recipe["train"](june, epochs=1)
    recipe["photograph"]("2026-07", images=10)
    save = torch.save

    def interrupt(states, file):
        if states["epoch"] == 2:
            raise KeyboardInterrupt
        save(states, file)

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recipe["train"](july, june / "checkpoint.pth", epochs=4)
    assert capsys.readouterr().out.count("dash(") == 1
    monkeypatch.setattr(torch, "save", save)
    recipe["train"](july, june / "checkpoint.pth", epochs=4)
    assert capsys.readouterr().out.split(",")[0] == "epoch 2"


def test_of_data_sorted_by_class_only_their_own_order_is_warned_of(run):
    _, out = run("sorted_by_class")
    as_it_is, *ordered = out.splitlines()
    assert as_it_is.startswith("as it is: the newest 200 examples, which weigh 52%, have 3 of 10 classes")
    assert len(ordered) == 4
    assert all(line.endswith(": in order, as far as classes tell") for line in ordered)


def test_a_head_that_grows_keeps_its_old_rows(run):
    names, out = run("new_class")
    head = torch.nn.Linear(8, 4)
    wider = names["grown"](head, 6)
    assert wider.weight.shape == (6, 8)
    assert torch.equal(wider.weight[:4], head.weight)
    assert torch.equal(wider.bias[:4], head.bias)
    old, new = (float(accuracy) for accuracy in re.findall(r"trained: old classes (\S+), the new one (\S+)", out)[0])
    assert min(old, new) > 0.4  # twice chance, and far from what comes out, whatever the processor


def test_rounds_of_active_learning_are_in_order_of_labelling(run):
    names, out = run("active_learning")
    assert out.count("accuracy") == 4
    labelled = names["labelled"]
    assert len(set(labelled)) == len(labelled) == 5 * names["ROUND"]
    assert torch.equal(names["so_far"][-1][0], names["pool"][labelled[-1]][0])


def test_an_average_made_anew_is_nearer_to_the_network_than_the_old_one(run):
    _, out = run("averaged_model")
    anew, old = (float(share) for share in re.findall(r"made anew (\S+) away, the old one (\S+)", out)[0])
    assert anew < old
    assert float(out.split()[-1]) > 0.4  # four times chance


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("lightning_module", "lightning"),
        ("hugging_face_images", "transformers"),
        ("hugging_face_text", "transformers"),
    ],
)
def test_with_a_framework_dash_acts_once_on_both_months(name, framework, run, caplog):
    caplog.set_level(logging.INFO, "warmstart")
    pytest.importorskip(framework)
    run(name)
    assert caplog.text.count("neurons scaled by") == 1
    assert "old data has 32.9% of the average's weight" in caplog.text
    caplog.clear()
    run(name)
    assert "neurons scaled by" not in caplog.text


def test_a_trainer_of_nnunets_kind_acts_once_at_the_first_rate(run):
    _, first = run("nnunet_trainer")
    _, july = first.split("dash(")
    assert "old data has 32.9% of the average's weight" in july
    assert "july, epoch 0: rate 0.0100" in july
    _, again = run("nnunet_trainer")
    assert again == ""


class Boxes(Dataset):
    """A data set as Ultralytics makes one: images of one colour, which have as many boxes as they have."""

    def __init__(self, folder):
        self.im_files = [str(file) for file in sorted(folder.iterdir())]

    def __len__(self):
        return len(self.im_files)

    def __getitem__(self, index):
        return {"cls": torch.zeros(index, 1), "img": torch.full((3, 8, 8), index, dtype=torch.uint8)}

    @staticmethod
    def collate_fn(examples):
        images = torch.stack([example["img"] for example in examples])
        return {"cls": torch.cat([example["cls"] for example in examples]), "img": images}


class Detector(torch.nn.Module):
    """A network as Ultralytics' in what the recipe uses: its loss, and a head whose last convolution has a bias."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.SiLU())
        self.head = torch.nn.Conv2d(4, 1, 1)
        self.seen = []

    def loss(self, batch):
        self.seen.append(batch["img"][:, 0, 0, 0].mul(255).round().int().tolist())
        objects = self.head(self.body(batch["img"])).sigmoid().mean()
        parts = torch.stack([objects, (objects - len(batch["cls"]) / 100) ** 2]) * len(batch["img"])
        return parts, parts.detach()


class Average:
    """Ultralytics' ModelEMA, in what the recipe uses."""

    def __init__(self, model):
        self.ema = copy.deepcopy(model)


@pytest.fixture
def yolo_trainer(tmp_path, monkeypatch):
    """A stand-in for Ultralytics' trainer at the end of its set-up, over ten images, the last by name being oldest."""

    def build_yolo_dataset(args, images, size, data, *, mode, rect):
        assert (mode, rect) == ("val", False)
        return Boxes(images)

    monkeypatch.setitem(sys.modules, "ultralytics", types.ModuleType("ultralytics"))
    monkeypatch.setitem(sys.modules, "ultralytics.data", types.SimpleNamespace(build_yolo_dataset=build_yolo_dataset))
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
        os.utime(tmp_path / f"{number}.png", (1000 - number, 1000 - number))
    model = Detector()
    return types.SimpleNamespace(
        model=model,
        ema=Average(model),
        start_epoch=0,
        args=None,
        data={"train": tmp_path},
        preprocess_batch=lambda batch: {**batch, "img": batch["img"] / 255},
    )


def test_yolos_callback_acts_on_ordered_images_and_spares_the_priors(yolo_trainer, capsys):
    recipe = runpy.run_path(str(SCRIPTS / "ultralytics_yolo.py"))
    model = yolo_trainer.model
    before = copy.deepcopy(model.state_dict())
    recipe["warm_start"](new_images=2, batch_size=4, alpha=0.3)(yolo_trainer)
    assert model.seen == [[7, 6, 5, 4], [3, 2, 1, 0]]  # oldest first; of ten, the two oldest fill no batch
    assert "averaged 2 batches, 8 examples" in capsys.readouterr().out
    now = model.state_dict()
    assert {name for name in now if not torch.equal(before[name], now[name])} == {"body.0.weight"}
    assert torch.equal(yolo_trainer.ema.ema.body[0].weight, model.body[0].weight)


def test_yolos_callback_leaves_a_training_alone_that_resumes(yolo_trainer):
    recipe = runpy.run_path(str(SCRIPTS / "ultralytics_yolo.py"))
    yolo_trainer.start_epoch = 3
    recipe["warm_start"](new_images=2, batch_size=4)(yolo_trainer)
    assert yolo_trainer.model.seen == []


class ImagesOfTimm(Dataset):
    """A data set as timm makes one of a folder: its reader has the samples, sorted by class."""

    def __init__(self, root):
        files = sorted(root.glob("*/*.png"))
        self.reader = types.SimpleNamespace(samples=[(str(file), file.parent.name == "dog") for file in files])
        self.transform = None

    def __len__(self):
        return len(self.reader.samples)

    def __getitem__(self, index):
        path, label = self.reader.samples[index]
        return torch.full((3, 8, 8), float(Path(path).stem)), int(label)


class EmaOfTimm(Average):
    def set(self, model):
        self.ema.load_state_dict(model.state_dict())


def test_timms_images_are_read_oldest_first_and_its_average_follows(tmp_path, monkeypatch, capsys):
    def create_loader(data, *, batch_size, use_prefetcher, num_workers, **transform):
        assert not use_prefetcher
        assert transform == {"input_size": (3, 8, 8), "interpolation": "bicubic", "mean": 0, "std": 1, "crop_pct": 1.0}
        return DataLoader(data, batch_size)  # is_training=False, so in the data set's order

    made = {
        "create_dataset": lambda name, root, *, split, class_map: ImagesOfTimm(root),
        "create_loader": create_loader,
    }
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("timm"))
    monkeypatch.setitem(sys.modules, "timm.data", types.SimpleNamespace(**made))
    for name, numbers in {"cat": (5, 1, 3), "dog": (2, 4, 0)}.items():
        (tmp_path / name).mkdir()
        for number in numbers:
            (tmp_path / name / f"{number}.png").touch()
            os.utime(tmp_path / name / f"{number}.png", (number, number))

    recipe = runpy.run_path(str(SCRIPTS / "timm_script.py"))
    args = types.SimpleNamespace(
        dataset="", data_dir=tmp_path, train_split="train", class_map="", batch_size=2, workers=0
    )
    config = {"input_size": (3, 8, 8), "interpolation": "bicubic", "mean": 0, "std": 1, "crop_pct": 1.0}
    batches = recipe["in_order"](args, config, batch_size=3)
    assert [images[:, 0, 0, 0].tolist() for images, _ in batches] == [[0, 1, 2], [3, 4, 5]]

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LayerNorm(192), torch.nn.Linear(192, 2))
    before, ema = model[2].weight.clone(), EmaOfTimm(model)
    recipe["warm_start_"](model, ema, batches, torch.nn.CrossEntropyLoss(), new_images=3)
    assert "averaged 2 batches, 6 examples" in capsys.readouterr().out
    assert not torch.equal(model[2].weight, before)
    assert torch.equal(ema.ema[2].weight, model[2].weight)
