"""Streams of one seed by name."""

from __future__ import annotations

import torch

import sdegen as sg


def test_streams_by_name_share_no_draw() -> None:
    x, t, s = torch.zeros(3, 4), sg.VPSDE()(0.7), sg.VPSDE()(0.6)
    names = ["", "prior", "corrector", "climb"]
    sources = [sg.Seeded(0).stream(name) if name else sg.Seeded(0) for name in names]
    draws = [source(x, t, s) for source in sources]
    for i in range(len(draws)):
        for j in range(i):
            assert not bool((draws[i] == draws[j]).any()), (names[i], names[j])
