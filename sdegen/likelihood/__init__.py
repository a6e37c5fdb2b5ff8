"""The probability flow both ways: encodings, densities, bits per dimension, bounds."""

from sdegen.likelihood.bits import Bits, bits_per_dim
from sdegen.likelihood.bounds import Elbo, LamTimes, discrete_elbo, elbo, fitted
from sdegen.likelihood.density import LogProb, log_prob
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import decode, encode, slerp

__all__ = [
    "Bits",
    "Divergence",
    "Elbo",
    "LamTimes",
    "LogProb",
    "bits_per_dim",
    "decode",
    "discrete_elbo",
    "elbo",
    "encode",
    "fitted",
    "log_prob",
    "slerp",
]
