"""Data: what is drawn, cut, decoded and ordered is what the definitions say."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from scipy import integrate, spatial, stats
from sklearn import datasets as sklearn_datasets
from torch.utils.data import DataLoader

from sdegen.data import (
    ArrayData,
    ImageFolder,
    InfiniteBatches,
    digits,
    from_file,
    from_uint8,
    photo_patches,
    to_uint8,
    toy,
)
from sdegen.data.toys import TOYS

CONF = Path(__file__).parents[1] / "conf" / "data"
N = 20000


def refused(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


# --- arrays ---------------------------------------------------------------------------------


def test_bytes_make_an_exact_round_trip():
    every = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(every)
    torch.testing.assert_close(x.double(), torch.linspace(-1, 1, 256, dtype=torch.float64))
    assert x.dtype == torch.float32
    assert x[0] == -1 and x[255] == 1
    assert torch.equal(to_uint8(x), every)
    assert torch.equal(to_uint8(x.double()), every)


def test_to_uint8_takes_the_nearest_byte_and_clamps():
    x = torch.tensor([-math.inf, -1.1, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.1, math.inf])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 255, 255]


def test_byte_maps_refuse_what_they_would_garble():
    with refused("from_uint8 got a tensor of torch.float32"):
        from_uint8(torch.zeros(2))
    with refused("to_uint8 got a tensor of torch.int64"):
        to_uint8(torch.zeros(2, dtype=torch.int64))
    with refused("to_uint8 got NaN"):
        to_uint8(torch.tensor([0.0, math.nan]))


def test_array_data_gives_its_rows():
    x = torch.randn(5, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 1, 1, 0])
    data = ArrayData(x, y)
    assert (len(data), data.shape, data.classes) == (5, (1, 2, 3), 4)
    assert data.x.dtype == torch.float32 and not data.x.requires_grad
    for i, (xi, yi) in enumerate(data):  # ends by IndexError, as a sequence must
        assert torch.equal(xi, x[i].detach().float())
        assert yi.dtype == torch.int64 and yi.shape == () and yi == y[i]
    assert i == 4


def test_array_data_without_labels_has_no_classes():
    data = ArrayData(torch.ones(3, 2))
    assert data.classes == 0 and data.y.tolist() == [0, 0, 0] and data.y.dtype == torch.int64
    assert ArrayData(torch.ones(3, 2), data.y).classes == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_array_data_takes_floats_only(dtype):
    with refused("sdegen.data.from_uint8"):
        ArrayData(torch.zeros(2, 1, 8, 8, dtype=dtype))


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (5,), ()])
def test_array_data_refuses_empty_and_flat_arrays(shape):
    with refused(f"x has the shape {shape}"):
        ArrayData(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_array_data_names_the_first_entry_that_is_not_finite(value):
    x = torch.zeros(4, 2, 3, dtype=torch.float64)
    x[2, 1, 0] = x[3, 0, 0] = value  # 1e300 is finite, but not in float32
    with refused("x[2, 1, 0] is "):
        ArrayData(x)


@pytest.mark.parametrize(
    "y, message",
    [
        (torch.zeros(3), "y is torch.float32"),
        (torch.zeros(3, dtype=torch.int32), "y is torch.int32"),
        (torch.zeros(2, dtype=torch.int64), "of shape (2,)"),
        (torch.zeros(3, 1, dtype=torch.int64), "of shape (3, 1)"),
        (torch.tensor([0, -1, 2]), "y has the label -1"),
    ],
)
def test_array_data_refuses_bad_labels(y, message):
    with refused(message):
        ArrayData(torch.zeros(3, 2), y)


# --- toys -----------------------------------------------------------------------------------


def same_law(x, y):
    """Whether two samples (n, 2) agree along each of six directions (Kolmogorov-Smirnov)."""
    angle = torch.arange(6) * math.pi / 6
    direction = torch.stack([angle.cos(), angle.sin()]).double()
    a, b = (torch.as_tensor(z).double() @ direction for z in (x, y))
    return min(stats.ks_2samp(a[:, d], b[:, d]).pvalue for d in range(6)) > 1e-3


# E|x|^2 / 2 worked out in the docstrings, or here where the coordinates differ.
MOON = (0.75 + 0.01, (1.25 - 2 / math.pi) / 2 - 1 / 16 + 0.01)
ROLL = tuple(
    integrate.quad(lambda t, f=f: (t * f(t)) ** 2 / (3 * math.pi), 1.5 * math.pi, 4.5 * math.pi)[0]
    for f in (math.cos, math.sin)
)
VARIANCE = {
    "gaussians8": (0.51, 0.51),
    "moons": MOON,
    "checkerboard": (1 / 3, 1 / 3),
    "swissroll": (
        (ROLL[0] - 4) / 100 + 0.0025,
        (ROLL[1] - 4 / (9 * math.pi**2)) / 100 + 0.0025,
    ),
    "pinwheel": (0.55, 0.55),
}


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_standardised_by_analytic_constants(name):
    x = toy(name, N, seed=3).x.double()
    variance = torch.tensor(VARIANCE[name], dtype=torch.float64)
    assert ((variance > 0.5**2) & (variance < 1)).all()
    assert (x.mean(0).abs() < 4 * (variance / N).sqrt()).all()
    error = (x**2).std(0) / math.sqrt(N)
    assert ((x.var(0) - variance).abs() < 4 * error).all()


@pytest.mark.parametrize("name", TOYS)
def test_toys_follow_their_seed_and_leave_the_global_one(name):
    before = torch.get_rng_state()
    a, b, other = toy(name, 100, 7), toy(name, 100, 7), toy(name, 100, 8)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
    assert not (a.x == other.x).any()
    assert a.shape == (2,) and len(a) == 100 and len(toy(name, 1)) == 1


@pytest.mark.parametrize(
    "name, classes",
    [("gaussians8", 8), ("moons", 2), ("checkerboard", 0), ("swissroll", 0), ("pinwheel", 5)],
)
def test_toy_classes_are_equally_likely(name, classes):
    data = toy(name, N)
    assert data.classes == classes
    if classes:
        assert stats.chisquare(data.y.bincount()).pvalue > 1e-3
    else:
        assert not data.y.any()


def test_gaussians8_is_a_standard_normal_of_scale_a_tenth_about_its_centres():
    data = toy("gaussians8", N)
    centre = np.exp(1j * np.arange(8) * math.pi / 4)[data.y]
    offset = (data.x[:, 0].numpy() + 1j * data.x[:, 1].numpy() - centre) / 0.1
    assert stats.kstest(np.abs(offset) ** 2, stats.chi2(2).cdf).pvalue > 1e-3
    assert stats.kstest(np.angle(offset), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    assert np.abs(np.abs(centre + 0.1 * offset) - 1).max() < 0.1 * math.sqrt(2 * math.log(1e3 * N))


def test_moons_agree_with_scikit_learn():
    x, y = sklearn_datasets.make_moons(N, noise=0.1, random_state=0)
    data = toy("moons", N)
    for label in (0, 1):
        assert same_law(data.x[data.y == label], x[y == label] - [0.5, 0.25])


def test_swissroll_agrees_with_scikit_learn():
    x, _ = sklearn_datasets.make_swiss_roll(N, noise=0.5, random_state=0)
    theirs, ours = (x[:, [0, 2]] - [2, 2 / (3 * math.pi)]) / 10, toy("swissroll", N).x.numpy()
    assert same_law(ours, theirs)
    t = np.linspace(1.5 * math.pi, 4.5 * math.pi, 5000)
    spiral = np.stack([t * np.cos(t) - 2, t * np.sin(t) - 2 / (3 * math.pi)], 1) / 10
    off_it = [spatial.cKDTree(spiral).query(z)[0] for z in (ours, theirs)]
    assert stats.ks_2samp(*off_it).pvalue > 1e-3


def test_checkerboard_is_uniform_on_squares_of_one_colour():
    x = toy("checkerboard", N).x.double()
    cell = ((x + 1) * 2).floor().long()
    assert cell.min() == 0 and cell.max() == 3
    assert (cell.sum(1) % 2 == 0).all()
    counts = (4 * cell[:, 0] + cell[:, 1]).bincount()
    assert (counts > 0).sum() == 8
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    for inside in ((x + 1) * 2 - cell).unbind(1):
        assert stats.kstest(inside.numpy(), "uniform").pvalue > 1e-3


def test_pinwheel_arms_untwisted_are_gaussians():
    data = toy("pinwheel", N)
    z = np.array([1, 1j]) @ data.x.double().numpy().T * np.exp(-2j * math.pi * data.y.numpy() / 5)
    r = np.abs(z)
    for _ in range(50):  # r + i s = z exp(-i exp(r) / 4), solved for r by iteration
        r = (z * np.exp(-0.25j * np.exp(r))).real
    s = (z * np.exp(-0.25j * np.exp(r))).imag
    for k in range(5):
        assert stats.kstest(r[data.y == k], stats.norm(1, 0.3).cdf).pvalue > 1e-3
    assert stats.kstest(s, stats.norm(0, 0.1).cdf).pvalue > 1e-3


def test_a_toy_must_be_known_and_have_points():
    with refused("gaussians8, moons, checkerboard, swissroll, pinwheel"):
        toy("spiral")
    with refused("n = 0"):
        toy("moons", 0)


# --- bundled pictures -----------------------------------------------------------------------


def rows(data):
    """The (picture, label) pairs of a data set, sorted: equal for equal sets."""
    return sorted((x.numpy().tobytes(), int(y)) for x, y in zip(data.x, data.y, strict=True))


def test_digits_are_scikit_learns_cut_in_two():
    train, test, every = (digits(split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(every)) == (899, 898, 1797)
    assert all(d.shape == (1, 8, 8) and d.classes == 10 for d in (train, test, every))
    assert every.x.min() == -1 and every.x.max() == 1
    bunch = sklearn_datasets.load_digits()
    theirs = ((bunch.images - 8) / 8).astype(np.float32)
    pairs = sorted((x.tobytes(), int(y)) for x, y in zip(theirs, bunch.target, strict=True))
    assert rows(every) == pairs == sorted(rows(train) + rows(test))


def test_the_halves_of_digits_follow_the_seed():
    assert torch.equal(digits("test", seed=1).x, digits("test", seed=1).x)
    assert rows(digits("test", seed=1)) != rows(digits("test", seed=2))


PHOTO_FOLDER = Path(sklearn_datasets.__file__).parent / "images"


def cut(columns, size, stride):
    """Patches of the two photographs, from Pillow and plain loops."""
    found = []
    for label, name in enumerate(("china.jpg", "flower.jpg")):
        with Image.open(PHOTO_FOLDER / name) as image:
            photo = np.asarray(image).transpose(2, 0, 1)[:, :, columns]
        _, h, w = photo.shape
        for i, j in itertools.product(
            range(0, h - size + 1, stride), range(0, w - size + 1, stride)
        ):
            found.append((photo[:, i : i + size, j : j + size].tobytes(), label))
    return sorted(found)


@pytest.mark.parametrize("size, stride", [(32, 16), (40, 40)])
def test_patches_come_from_their_own_side_of_the_photographs(size, stride):
    border = 448  # 70 % of 640 columns
    sides = {"train": slice(0, border), "test": slice(border, 640), "all": slice(0, 640)}
    for split, columns in sides.items():
        data = photo_patches(split, size, stride)
        assert data.shape == (3, size, size) and data.classes == 2
        got = zip(to_uint8(data.x).numpy(), data.y.tolist(), strict=True)
        assert sorted((x.tobytes(), y) for x, y in got) == cut(columns, size, stride)


def test_no_column_of_a_photograph_is_in_both_splits(monkeypatch):
    column = np.broadcast_to(np.arange(640), (427, 640))
    numbered = np.stack([column // 256, column % 256, 0 * column], 2).astype(np.uint8)
    monkeypatch.setattr(sklearn_datasets, "load_sample_image", lambda name: numbered)
    seen = {}
    for split in ("train", "test"):
        high, low, _ = to_uint8(photo_patches(split, 32, 16).x).long().unbind(1)
        seen[split] = set((256 * high + low).unique().tolist())
    assert max(seen["train"]) < min(seen["test"])
    assert len(seen["train"]) == 448 and len(seen["test"]) == 192


def test_the_seed_of_patches_is_their_order_alone():
    a, b, again = (photo_patches("test", 64, 64, seed=seed) for seed in (0, 1, 0))
    assert torch.equal(a.x, again.x) and not torch.equal(a.x, b.x)
    assert rows(a) == rows(b)
    assert a.y[: len(a) // 2].unique().tolist() == [0, 1]


def test_bundled_pictures_refuse_bad_arguments():
    for draw in (digits, photo_patches):
        with refused("split = 'valid'"):
            draw("valid")
    with refused("size = 0 and stride = 16"):
        photo_patches(size=0)
    with refused("size = 32 and stride = 0"):
        photo_patches(stride=0)
    with refused("427 x 192 pixels: take a size of at most 192"):
        photo_patches("test", size=193)
    assert len(photo_patches("test", size=192)) > 0


# --- image folders --------------------------------------------------------------------------


def picture(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".PNG"])
def test_a_lossless_picture_of_the_right_size_is_decoded_exactly(tmp_path, suffix):
    pixels = picture(6, 6)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)
    data = ImageFolder(tmp_path, 6)
    x, y = data[0]
    assert (len(data), data.shape, data.classes) == (1, (3, 6, 6), 0)
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and y.shape == () and y == 0
    expected = pixels.transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    assert x.shape == data.shape


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_a_jpeg_is_decoded(tmp_path, suffix):
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / f"a{suffix}", quality=95)
    x, _ = ImageFolder(str(tmp_path), 8)[0]
    target = from_uint8(torch.tensor([200, 100, 50], dtype=torch.uint8))[:, None, None]
    assert ((x - target).abs() < 4 / 127.5).all()


@pytest.mark.parametrize("h, w", [(6, 11), (11, 6)])
def test_the_central_square_is_cropped(tmp_path, h, w):
    pixels = picture(h, w)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x, _ = ImageFolder(tmp_path, 6)[0]
    top, left = (h - 6) // 2, (w - 6) // 2
    square = pixels[top : top + 6, left : left + 6]
    assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), square)


@pytest.mark.parametrize("size", [5, 8, 30])
def test_resizing_is_lanczos_as_written_by_hand(tmp_path, size):
    pixels = picture(16, 16) // 2 + 64  # away from 0 and 255, where overshoots are clipped
    Image.fromarray(pixels).save(tmp_path / "a.png")
    scale = 16 / size
    width = max(scale, 1)  # downwards the filter is widened, so that it averages
    offset = (np.arange(16) + 0.5 - (np.arange(size)[:, None] + 0.5) * scale) / width
    weight = np.sinc(offset) * np.sinc(offset / 3) * (np.abs(offset) < 3)
    weight /= weight.sum(1, keepdims=True)
    expected = np.einsum("ih,hwc,jw->cij", weight, pixels, weight).clip(0, 255)
    x, _ = ImageFolder(tmp_path, size)[0]
    assert np.abs(to_uint8(x).numpy() - expected).max() < 2  # it rounds after each direction


def test_grey_and_colour_are_made_of_each_other(tmp_path):
    pixels = picture(7, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    grey, _ = ImageFolder(tmp_path, 7, channels=1)[0]
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert grey.shape == (1, 7, 7)
    assert np.abs(to_uint8(grey)[0].numpy() - luma).max() < 1
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    colour, _ = ImageFolder(tmp_path, 7)[0]
    assert np.array_equal(to_uint8(colour).numpy(), np.stack([pixels[..., 0]] * 3))


def test_transparency_is_dropped(tmp_path):
    pixels = picture(7, 7)
    alpha = picture(7, 7, seed=1)[..., :1]
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / "a.png")
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "b.png", transparency=bytes(range(16)))
    data = ImageFolder(tmp_path, 7)
    assert np.array_equal(to_uint8(data[0][0]).permute(1, 2, 0).numpy(), pixels)
    shown = np.asarray(palette.convert("RGB"))
    assert np.array_equal(to_uint8(data[1][0]).permute(1, 2, 0).numpy(), shown)


def test_the_exif_orientation_is_followed(tmp_path):
    pixels = picture(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    x, _ = ImageFolder(tmp_path, 8)[0]
    assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), np.rot90(pixels, -1))


def shades(root, names):
    """Write one flat grey picture per name, of shade 10, 20, ... in the order of `names`."""
    for k, name in enumerate(names, 1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * k).save(root / name)


def test_sub_folders_are_classes(tmp_path):
    shades(tmp_path, ["b/z.png", "a/deep/y.png", "c/x.png", "a/x.bmp"])
    (tmp_path / "readme.txt").write_text("no image")
    data = ImageFolder(tmp_path, 4, channels=1)
    assert data.classes == 3
    assert [(int(to_uint8(x)[0, 0, 0]), int(y)) for x, y in data] == [
        (20, 0),
        (40, 0),
        (10, 1),
        (30, 2),
    ]


def test_one_image_beside_the_sub_folders_means_no_classes(tmp_path):
    shades(tmp_path, ["b/z.png", "c/x.png", "top.png"])
    data = ImageFolder(tmp_path, 4, channels=1)
    assert data.classes == 0
    assert [(int(to_uint8(x)[0, 0, 0]), int(y)) for x, y in data] == [(10, 0), (20, 0), (30, 0)]


def test_hidden_files_are_no_data(tmp_path):
    shades(tmp_path, ["a/x.png", ".thumbnails/x.png", "a/._x.png"])
    assert len(ImageFolder(tmp_path, 4)) == 1


def test_image_folders_refuse_bad_arguments(tmp_path):
    with refused(f"there is no folder '{tmp_path / 'gone'}'"):
        ImageFolder(tmp_path / "gone", 4)
    (tmp_path / "a.gif").write_bytes(b"")
    with refused("has no image, of .png, .jpg, .jpeg, .bmp, .webp"):
        ImageFolder(tmp_path, 4)
    shades(tmp_path, ["a.png"])
    with refused("channels = 4"):
        ImageFolder(tmp_path, 4, channels=4)
    with refused("size = 0"):
        ImageFolder(tmp_path, 0)


def test_an_unreadable_image_is_named_when_it_is_read(tmp_path):
    Image.fromarray(picture(32, 32)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_text("not an image")
    (tmp_path / "d.png").write_bytes(b"")
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "e.png")
    data = ImageFolder(tmp_path, 4)
    assert data[0][0].isfinite().all()
    for i, name in ((1, "b.png"), (2, "c.jpg"), (3, "d.png")):
        with refused(f"'{tmp_path / name}' could not be read"):
            data[i]
    with refused(f"'{tmp_path / 'e.png'}' is grey with more than 8 bits"):
        data[4]
    with pytest.raises(IndexError):
        data[5]


# --- array files ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "g"])
def test_floats_are_taken_as_they_are(tmp_path, dtype):
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(5, 2, 3)).astype(dtype))
    np.save(tmp_path / "x.npy", x)
    data = from_file(tmp_path / "x.npy")
    assert data.shape == (2, 3) and data.classes == 0 and data.x.dtype == torch.float32
    assert np.array_equal(data.x.numpy(), x.astype(np.float32))


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)


@pytest.mark.parametrize(
    "stored, expected",
    [
        (IMAGES, IMAGES),
        (IMAGES.transpose(0, 2, 3, 1), IMAGES),
        (IMAGES[:, 0], IMAGES[:, :1]),
        (IMAGES[:, :1], IMAGES[:, :1]),
        (IMAGES[:, :1].transpose(0, 2, 3, 1), IMAGES[:, :1]),
        (IMAGES[:, 0, :, :3], IMAGES[:, :1, :, :3]),
    ],
    ids=["nchw", "nhwc", "nhw", "n1hw", "nhw1", "nh3 is grey"],
)
def test_bytes_are_images(tmp_path, stored, expected):
    np.save(tmp_path / "x.npy", stored)
    data = from_file(str(tmp_path / "x.npy"))
    assert data.shape == expected.shape[1:]
    np.testing.assert_allclose(data.x.numpy(), expected / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 5, 3), (4, 1, 5, 3), (4, 3, 5, 1), (4, 1, 1, 1)])
def test_images_that_can_be_read_both_ways_are_refused(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with refused(f"shape {shape}, which could be"):
        from_file(tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 5, 6), (4, 5, 3, 6), (1, 4, 3, 5, 6)])
def test_bytes_that_are_no_images_are_refused(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with refused(f"shape {shape}, but images are"):
        from_file(tmp_path / "x.npy")


@pytest.mark.parametrize("dtype", ["i8", "u2", "?", "c8", "U3", "M8[s]", "f4,f4"])
def test_other_dtypes_are_refused(tmp_path, dtype):
    np.save(tmp_path / "x.npy", np.zeros((4, 2), dtype))
    with refused("but it must be floats, or uint8 for images"):
        from_file(tmp_path / "x.npy")


def test_floats_beyond_float32_are_named(tmp_path):
    x = np.zeros((4, 2))
    x[3, 1] = 1e300
    np.save(tmp_path / "x.npy", x)
    with refused("x[3, 1] is inf"):
        from_file(tmp_path / "x.npy")


@pytest.mark.parametrize("dtype", ["u1", "i4", ">i8", "u8"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_data_and_labels(tmp_path, dtype, save):
    x, y = np.random.default_rng(0).normal(size=(3, 2)), np.array([2, 0, 1], dtype)
    path = tmp_path / "a.npz"
    save(path, x=x, y=y)
    for data in (from_file(path, "x", "y"), from_file(path, labels="y")):
        assert torch.equal(data.x, torch.tensor(x).float())
        assert data.y.tolist() == [2, 0, 1] and data.classes == 3
    assert from_file(path, "x").classes == 0
    save(path, x)
    assert torch.equal(from_file(path).x, data.x)


def test_keys_must_fit_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, train=np.zeros((3, 2)), test=np.zeros((3, 2)), y=np.zeros(3))
    for key, labels in ((None, None), (None, "y"), ("x", None), ("train", "z")):
        with refused("holds the arrays train, test, y"):
            from_file(path, key, labels)
    with refused("the labels 'y' are float64"):
        from_file(path, "train", "y")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    for arguments in ({"key": "x"}, {"labels": "y"}):
        with refused("holds one array"):
            from_file(tmp_path / "a.npy", **arguments)


def test_labels_must_fit_the_data(tmp_path):
    path = tmp_path / "a.npz"
    for y in (np.zeros(2, int), np.zeros((3, 1), int), np.array([0, 2**64 - 1, 0], "u8")):
        np.savez(path, x=np.zeros((3, 2)), y=y)
        with pytest.raises(ValueError, match=r"^y (is|has)"):
            from_file(path, "x", "y")


def test_python_objects_are_never_unpickled(tmp_path):
    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "a.npz", x=trap)
    (tmp_path / "b.npy").write_bytes(trap.dumps())
    for name in ("a.npy", "a.npz", "b.npy"):
        with refused("which need pickle"):
            from_file(tmp_path / name)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, np.zeros((30, 20)))
    else:
        np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(30, 20)))
    whole = path.read_bytes()
    middle = len(whole) // 2
    garbled = (
        whole[: middle - 9] + bytes(b ^ 255 for b in whole[middle - 9 : middle]) + whole[middle:]
    )
    broken = [b"", b"\x00" * 50, whole[:middle], whole[:20]] + (
        [garbled] if suffix == ".npz" else []
    )
    for content in broken:
        path.write_bytes(content)
        with refused(f"'{path}' could not be read"):
            from_file(path)


def test_a_zip_member_that_is_no_array_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    with refused("but it must be floats"):
        from_file(tmp_path / "a.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"")
    with refused("ends in '.pt'"):
        from_file(tmp_path / "a.pt")
    with refused("there is no file"):
        from_file(tmp_path / "gone.npy")


# --- the order of batches -------------------------------------------------------------------


def take(sampler, steps):
    return list(itertools.islice(sampler, steps))


sizes = st.integers(1, 12)
seeds = st.integers(-5, 2**40)


@settings(deadline=None, max_examples=100)
@given(n=sizes, batch=sizes, world=st.integers(1, 4), seed=seeds)
def test_the_ranks_together_see_one_permutation_after_another(n, batch, world, seed):
    epochs = 3
    steps = -(-epochs * n // (batch * world))
    ranks = [take(InfiniteBatches(n, batch, seed, rank, world), steps) for rank in range(world)]
    assert all(len(b) == batch for rank in ranks for b in rank)
    stream = [i for step in zip(*ranks, strict=True) for b in step for i in b]
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@settings(deadline=None, max_examples=50)
@given(batch=sizes, world=st.integers(1, 4), steps=st.integers(1, 4), seed=seeds)
def test_ranks_are_disjoint_within_an_epoch(batch, world, steps, seed):
    n = batch * world * steps
    seen = [
        {i for b in take(InfiniteBatches(n, batch, seed, rank, world), steps) for i in b}
        for rank in range(world)
    ]
    assert sum(len(s) for s in seen) == n == len(set().union(*seen))


@settings(deadline=None, max_examples=100)
@given(n=sizes, batch=sizes, rank=st.integers(0, 2), start=st.integers(0, 40), seed=seeds)
def test_a_restart_continues_as_if_undisturbed(n, batch, rank, start, seed):
    undisturbed = take(InfiniteBatches(n, batch, seed, rank, 3), start + 5)
    assert take(InfiniteBatches(n, batch, seed, rank, 3, start), 5) == undisturbed[start:]


def test_a_sampler_remembers_nothing():
    sampler = InfiniteBatches(10, 4, seed=1)
    first, second = iter(sampler), iter(sampler)
    a = [next(first) for _ in range(6)]
    assert [next(second) for _ in range(6)] == a == take(sampler, 6)


def test_epochs_and_seeds_all_have_their_own_order():
    orders = {
        (seed, epoch): tuple(order)
        for seed in (-1, 0, 1, 2, 2**32, 2**32 + 1)
        for epoch, order in enumerate(take(InfiniteBatches(50, 50, seed), 4))
    }
    assert len(set(orders.values())) == len(orders) == 24


def test_every_order_is_equally_likely():
    orders = take(InfiniteBatches(4, 4), 24 * 100)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_a_data_loader_resumes():
    data = ArrayData(torch.arange(7.0)[:, None])

    def loader(start):
        return DataLoader(data, batch_sampler=InfiniteBatches(7, 3, start=start))

    all_steps = [x for x, _ in itertools.islice(loader(0), 8)]
    resumed = [x for x, _ in itertools.islice(loader(5), 3)]
    assert torch.equal(torch.stack(all_steps[5:]), torch.stack(resumed))
    assert torch.cat(all_steps).flatten()[:7].sort().values.tolist() == list(range(7))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n": 0}, "n = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"rank": -1}, "rank = -1 of world = 2"),
        ({"rank": 2}, "rank = 2 of world = 2"),
        ({"world": 0}, "rank = 0 of world = 0"),
        ({"start": -1}, "start = -1"),
    ],
)
def test_samplers_refuse_bad_arguments(arguments, message):
    with refused(message):
        InfiniteBatches(**{"n": 10, "batch_size": 2, "world": 2} | arguments)


# --- configurations -------------------------------------------------------------------------


def test_every_group_is_tried_here():
    assert {file.stem for file in CONF.glob("*.yaml")} == {
        *TOYS,
        "digits",
        "photo_patches",
        "image_folder",
        "array_file",
    }


@pytest.mark.parametrize("name", TOYS)
def test_the_configured_toys(name):
    conf = OmegaConf.load(CONF / f"{name}.yaml")
    for part, seed in (("train", 0), ("test", 1)):
        assert torch.equal(instantiate(conf[part]).x, toy(name, 20000, seed).x)


@pytest.mark.parametrize("draw", [digits, photo_patches])
def test_the_configured_pictures(draw):
    conf = OmegaConf.load(CONF / f"{draw.__name__}.yaml")
    for part in ("train", "test"):
        assert torch.equal(instantiate(conf[part]).x, draw(part).x)


def test_the_configured_files(tmp_path):
    shades(tmp_path, ["a/x.png", "b/y.png"])
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), z=np.ones((4, 5)), y=np.array([0, 1, 2]))
    conf = OmegaConf.create(
        {
            "folder": OmegaConf.load(CONF / "image_folder.yaml"),
            "array": OmegaConf.load(CONF / "array_file.yaml"),
        }
    )
    for group, name in (("folder", "root"), ("array", "path")):
        assert OmegaConf.is_missing(conf[group], name)
    conf.folder.root, conf.folder.channels = str(tmp_path), 1
    conf.array.path, conf.array.key = str(tmp_path / "a.npz"), "x"
    conf.array.labels, conf.array.test.key, conf.array.test.labels = "y", "z", None
    for part in ("train", "test"):
        folder = instantiate(conf.folder[part])
        assert folder.shape == (1, 32, 32) and folder.classes == 2
    assert instantiate(conf.array.train).classes == 3
    assert instantiate(conf.array.test).shape == (5,)
