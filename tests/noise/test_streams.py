"""Streams of one seed by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sdegen as sg
from tests.cases import refused


def test_streams_by_name_share_no_draw() -> None:
    x, t, s = torch.zeros(3, 4), sg.VPSDE()(0.7), sg.VPSDE()(0.6)
    names = ["", "prior", "corrector", "climb"]
    sources = [sg.Seeded(0).stream(name) if name else sg.Seeded(0) for name in names]
    draws = [source(x, t, s) for source in sources]
    for i in range(len(draws)):
        for j in range(i):
            assert not bool((draws[i] == draws[j]).any()), (names[i], names[j])


@pytest.mark.parametrize("source", [sg.Seeded, lambda seed, first: sg.Brownian(seed, 1.0, first)])
def test_samples_by_their_places_have_the_noise_of_the_whole(source: Any) -> None:
    """In any order, of each stream."""
    x, t, s, places = torch.zeros(5, 3), sg.VPSDE()(0.7), sg.VPSDE()(0.6), [4, 0, 2]
    whole, part = source(9, 2), source(9, [2 + i for i in places])
    for name in ("", "prior", "corrector"):
        a, b = (each.stream(name) if name else each for each in (whole, part))
        assert torch.equal(a(x, t, s)[places], b(x[:3], t, s))
    if part.path:
        index = torch.tensor([2, 1])
        assert torch.equal(part.take(index)(x[:2], t, s), part(x[:3], t, s)[index])
    with refused("3 places were given for a batch of 5 samples"):
        source(9, [0, 1, 2])(x, t, s)
