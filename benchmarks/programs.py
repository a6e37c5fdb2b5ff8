"""Systems of the field as programs of examples/, for the gallery."""

from __future__ import annotations

from systems import System

PROGRAMS: list[System] = [
    System(
        "video",
        "sequences",
        "Video diffusion",
        ["Ho et al. (2022b)"],
        "h + Attention over frames (LN h) after each block, zero at first;  "
        "x0_b - w alpha / 2 grad |x_a - x0_a|^2",
        "An image network, attention over time, images beside the frames. Digits go straight on "
        "and bounce; the second half of a clip is drawn when the first is known.",
        [
            "sdegen/networks/video.py",
            "sdegen/networks/temporal.py",
            "sdegen/losses/clips.py",
            "sdegen/data/moving.py",
        ],
        "moving_digits",
        script="moving_digits.py",
    ),
    System(
        "score-distillation",
        "volumes",
        "Score distillation, DreamFusion",
        ["Poole et al. (2023)"],
        "d theta = E[w (eps(alpha x + sigma eps) - eps)] dx / d theta,  x = render(theta)",
        "A model of 8 x 8 digits as the loss of blobs in the plane and of a density in space, "
        "which a classifier of real digits reads from views that were never drawn.",
        ["sdegen/distill/scores.py"],
        "score_distillation",
        script="score_distillation.py",
        needs=["edm"],
    ),
]
"""In the order of the gallery, after those of commands."""
