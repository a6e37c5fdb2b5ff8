"""Averages of weights whose width is chosen after the training.  Karras et al. (2024b)

An average follows a power of time, p(t) ~ t^gamma up to the step T it is of; snapshots of two such
averages, taken on the way, span all the others well enough that any width can be had later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number, warn
from sdegen.files import read_header, read_tensors

SNAPSHOTS = "snapshots"
"""The folder of a run's snapshots."""

WIDEST = 12**-0.5
"""The relative standard deviation of an average that has all steps alike."""

FAR = 0.1
"""A reconstructed profile that is further from the wanted one, relatively, is warned of."""


def power_gamma(std: float) -> float:
    """The exponent of the profile t^gamma on [0, 1] whose standard deviation is ``std``.

        std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))

    Karras et al. (2024b), sec. 3.1.  ValueError outside (0, 12^-1/2].
    """
    if not 0 < number("A profile's std", std) <= WIDEST:
        raise ValueError(
            f"A profile's std lies above 0 and at or below {WIDEST:.4f}, where all steps weigh "
            f"alike, but it is {std!r}."
        )
    low, high = 0.0, 1.0
    while power_std(high) > std:
        high *= 2
    for _ in range(100):  # it falls with gamma
        middle = (low + high) / 2
        low, high = (middle, high) if power_std(middle) > std else (low, middle)
    return (low + high) / 2


def power_std(gamma: float) -> float:
    """The standard deviation of the profile t^gamma on [0, 1], gamma >= 0."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def power(std: float) -> Callable[[int], float]:
    """How far an average with a power profile goes towards the weights, by n >= 1 averaged so far;
    k = n + 1 the step:

        a <- beta a + (1 - beta) w,      beta = (1 - 1 / k)^(gamma + 1)

    Karras et al. (2024b), sec. 3.1.  Step j has (j^(gamma+1) - (j-1)^(gamma+1)) / k^(gamma+1).
    """
    exponent = power_gamma(std) + 1
    return lambda n: -math.expm1(exponent * math.log1p(-1 / (n + 1)))


def products(steps: Tensor, gammas: Tensor, others: Tensor, exponents: Tensor) -> Tensor:
    """Inner products of profiles t^gamma up to their steps (n,) with others (m,), each of sum 1:
    (n, m), times the geometric mean of the two steps.  Karras et al. (2024b), app. C."""
    a, b = steps[:, None] / others, gammas[:, None] + exponents
    # The shorter one ends the integral: the other one's power of the ratio remains.
    ratio = torch.where(a < 1, a ** (exponents + 0.5), (1 / a) ** (gammas[:, None] + 0.5))
    return (gammas[:, None] + 1) * (exponents + 1) / (b + 1) * ratio


def combination(
    steps: Sequence[int], stds: Sequence[float], step: int, std: float
) -> tuple[Tensor, float]:
    """Which sum of averages of the steps and widths (n,) is nearest to that of another: the
    weights (n,), of sum 1, in float64, and how far it is, relative to the wanted profile.

    Least squares over profiles of a continuous time.  Karras et al. (2024b), sec. 3.2, who
    let the sum be near 1.
    """
    of = torch.tensor(steps, dtype=torch.float64)
    gammas = torch.tensor([power_gamma(each) for each in stds], dtype=torch.float64)
    at, gamma = of.new_tensor([step]), of.new_tensor([power_gamma(std)])
    inner, wanted = products(of, gammas, of, gammas), products(of, gammas, at, gamma)[:, 0]
    scale, n = (of / step).sqrt(), len(of)  # of profiles as long as ``products`` has them
    system = of.new_zeros(n + 1, n + 1)  # Lagrange's, for the sum
    system[:n, :n], system[n, :n], system[:n, n] = inner, scale, scale
    right = torch.cat([wanted, of.new_ones(1)])
    found = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:n, 0]
    norm = products(at, gamma, at, gamma)[0, 0]
    off = (norm - 2 * found @ wanted + found @ inner @ found).clamp(min=0)
    return found * scale, float((off / norm).sqrt())


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the snapshot of a step is."""
    return folder / SNAPSHOTS / f"{step:08}.safetensors"


