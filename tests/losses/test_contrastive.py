"""The contrastive loss: its minimum in closed form, whatever batch, and captions that repeat."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.guidance import CLIP, Encoder
from sdegen.losses import contrastive
from sdegen.losses.judges import matching
from tests.cases import close, fixed, normal, refused

JOINT = torch.tensor([[0.3, 0.05], [0.1, 0.25], [0.1, 0.2]], dtype=torch.float64)
"""p(x, c) of three images and two captions."""
PMI = (JOINT / (JOINT.sum(1, keepdim=True) * JOINT.sum(0))).log()


def slope(table: Tensor, b: int) -> Tensor:
    """The mean loss's gradient by a table of logits, over all batches of b independent pairs."""
    table = table.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    pairs = list(product(range(3), range(2)))
    for batch in product(pairs, repeat=b):
        x, c = torch.tensor(batch).T
        p = JOINT[x, c].prod()
        total = total + p * matching(table[x][:, c], c).mean()
    return torch.autograd.grad(total, table)[0]


@pytest.mark.parametrize("b", [2, 3])
def test_the_minimum_is_the_pointwise_mutual_information(b: int) -> None:
    """By enumeration, repeated captions and all: log p(x, c) / p(x) p(c), plus any constant."""
    close(slope(PMI + 0.7, b), torch.zeros(3, 2), atol=1e-15)
    assert slope(1.1 * PMI, b).abs().max() > 1e-3


def test_of_different_captions_it_is_the_symmetric_cross_entropy() -> None:
    logits, at = normal(5, 5), torch.arange(5)
    rows, columns = (nn.functional.cross_entropy(each, at) for each in (logits, logits.T))
    close(matching(logits, at).mean(), (rows + columns) / 2)


def test_equal_captions_are_no_negatives() -> None:
    """A pair that tells captions apart and nothing else has no loss, and no slope, at all."""
    which = torch.tensor([3, 1, 3, 3, 0])
    logits = (60.0 * (which[:, None] == which[None])).double().requires_grad_()
    loss = matching(logits, which)
    close(loss.detach(), torch.zeros(5), atol=1e-14)
    close(torch.autograd.grad(loss.sum(), logits)[0], torch.zeros(5, 5), atol=1e-14)
    assert matching(logits, torch.arange(5)).mean() > 0.3


class Table(nn.Module):
    """Features of captions of one word."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(4, d))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.weight[tokens[:, 0]]


def pair(sde: sg.LinearSDE, d: int = 3) -> CLIP:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(normal(3, 3, seed=1))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x @ self.W + t[:, None]

    return CLIP(Encoder(Net(), sde, time="t", sigma_data=None), Table(d)).double()


def test_it_is_of_noisy_states_and_their_captions() -> None:
    """At the times and with the noise of the draws, and captions compared where the mask is."""
    sde = sg.VPSDE()
    clip, x0 = pair(sde), normal(5, 3)
    tokens = torch.tensor([[1, 2], [3, 1], [1, 1], [2, 0], [3, 1]])
    mask = torch.tensor([[1, 0], [1, 1], [1, 0], [1, 0], [1, 0]]).bool()
    how: dict[str, Any] = {"draw": fixed}
    got = contrastive(clip, x0, tokens, mask, generator=torch.Generator().manual_seed(3), **how)
    z = normal(5, 3, seed=3)
    t = sg.losses.uniform_time(sde, fixed(5, x0.device, None))[0]
    level = sde(t)
    x = level.alpha[:, None] * x0 + level.sigma[:, None] * z
    f = nn.functional.normalize(clip.image(x, level))
    g = nn.functional.normalize(clip.text(tokens, mask))
    which = torch.tensor([0, 1, 0, 2, 3])  # the first and the third are of one word alike
    close(got, matching(f @ g.T / 0.07, which), rtol=1e-6)


def test_the_scale_is_cut_and_what_does_not_fit_refused() -> None:
    clip, x0 = pair(sg.VPSDE()), normal(3, 3)
    told = {"tokens": torch.tensor([[1], [2], [3]]), "mask": torch.ones(3, 1, dtype=torch.bool)}
    close(clip.scale, 1 / 0.07, rtol=1e-6)
    for log, scale in ((2.0, math.exp(2.0)), (9.0, 100.0)):
        with torch.no_grad():
            clip.logit_scale.fill_(log)
        (slope,) = torch.autograd.grad(clip.scale, clip.logit_scale)
        close([clip.scale.item(), float(slope)], [scale, scale], rtol=1e-6)
    assert clip.scale == 100
    with refused("takes two pairs or more of data and captions, but there are 1 data and 1"):
        contrastive(clip, x0[:1], *(v[:1] for v in told.values()))
    with refused("there are 0 data and 0 captions"):
        contrastive(clip, x0[:0], *(v[:0] for v in told.values()))
    with refused("there are 3 data and 2 captions"):
        contrastive(clip, x0, *(v[:2] for v in told.values()))
    with refused(r"Features of states are \(3, 3\) and of captions \(3, 2\)"):
        contrastive(pair(sg.VPSDE(), 2), x0, **told)
