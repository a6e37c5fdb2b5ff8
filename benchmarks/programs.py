"""Systems of the field as programs of examples/, for the gallery."""

from __future__ import annotations

from systems import System

PROGRAMS: list[System] = [
    System(
        "compression",
        "theory",
        "Lossy compression with Gaussian diffusion",
        ["Theis et al. (2022)"],
        "rate = KL(q(x_T | x0) || prior) + sum of KL(q(x_s | x_t, x0) || p(x_s | x_t))",
        "16 x 16 patches of photographs: rate and distortion of what a network of six minutes "
        "sends, beside a Gaussian and JPEG without its head; eight patches as bytes and back.",
        [
            "sdegen/likelihood/rates.py",
            "sdegen/likelihood/compression.py",
            "sdegen/likelihood/channel.py",
            "sdegen/likelihood/messages.py",
        ],
        "compression",
        script="compression.py",
    ),
    System(
        "convergence",
        "theory",
        "Convergence, measured",
        ["Chen et al. (2023b)", "Lee, Lu & Tan (2022)"],
        "KL(p || p_hat) <= KL(p_T || prior) + sum of E KL(p(x_s | x_t) || p_hat(x_s | x_t))",
        "On Gaussians, without sampling: the start, a wrong score, steps, and a corrector.",
        ["sdegen/exact/convergence.py"],
        "convergence",
        script="convergence.py",
    ),
    System(
        "tempering",
        "theory",
        "Denoising MCMC",
        ["Kim & Ye (2022)"],
        "p(y, i) ~ p_i(y):  y <- y - step rho eps + sqrt(2 step) rho z,  i ~ p(i | y)",
        "Three far modes of weights 0.2, 0.5, 0.3: all chains begin in the second.",
        ["sdegen/sampling/tempering.py"],
        "tempering",
        script="tempering.py",
    ),
]
"""In the order of the gallery, after those of commands."""
