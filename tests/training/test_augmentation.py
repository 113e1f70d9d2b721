import numpy as np
import pytest
import torch
from PIL import Image

from warmstart.training import augmentation
from warmstart.training.augmentation import AUGMENTATIONS, crop, flip, resized_crop, rotate
from warmstart.training.examples import Examples
from warmstart.training.recipe import AUGMENTS


def noise(count, size=12, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def to_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_one_is_a_copy_of_the_same_shape_that_the_seed_decides(name):
    images = noise(40)
    before = images.clone()

    changed = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        changed.append(AUGMENTATIONS[name](images))

    assert changed[0].shape == images.shape
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])
    assert torch.equal(images, before)
    assert changed[0].data_ptr() != images.data_ptr()
    torch.manual_seed(5)
    assert torch.equal(AUGMENTATIONS[name](images.float()), changed[0].float())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_image_has_a_draw_of_its_own_and_its_channels_share_it(name):
    torch.manual_seed(0)
    images = noise(1, channels=1).expand(60, 3, 12, 12)

    changed = AUGMENTATIONS[name](images).float()

    assert len(changed.flatten(1).unique(dim=0)) >= (2 if name == "flip" else 30)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])


def test_a_crop_is_one_of_the_81_shifts_all_equally_often():
    torch.manual_seed(0)
    image = noise(1)[0]
    padded = torch.zeros(3, 20, 20, dtype=torch.uint8)
    padded[:, 4:16, 4:16] = image
    shifts = {padded[:, top : top + 12, left : left + 12].numpy().tobytes(): 0 for top in range(9) for left in range(9)}

    for shifted in crop(image.expand(8100, -1, -1, -1)):
        shifts[shifted.contiguous().numpy().tobytes()] += 1  # no other image comes out

    assert len(shifts) == 81
    assert all(50 < count < 150 for count in shifts.values())  # 100 expected, standard deviation 10


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    torch.manual_seed(0)
    images = noise(1000, size=4)

    flipped = flip(images)

    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 420 < mirrored.sum() < 580  # standard deviation 16


def test_a_rotation_is_pillows(monkeypatch):
    images, angles = noise(7, size=16), torch.tensor([-15.0, -8.3, -1.1, 0.0, 3.7, 9.2, 15.0])
    monkeypatch.setattr(augmentation, "_between", lambda *_: angles)

    turned = rotate(images)

    expected = [from_pil(to_pil(image).rotate(angle)) for image, angle in zip(images, angles.tolist(), strict=True)]
    assert torch.equal(turned[3], images[3])
    agree = (turned == torch.stack(expected)).float().mean()
    assert agree > 0.99  # the rest lies between two pixels


def test_angles_are_up_to_15_degrees_each_way(monkeypatch):
    torch.manual_seed(0)
    drawn = []
    plain = augmentation._between
    monkeypatch.setattr(augmentation, "_between", lambda *a: drawn.append(plain(*a)) or drawn[-1])

    rotate(noise(2000, size=2))

    assert -15 <= drawn[0].min() < -14.9
    assert 14.9 < drawn[0].max() <= 15
    assert abs(drawn[0].mean()) < 1


def test_what_comes_in_from_outside_is_black_before_normalisation():
    torch.manual_seed(0)
    white = torch.full((50, 1, 8, 8), 255, dtype=torch.uint8)
    examples = Examples(white, torch.zeros(50), torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 50.0))

    for change in (crop, rotate):
        inputs, _ = examples.batch(slice(None), [change])
        assert inputs.unique().tolist() == pytest.approx([-2.0, 3.1])


def test_an_enlarged_part_is_pillows_crop_and_resize(monkeypatch):
    images = noise(4, size=16)
    boxes = torch.tensor([[0, 0, 16, 16], [3, 5, 8, 9], [11, 0, 5, 16], [15, 15, 1, 1]])  # top, left, rows, columns
    monkeypatch.setattr(augmentation, "_boxes", lambda *_: boxes.float().unbind(1))

    enlarged = resized_crop(images)

    assert torch.allclose(enlarged[0], images[0].float(), atol=1e-3)
    for image, ours, (top, left, rows, columns) in zip(images, enlarged, boxes.tolist(), strict=True):
        part = to_pil(image).crop((left, top, left + columns, top + rows))
        theirs = from_pil(part.resize((16, 16), Image.Resampling.BILINEAR)).float()
        assert (ours - theirs).abs().max() <= 1.0  # Pillow rounds twice


def test_parts_have_the_areas_and_shapes_of_random_resized_crop():
    torch.manual_seed(0)
    size = 64
    top, left, rows, columns = augmentation._boxes(20_000, size, size, torch.device("cpu"))

    for start, length in ((top, rows), (left, columns)):
        assert length.min() >= 1
        assert start.min() == 0
        assert (start + length).max() == size
    area, ratio = rows * columns / size**2, columns / rows
    assert 0.07 < area.min() < 0.09
    assert area.max() == 1
    assert 0.7 < ratio.min() < 0.76
    assert 1.3 < ratio.max() < 1.43
    assert area.mean().item() == pytest.approx(literal_mean_area(size), abs=0.01)


def literal_mean_area(size):
    """torchvision's rule, drawn one by one."""
    generator, areas = np.random.default_rng(0), []
    for _ in range(5000):
        for _ in range(10):
            area = size**2 * generator.uniform(0.08, 1.0)
            ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
            columns, rows = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < columns <= size and 0 < rows <= size:
                break
        else:
            columns = rows = size
        areas.append(rows * columns / size**2)
    return np.mean(areas)


def test_where_no_draw_fits_it_is_the_whole_image(monkeypatch):
    monkeypatch.setattr(augmentation, "AREA", (1.5, 1.6))

    top, left, rows, columns = augmentation._boxes(5, 8, 8, torch.device("cpu"))

    assert top.tolist() == left.tolist() == [0] * 5
    assert rows.tolist() == columns.tolist() == [8] * 5


def test_the_names_of_the_setting_are_those_there_are():
    assert tuple(AUGMENTATIONS) == AUGMENTS
