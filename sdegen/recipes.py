"""Published names that are settings of a class here: where someone looking for them lands."""

from __future__ import annotations

from typing import Literal

from sdegen.solvers import Ancestral


def DDPM(variance: Literal["small", "large"] = "small") -> Ancestral:
    """Ho et al. (2020), alg. 2: ancestral sampling, on DDPM's betas or on any other levels."""
    return Ancestral(variance)
