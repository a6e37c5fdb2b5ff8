"""The probability flow both ways: encodings, densities, bits per dimension, bounds, messages."""

from sdegen.likelihood.bits import Bits, bits_per_dim
from sdegen.likelihood.bounds import Elbo, LamTimes, discrete_elbo, elbo, fitted
from sdegen.likelihood.compression import Compressed, compressed, decompressed
from sdegen.likelihood.density import LogProb, log_prob
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import decode, encode, slerp
from sdegen.likelihood.rates import Point, even_walk, rate_distortion

__all__ = [
    "Bits",
    "Compressed",
    "Divergence",
    "Elbo",
    "LamTimes",
    "LogProb",
    "Point",
    "bits_per_dim",
    "compressed",
    "decode",
    "decompressed",
    "discrete_elbo",
    "elbo",
    "encode",
    "even_walk",
    "fitted",
    "log_prob",
    "rate_distortion",
    "slerp",
]