def snapshots_of(folder: Path) -> dict[int, Path]:
    """The snapshots that there are, by step; files of other names are none."""
    found = sorted((folder / SNAPSHOTS).glob("[0-9]*.safetensors"))
    named = [(int(path.stem), path) for path in found if path.stem.isdecimal()]
    return {step: path for step, path in named if path == snapshot_path(folder, step)}


def forget_snapshots(folder: Path, step: int) -> None:
    """Drop those of later steps than a checkpoint's, which will be made again."""
    for later, path in snapshots_of(folder).items():
        if later > step:
            path.unlink()


def posthoc(folder: Path, std: float, last: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A run's weights averaged over a profile of any width, out of its snapshots and a checkpoint.

    std:  relative to the steps taken: 0.1 is an average over about the last fifth of them.
    last: the checkpoint whose step the average is of.

    Returns the weights, summed in float64, and the checkpoint's header; a warning where the
    snapshots cannot tell the profile.  ValueError for a run without snapshots, for a width that no
    profile has, and for a snapshot of another step than its name says, or of another run.
    """
    power_gamma(std)
    about = read_header(last)
    stds, step = about.get("ema_stds", []), int(about["step"])
    if not stds:
        raise ValueError(
            f"The run in {folder} has no snapshots of averages, which ema_std={std} is made of: "
            "train it with train.snapshot_every=..., or take one of its averages by ema=..."
        )
    files = {k: path for k, path in snapshots_of(folder).items() if k < step}
    at = [each for each in [*files, step] for _ in stds]
    weights, off = combination(at, [*stds] * (len(files) + 1), step, std)
    if off > FAR:
        warn(
            f"The profile of ema_std={std} is off by {off:.0%}, of {len(files) + 1} snapshots "
            f"of {', '.join(map(str, stds))}: take a width between these, or more snapshots."
        )
    shares = weights.reshape(-1, len(stds)).tolist()
    total: dict[str, Tensor] = {}
    final = read_tensors(last)[0]
    like = averaged(final, 0)
    for (k, path), parts in zip(files.items(), shares, strict=False):
        tensors, said = read_tensors(path)
        refuse_foreign(path, said, {"step": k, "ema_stds": stds})
        if any(shapes(averaged(tensors, i)) != shapes(like) for i in range(len(stds))):
            raise ValueError(
                f"The snapshot {path} has other weights than the checkpoint {last}: it is of "
                "another network; delete it."
            )
        add(total, tensors, parts)
    add(total, final, shares[-1])
    return {name: total[name].to(like[name].dtype) for name in like}, about


def refuse_foreign(path: Path, said: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError for a snapshot that says of itself what its name or its run does not."""
    for name, value in wanted.items():
        if said.get(name) != value:
            raise ValueError(
                f"The snapshot {path} says {name} = {said.get(name)}, but by its name and its run "
                f"it is {value}: put the right file there, or delete it."
            )


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Of tensors by name."""
    return {name: value.shape for name, value in tensors.items()}


def add(total: dict[str, Tensor], tensors: Mapping[str, Tensor], parts: Sequence[float]) -> None:
    """A snapshot's averages, each times its part, to the sum so far; what is not floating point
    is that of the last one."""
    for i, share in enumerate(parts):
        for name, value in averaged(tensors, i).items():
            if not value.is_floating_point():
                total[name] = value
            else:
                so_far = total.get(name, torch.zeros((), dtype=torch.float64))
                total[name] = so_far + share * value.double()


def averaged(tensors: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    """The weights of the i-th profile in a snapshot or a checkpoint."""
    begin = f"{profile_part(i)}.module."
    return {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}


def profile_part(i: int) -> str:
    """How the names of the i-th profile's tensors begin in a file."""
    return f"profile{i}"
