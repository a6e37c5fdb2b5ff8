"""A small classifier of images, whose features make a Frechet distance where Inception cannot."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ImageClassifier(nn.Module):
    """A convolutional classifier of images (B, channels, H, W), of any size from 2 x 2 up.

    ``features`` are what the last, linear layer sees: (B, 64). ``forward`` gives logits
    (B, classes).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.GroupNorm(8, 32),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 64, 64),
            nn.SiLU(),
        )
        self.head = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the classifier has seen in x (B, channels, H, W), before it decides: (B, 64)."""
        h: Tensor = self.body(x)
        return h

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def fit_classifier(x: Tensor, y: Tensor, steps: int = 300, seed: int = 0) -> ImageClassifier:
    """An ImageClassifier fitted to images x (n, C, H, W) and labels y (n,), in eval mode.

    It is trained by AdamW on ``steps`` random batches of 128, each shifted by up to one pixel, on
    the device of x. The result depends on ``seed`` and not on the global random state, which it
    leaves as it was.

    Raises ValueError if x is not floating-point (n, C, H, W) with n > 0, or y not (n,) int64
    labels from 0 on.
    """
    _check(x, y)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs' too
        net = ImageClassifier(x.shape[1], int(y.max()) + 1)
    net.to(x.device, x.dtype)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for _ in range(steps):
        chosen = torch.randint(len(x), (128,), generator=generator).to(x.device)
        loss = F.cross_entropy(net(_shifted(x[chosen], generator)), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"x is {x.dtype} of shape {tuple(x.shape)}, expected floating-point images "
            "(n, C, H, W) with n > 0."
        )
    if y.shape != x.shape[:1] or y.dtype != torch.int64 or y.min() < 0:
        raise ValueError(
            f"y is {y.dtype} of shape {tuple(y.shape)}, expected torch.int64 labels of "
            f"({len(x)},), counted from 0."
        )


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """x moved by -1, 0 or 1 pixels each way, the whole batch alike; its border is repeated."""
    down, right = torch.randint(3, (2,), generator=generator).tolist()
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return padded[:, :, down : down + height, right : right + width]
