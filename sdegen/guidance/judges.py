"""Networks that see noisy states: classifiers, and encoders whose features are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from sdegen.checks import one_of
from sdegen.model.labels import TIME_LABELS, Label, label_dtype
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import SDE, linear

Encode = Any
"""(x (b, *), level) -> features (b, *): an ``Encoder``, or any function of the same."""


class Encoder(nn.Module):
    """A network of noisy states, told what a ``ScoreModel`` tells its own: features (b, *).

    net:        (c_in x, label) -> features, or logits.
    sde:        whose states it sees; ``time``: the label's name, or a function of the level.
    sigma_data: std of the data, by which c_in scales a state to unit variance; None: as it is.
    """

    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        *,
        time: str | Label = "c_noise",
        sigma_data: float | None = 0.5,
    ) -> None:
        super().__init__()
        linear(sde, "A network of noisy states", "take a LinearSDE")
        self.net, self.sde, self.sigma_data = net, sde, sigma_data
        self.label: Label = (
            one_of(time, "time label", TIME_LABELS)(sde) if isinstance(time, str) else time
        )

    def forward(self, x: Tensor, level: Level) -> Tensor:
        """Features at states x (b, *) and a level."""
        kind = next(self.net.parameters()).dtype
        label = self.label(level)
        to = label_dtype(label, kind)
        if label.ndim:
            label = label.to(x.device, to)
        else:  # a number handed to a kernel: no copy, no synchronisation
            label = x.new_zeros(len(x), dtype=to) + label.to(to)
        if self.sigma_data is not None:
            c_in = ((level.alpha * self.sigma_data) ** 2 + level.sigma**2).rsqrt()
            x = expand(c_in, x) * x
        features: Tensor = self.net(x.to(kind), label)
        return features


class Judge(nn.Module):
    """A classifier of noisy states: log p(y | x_t) of an ``Encoder`` whose features are logits.

    The arguments are the encoder's. ``sg.losses.noisy_ce`` trains it; ``Guided(model, judge,
    given={"y": y})`` asks it.  Dhariwal & Nichol (2021), sec. 4.
    """

    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        *,
        time: str | Label = "c_noise",
        sigma_data: float | None = 0.5,
    ) -> None:
        super().__init__()
        self.logits = Encoder(net, sde, time=time, sigma_data=sigma_data)

    @property
    def sde(self) -> SDE:
        """Whose states it judges."""
        return self.logits.sde

    def forward(self, x: Tensor, level: Level, y: Tensor) -> Tensor:
        """log p(y | x_t), (b,), in float32 at least.

        ValueError for labels that are none of its classes.
        """
        logits = self.logits(x, level)
        check_labels(y, logits)
        wide = logits.float() if logits.element_size() < 4 else logits
        return wide.log_softmax(1).gather(1, y.to(x.device)[:, None])[:, 0]


def check_labels(y: Any, logits: Tensor) -> None:
    """ValueError for what is no label of each sample; on the host for one that no logit is of."""
    fine = isinstance(y, Tensor) and y.dtype is torch.int64 and y.shape == logits.shape[:1]
    if not fine:
        said = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else repr(y)
        raise ValueError(
            f"A judge is asked about labels y, int64 of shape ({len(logits)},), not {said}."
        )
    if y.device.type == "cpu" and bool(((y < 0) | (y >= logits.shape[1])).any()):
        raise ValueError(
            f"The judge knows {logits.shape[1]} classes, from 0, but a label is "
            f"{int(y.min()) if int(y.min()) < 0 else int(y.max())}."
        )


@dataclass(frozen=True)
class Similarity:
    """cos(E(x_t, t), target): a log_p for ``Guided``.  Liu et al. (2021).

    encode: of noisy states, or, with ``Guided(through=True)``, of E[x0 | x_t].

    ``Guided(model, Similarity(encode), 100.0, given={"target": features})`` compares each sample
    with features of its own (b, *), or with those of one row. ``sg.losses.matched`` trains an
    encoder of noisy states to say what one of clean data does.
    """

    encode: Encode

    @property
    def sde(self) -> SDE | None:
        """Whose noisy states the encoder knows, where it says so."""
        return getattr(self.encode, "sde", None)

    def __call__(self, x: Tensor, level: Instant, target: Tensor) -> Tensor:
        """(b,)."""
        features = self.encode(x, level).flatten(1)
        wanted = fitting("Features", features, target)
        return cosine_similarity(features, wanted.to(features), dim=1)


@dataclass(frozen=True)
class Style:
    """-|G(E(x_t, t)) - target|^2 with Gram matrices G of feature maps: a log_p for ``Guided``.

    Gatys et al. (2016), eq. 3-5; Liu et al. (2021). ``target`` is ``gram`` of the maps
    of what has the style. Each sample's matrices are its own.
    """

    encode: Encode

    @property
    def sde(self) -> SDE | None:
        """Whose noisy states the encoder knows, where it says so."""
        return getattr(self.encode, "sde", None)

    def __call__(self, x: Tensor, level: Instant, target: Tensor) -> Tensor:
        """(b,)."""
        found = gram(self.encode(x, level))
        wanted = fitting("Gram matrices", found, target)
        return -(found - wanted.to(found)).square().sum(1)


def gram(maps: Tensor) -> Tensor:
    """F F^T / (channels pixels) of feature maps (b, channels, *), in float32 at least, flat:
    (b, channels^2)."""
    if maps.ndim < 3:
        raise ValueError(f"Feature maps are (b, channels, *), but they are {tuple(maps.shape)}.")
    F = maps.flatten(2)
    F = (F.float() if F.element_size() < 4 else F) / (F.shape[1] * F.shape[2]) ** 0.5
    return torch.einsum("bip,bjp->bij", F, F).flatten(1)


def fitting(what: str, found: Tensor, target: Tensor) -> Tensor:
    """A target as features (b, k) are; ValueError for one that is neither one row nor one for each
    sample, or of other features."""
    if target.ndim > 1 and len(target) in (1, len(found)):
        wanted = target.flatten(1)
        if wanted.shape[1:] == found.shape[1:]:
            return wanted
    raise ValueError(
        f"{what} of the states are {tuple(found.shape)}, but the target is "
        f"{tuple(target.shape)}: encode what the samples should be like with the same network."
    )
