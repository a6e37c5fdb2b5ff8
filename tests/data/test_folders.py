"""Folders of images: decoded, cropped and classed as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdegen.data import (
    ImageFolder,
    from_uint8,
    to_uint8,
)
from tests.cases import refused_with


def picture(h: int, w: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".PNG"])
def test_a_lossless_picture_of_the_right_size_is_decoded_exactly(
    tmp_path: Path, suffix: str
) -> None:
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
def test_a_jpeg_is_decoded(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / f"a{suffix}", quality=95)
    x, _ = ImageFolder(str(tmp_path), 8)[0]
    target = from_uint8(torch.tensor([200, 100, 50], dtype=torch.uint8))[:, None, None]
    assert ((x - target).abs() < 4 / 127.5).all()


@pytest.mark.parametrize("h, w", [(6, 11), (11, 6)])
def test_the_central_square_is_cropped(tmp_path: Path, h: int, w: int) -> None:
    pixels = picture(h, w)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x, _ = ImageFolder(tmp_path, 6)[0]
    top, left = (h - 6) // 2, (w - 6) // 2
    square = pixels[top : top + 6, left : left + 6]
    assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), square)


@pytest.mark.parametrize("size", [5, 8, 30])
def test_resizing_is_lanczos_as_written_by_hand(tmp_path: Path, size: Any) -> None:
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


def test_grey_and_colour_are_made_of_each_other(tmp_path: Path) -> None:
    pixels = picture(7, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    grey, _ = ImageFolder(tmp_path, 7, channels=1)[0]
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert grey.shape == (1, 7, 7)
    assert np.abs(to_uint8(grey)[0].numpy() - luma).max() < 1
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    colour, _ = ImageFolder(tmp_path, 7)[0]
    assert np.array_equal(to_uint8(colour).numpy(), np.stack([pixels[..., 0]] * 3))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = picture(7, 7)
    alpha = picture(7, 7, seed=1)[..., :1]
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / "a.png")
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "b.png", transparency=bytes(range(16)))
    data = ImageFolder(tmp_path, 7)
    assert np.array_equal(to_uint8(data[0][0]).permute(1, 2, 0).numpy(), pixels)
    shown = np.asarray(palette.convert("RGB"))
    assert np.array_equal(to_uint8(data[1][0]).permute(1, 2, 0).numpy(), shown)


def test_the_exif_orientation_is_followed(tmp_path: Path) -> None:
    pixels = picture(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    x, _ = ImageFolder(tmp_path, 8)[0]
    assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), np.rot90(pixels, -1))


def shades(root: Path, names: Any) -> None:
    """Write one flat grey picture per name, of shade 10, 20, ... in the order of `names`."""
    for k, name in enumerate(names, 1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * k).save(root / name)


def test_sub_folders_are_classes(tmp_path: Path) -> None:
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


def test_one_image_beside_the_sub_folders_means_no_classes(tmp_path: Path) -> None:
    shades(tmp_path, ["b/z.png", "c/x.png", "top.png"])
    data = ImageFolder(tmp_path, 4, channels=1)
    assert data.classes == 0
    assert [(int(to_uint8(x)[0, 0, 0]), int(y)) for x, y in data] == [(10, 0), (20, 0), (30, 0)]


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    shades(tmp_path, ["a/x.png", ".thumbnails/x.png", "a/._x.png"])
    assert len(ImageFolder(tmp_path, 4)) == 1


def test_image_folders_refuse_bad_arguments(tmp_path: Path) -> None:
    with refused_with(f"there is no folder '{tmp_path / 'gone'}'"):
        ImageFolder(tmp_path / "gone", 4)
    (tmp_path / "a.heic").write_bytes(b"")
    with refused_with("has no image, of .png, .jpg, .jpeg, .bmp, .webp, .tif, .tiff, .gif"):
        ImageFolder(tmp_path, 4)
    shades(tmp_path, ["a.png"])
    with refused_with("channels = 4"):
        ImageFolder(tmp_path, 4, channels=4)
    with refused_with("size = 0"):
        ImageFolder(tmp_path, 0)


def test_an_unreadable_image_is_named_and_the_next_one_stands_in(tmp_path: Path) -> None:
    Image.fromarray(picture(32, 32)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_text("not an image")
    (tmp_path / "d.png").write_bytes(b"")
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "e.png")
    Image.fromarray(picture(32, 32, 1)).save(tmp_path / "f.png")
    data = ImageFolder(tmp_path, 4)
    assert data[0][0].isfinite().all()
    with pytest.warns(UserWarning, match="It is left out, and the next image") as said:
        assert torch.equal(data[1][0], data[5][0])
    names = [str(each.message).split("'")[1] for each in said]
    assert names == [str(tmp_path / name) for name in ("b.png", "c.jpg", "d.png", "e.png")]
    assert "could not be read" in str(said[0].message)
    assert "grey with more than 8 bits" in str(said[3].message)
    assert torch.equal(data[4][0], data[5][0])  # and is not named again
    with pytest.raises(IndexError):
        data[6]


def test_a_folder_of_nothing_but_damage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    data = ImageFolder(tmp_path, 4)
    with refused_with("can be read"), pytest.warns(UserWarning, match="a.png"):
        data[0]


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF", ".gif"])
def test_tiff_and_gif_are_images(tmp_path: Path, suffix: str) -> None:
    pixels = np.repeat(picture(6, 6)[..., :1] // 16 * 16, 3, 2)  # a palette holds its greys
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", save_all=True, append_images=[])
    x, _ = ImageFolder(tmp_path, 6)[0]
    assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), pixels)


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (30, 200)]
    for name in ("a.gif", "b.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert [int(to_uint8(x)[0, 0, 0]) for x, _ in ImageFolder(tmp_path, 4)] == [30, 30]


def test_images_that_are_passed_over_are_said(tmp_path: Path) -> None:
    shades(tmp_path, ["a/x.png", "b/x.png"])
    for name in ("b/y.heic", "c/x.svg", "c/y.heic", "notes.txt", "b/labels.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3 images .* \(2 of .heic, 1 of .svg\), as 'b/y.heic'"):
        data = ImageFolder(tmp_path, 4)
    assert data.names == ("a", "b")
