"""Distributions whose scores are exact, and the orders of solvers measured on them."""

from sdegen.exact.distributions import (
    Empirical,
    Gaussian,
    LowRankMixture,
    Mixture,
    Problem,
    exact_model,
)
from sdegen.exact.orders import flow_order, law, strong_order, weak_order

__all__ = [
    "Empirical",
    "Gaussian",
    "LowRankMixture",
    "Mixture",
    "Problem",
    "exact_model",
    "flow_order",
    "law",
    "strong_order",
    "weak_order",
]
