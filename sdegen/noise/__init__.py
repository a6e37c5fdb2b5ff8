"""Sources of noise: torch's own, a stream for each sample, one Brownian path."""

from sdegen.noise.brownian import Brownian
from sdegen.noise.source import Fresh, Inflated, Noise, Seeded

__all__ = ["Brownian", "Fresh", "Inflated", "Noise", "Seeded"]
