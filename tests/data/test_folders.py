"""Folders of images: decoded, cropped and classed as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdegen.checks import absent
from sdegen.data import (
    ImageFolder,
    SeededItems,
    from_uint8,
    gather,
    to_uint8,
)
from tests.cases import refused, refused_with


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


def test_transparency_is_dropped_where_there_is_no_background(tmp_path: Path) -> None:
    pixels = picture(7, 7)
    alpha = picture(7, 7, seed=1)[..., :1]
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / "a.png")
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "b.png", transparency=bytes(range(16)))
    data = ImageFolder(tmp_path, 7, background=None)
    assert np.array_equal(to_uint8(data[0][0]).permute(1, 2, 0).numpy(), pixels)
    shown = np.asarray(palette.convert("RGB"))
    assert np.array_equal(to_uint8(data[1][0]).permute(1, 2, 0).numpy(), shown)


COLOURS: dict[Any, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "#204060": (32, 64, 96),
    70: (70, 70, 70),
    (250, 10, 0): (250, 10, 0),
}


@pytest.mark.parametrize("background", COLOURS)
def test_transparency_is_laid_on_a_background(tmp_path: Path, background: Any) -> None:
    """a c + (1 - a) background, whatever says a: a channel, a palette, a colour that is none."""
    c, a = picture(7, 7), picture(7, 7, seed=1)[..., :1]
    b = np.array(COLOURS[background])
    Image.fromarray(np.concatenate([c, a], 2)).save(tmp_path / "a.png")
    grey = np.concatenate([c[..., :1], a], 2)
    Image.fromarray(grey).save(tmp_path / "b.png")
    palette = Image.fromarray(c).quantize(16)
    opacities = np.arange(16, dtype=np.uint8) * 17
    palette.save(tmp_path / "c.png", transparency=opacities.tobytes())
    clear = tuple(c[2, 3].tolist())
    Image.fromarray(c).save(tmp_path / "d.png", transparency=clear)
    for name, mode in zip("abcd", ("RGBA", "LA", "P", "RGB"), strict=True):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.mode == mode

    shown = np.asarray(palette.convert("RGB"))
    seen = opacities[np.asarray(palette)][..., None]
    none = 255 * (c != c[2, 3]).any(2, keepdims=True)
    data = ImageFolder(tmp_path, 7, background=background)
    for (x, _), (colour, opacity) in zip(
        data, [(c, a), (c[..., :1], a), (shown, seen), (c, none)], strict=True
    ):
        exact = opacity / 255 * colour + (1 - opacity / 255) * b
        assert np.abs(to_uint8(x).permute(1, 2, 0).numpy() - exact).max() <= 0.5 + 1e-4
    luma = (a / 255 * c[..., :1] + (1 - a / 255) * b) @ np.array([0.299, 0.587, 0.114])
    x, _ = ImageFolder(tmp_path, 7, channels=1, background=background)[1]
    assert np.abs(to_uint8(x)[0].numpy() - luma).max() < 1.1  # rounded twice


def test_hidden_colours_do_not_bleed_at_edges(tmp_path: Path) -> None:
    """What a pixel hides behind opacity 0 is not seen after resizing either: a red disc of which
    all around is green, but clear, has no green in it on black."""
    rows, columns = np.mgrid[:32, :32]
    inside = (rows - 15.5) ** 2 + (columns - 15.5) ** 2 < 120
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[inside] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    red, green, _ = to_uint8(ImageFolder(tmp_path, 8, background="black")[0][0])
    assert red.max() == 255 and not green.any() and red.unique().numel() > 2
    _, green, _ = to_uint8(ImageFolder(tmp_path, 8, background=None)[0][0])
    assert green.max() == 255


@pytest.mark.parametrize("wrong", ["whitish", 256, [1, 2], (0, 0, 300), 0.5, True])
def test_backgrounds_that_are_no_colour_are_refused(tmp_path: Path, wrong: Any) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with refused("background = .* it must be a colour, as white"):
        ImageFolder(tmp_path, 4, background=wrong)


def test_half_of_the_images_are_flipped_and_only_left_and_right(tmp_path: Path) -> None:
    pixels = picture(6, 6)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = ImageFolder(tmp_path, 6, flip=True)
    items = SeededItems(data, 0)
    x, _ = data.plain[0]
    assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), pixels)
    flipped = 0
    for epoch in range(200):
        seen, _ = items[0, epoch]
        assert torch.equal(seen, x) or torch.equal(seen, x.flip(2))
        flipped += torch.equal(seen, x.flip(2))
    assert 70 < flipped < 130  # four standard deviations


@pytest.mark.parametrize(("h", "w"), [(20, 20), (20, 50), (3, 5), (1, 1)])
def test_random_crops_are_squares_of_the_image(tmp_path: Path, h: int, w: int) -> None:
    """Of an image whose red rises along the columns and whose green along the rows, a crop's means
    tell where it was, and their ranges how wide: 0.8 to 1 of the shorter side, everywhere."""
    rows, columns = np.mgrid[:h, :w]
    pixels = np.stack([5 * columns, 5 * rows, 0 * rows], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    items = SeededItems(ImageFolder(tmp_path, 8, crop="random"), 3)
    crops = torch.stack([items[0, epoch][0] for epoch in range(300)])
    assert crops.shape == (300, 3, 8, 8)
    across, down = ((crops[:, k] + 1) * 127.5 / 5 for k in (0, 1))
    if h < 20:
        return
    # Pixels of the result lie side / 8 apart in the image, up to rounding to whole levels.
    for way, span in ((across[:, 0], w), (down[:, :, 0], h)):
        side = (way[:, 5] - way[:, 2]) * 8 / 3
        assert side.min() > 15.3 and side.max() < 20.7 and side.max() - side.min() > 3
        middle = (way[:, 3] + way[:, 4]) / 2 + 0.5
        low, high = middle - side / 2, middle + side / 2
        assert low.min() > -0.7 and high.max() < span + 0.7
        assert low.min() < 1 and high.max() > span - 1  # both ends are reached


def test_what_is_drawn_depends_on_seed_item_and_epoch_alone(tmp_path: Path) -> None:
    for k in range(3):
        Image.fromarray(picture(9, 12, seed=k)).save(tmp_path / f"{k}.png")
    data = ImageFolder(tmp_path, 8, flip=True, crop="random")
    visits = [(i, epoch) for epoch in range(4) for i in range(3)]
    forth = [SeededItems(data, 5)[visit][0] for visit in visits]
    torch.rand(7)
    back = [SeededItems(data, 5)[visit][0] for visit in reversed(visits)]
    assert all(torch.equal(x, z) for x, z in zip(forth, reversed(back), strict=True))
    assert len({x.numpy().tobytes() for x in forth}) == len(visits)
    other = [SeededItems(data, 6)[visit][0] for visit in visits]
    assert not any(torch.equal(x, z) for x, z in zip(forth, other, strict=True))


def test_what_is_measured_is_not_augmented(tmp_path: Path) -> None:
    for k in range(3):
        Image.fromarray(picture(9, 12, seed=k)).save(tmp_path / f"{k}.png")
    drawn, still = ImageFolder(tmp_path, 8, flip=True, crop="random"), ImageFolder(tmp_path, 8)
    for most in (None, 2, 3):
        assert torch.equal(gather(drawn, most).x, gather(still, most).x)
    assert torch.equal(gather(drawn).x, torch.stack([x for x, _ in still]))
    before = torch.get_rng_state()
    assert torch.equal(drawn.plain[0][0], still[0][0])
    assert torch.equal(torch.get_rng_state(), before)
    for wrong in ({"crop": "middle"}, {"flip": 1}):
        with refused("Unknown crop 'middle'.*centre, random|flip must be true or false"):
            ImageFolder(tmp_path, 8, **wrong)  # type: ignore[arg-type]


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
    with refused_with("size must be a whole number >= 1, but it is 0"):
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


def test_what_is_absent_is_looked_for_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    said = f"there is no folder 'imags' in {tmp_path}: did you mean images?"
    assert str(absent("folder", "imags")) == said
    with refused_with(said):
        ImageFolder("imags", 8)
    assert str(absent("file", tmp_path / "q")) == f"there is no file '{tmp_path / 'q'}'"
