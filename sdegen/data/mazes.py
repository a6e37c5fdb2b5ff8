"""Mazes, and plans through them: ways from one corner to the other, some of them detours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from sdegen.checks import number, whole

Square = tuple[int, int]
STEPS: tuple[Square, ...] = ((0, 1), (1, 0), (0, -1), (-1, 0))


def maze(rows: int = 5, columns: int = 5, loops: int = 0, seed: int = 0) -> Tensor:
    """Walls (2 rows + 1, 2 columns + 1), true where there is one; cells are the odd squares.

    A recursive backtracker: from the first cell on to a neighbour that was not visited, drawn at
    random, and back where there is none. So there is one way between any two cells; ``loops``
    more openings, as far as there are walls for them, make several.

    ValueError for numbers that are not whole, fewer than one row or column, and loops below 0.
    """
    rows, columns = whole("rows", rows), whole("columns", columns)
    generator = Generator().manual_seed(seed)
    walls = torch.ones(2 * rows + 1, 2 * columns + 1, dtype=torch.bool)
    walls[1, 1], stack = False, [(1, 1)]
    while stack:
        i, j = stack[-1]
        new = [(a, b) for a, b in STEPS if inside(walls, i + 2 * a, j + 2 * b)]
        new = [(a, b) for a, b in new if walls[i + 2 * a, j + 2 * b]]
        if not new:
            stack.pop()
            continue
        a, b = new[int(torch.randint(len(new), (), generator=generator))]
        walls[i + a, j + b] = walls[i + 2 * a, j + 2 * b] = False
        stack.append((i + 2 * a, j + 2 * b))
    between = torch.zeros_like(walls)  # squares between two cells that lie side by side
    between[1:-1:2, 2:-1:2] = between[2:-1:2, 1:-1:2] = True
    closed = (walls & between).nonzero()
    order = torch.randperm(len(closed), generator=generator)[: whole("loops", loops, 0)]
    walls[tuple(closed[order].T)] = False
    return walls


def inside(walls: Tensor, i: int, j: int) -> bool:
    """Whether a square is one of the maze."""
    return 0 <= i < walls.shape[0] and 0 <= j < walls.shape[1]


def route(walls: Tensor, start: Square, goal: Square) -> list[Square]:
    """The squares of a shortest way from start to goal, both of them included: breadth first.

    ValueError for squares that are walls or none of the maze, and where there is no way.
    """
    for square in (start, goal):
        if not inside(walls, *square) or walls[square]:
            raise ValueError(f"A way goes from one free square to another, but {square} is none.")
    before: dict[Square, Square] = {goal: goal}
    waiting = deque([goal])
    while waiting and start not in before:
        here = waiting.popleft()
        for a, b in STEPS:
            near = (here[0] + a, here[1] + b)
            if inside(walls, *near) and not walls[near] and near not in before:
                before[near] = here
                waiting.append(near)
    if start not in before:
        raise ValueError(f"There is no way from {start} to {goal}.")
    way = [start]
    while way[-1] != goal:
        way.append(before[way[-1]])
    return way


@dataclass(frozen=True, eq=False)
class MazePlans:
    """Plans x (n, 2, horizon), places (row, column) in [-1, 1]^2, of returns (n,) in [0, 1].

    A return is what is left of the longest plan's length, over all that lengths differ by: 1 of
    the shortest plan, 0 of the longest. walls: of the maze that they are in.
    """

    x: Tensor
    returns: Tensor
    walls: Tensor
    lengths: tuple[float, float]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.x[i], {"returns": self.returns[i]}

    def returns_of(self, x: Tensor) -> Tensor:
        """Those of other plans (b, 2, horizon), on the scale of these: above 1 of shorter ones."""
        low, high = self.lengths
        return (high - length(x)) / (high - low)

    def blocked(self, x: Tensor) -> Tensor:
        """Which places (b, 2, *) lie in a wall, or outside the maze, (b, *)."""
        size = torch.tensor(self.walls.shape, device=x.device).reshape(2, *[1] * (x.ndim - 2))
        at = ((x + 1) / 2 * size).floor().long()
        out = ((at < 0) | (at >= size)).any(1)
        at = at.clamp(min=0).minimum(size - 1)
        return out | self.walls.to(x.device)[at[:, 0], at[:, 1]]

    def follow(self, plans: Tensor, act: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Places (b, 2, horizon) of agents that follow plans of states (b, 4, horizon).

        act: (s, s') -> a, (b, 4), (b, 4) -> (b, 2): from where an agent is and where its plan is
        next. Who would step into a wall stays where it is, at rest.
        """
        s, way = plans[..., 0], [plans[:, :2, 0]]
        for k in range(1, plans.shape[2]):
            new = pushed(s, act(s, plans[..., k]))
            rest = torch.cat([s[:, :2], torch.zeros_like(s[:, 2:])], 1)
            s = torch.where(self.blocked(new[:, :2, None]), rest, new)
            way.append(s[:, :2])
        return torch.stack(way, 2)


# -------------------------------------------------------------------------- who walks in a maze

FAST, DRAG = 10.0, 2.0
"""Speeds are told in tenths of a step, so that they are as large as places; and the air."""


def states(places: Tensor) -> Tensor:
    """Places and speeds (b, 4, horizon) of places (b, 2, horizon), at its first speed at first."""
    v = places.diff(dim=2)
    return torch.cat([places, FAST * torch.cat([v[..., :1], v], 2)], 1)


def pushed(s: Tensor, a: Tensor) -> Tensor:
    """States (b, 4) after an action a (b, 2): v' = (1 - 2 |v|) v + a, then p' = p + v'."""
    v = s[:, 2:] / FAST
    v = (1 - DRAG * v.norm(dim=1, keepdim=True)) * v + a
    return torch.cat([s[:, :2] + v, FAST * v], 1)


def actions(x: Tensor) -> Tensor:
    """The actions (b, 2, horizon - 1) by which states (b, 4, horizon) come one from another."""
    v = x[:, 2:] / FAST
    slowed = (1 - DRAG * v.norm(dim=1, keepdim=True)) * v
    return v[..., 1:] - slowed[..., :-1]


# ------------------------------------------------------------------------------------ its plans


def length(x: Tensor) -> Tensor:
    """Of ways (b, 2, horizon), (b,)."""
    return x.diff(dim=2).square().sum(1).sqrt().sum(1)


def maze_plans(
    n: int = 4000,
    horizon: int = 64,
    walls: Tensor | None = None,
    noise: float = 0.1,
    seed: int = 0,
) -> MazePlans:
    """n plans from the first cell of a maze to its last, each by way of a cell drawn at random.

    The two shortest ways, to that cell and on, are followed at even speed, so that a detour is a
    fast one; corners are rounded, and a smooth wave is added that is zero at both ends. Start and
    goal lie somewhere in the middle of their cells.

    horizon: states of a plan, 8 at least.  walls: None for ``maze(5, 5, loops=4)``.
    noise:   standard deviation of the wave, in squares, of which a corridor is one wide.

    ValueError for a horizon or noise that cannot be, and walls that are none of a maze.
    """
    n, horizon = whole("n", n, 2), whole("horizon", horizon, 8)
    walls, noise = maze(5, 5, loops=4) if walls is None else walls, number("noise", noise, 0)
    if walls.dtype is not torch.bool or walls.ndim != 2 or sorted(walls.shape) < [3, 5]:
        raise ValueError(
            "walls are booleans (i, j) of a maze of two cells at least, as maze() makes them, but "
            f"they are {walls.dtype} of shape {tuple(walls.shape)}."
        )
    generator = Generator().manual_seed(seed)
    size = torch.tensor(walls.shape)
    goal = (int(size[0]) - 2, int(size[1]) - 2)
    cells = [(i, j) for i in range(1, goal[0] + 1, 2) for j in range(1, goal[1] + 1, 2)]
    ways = [route(walls, (1, 1), cell) + route(walls, cell, goal)[1:] for cell in cells]
    even = torch.stack([smooth(torch.tensor(way).float().T, horizon) for way in ways])
    x = even[torch.randint(len(cells), (n,), generator=generator)]
    x = x + noise * wave(n, horizon, generator)
    ends = 0.1 * torch.randn(n, 2, 2, generator=generator)
    t = torch.linspace(0, 1, horizon)
    x = x + ends[:, :, :1] * (1 - t) + ends[:, :, 1:] * t
    x = 2 * (x + 0.5) / size[:, None] - 1
    long = length(x)
    low, high = float(long.min()), float(long.max())
    return MazePlans(x, (high - long) / (high - low), walls, (low, high))


def smooth(corners: Tensor, horizon: int) -> Tensor:
    """A way (2, k) of unit steps as so many places at even distances, its corners rounded by a
    mean over one step."""
    fine = F.interpolate(corners[None], 16 * (corners.shape[1] - 1) + 1, mode="linear",
                         align_corners=True)  # fmt: skip
    mean = F.avg_pool1d(F.pad(fine, (8, 8), mode="replicate"), 17, stride=1)
    return F.interpolate(mean, horizon, mode="linear", align_corners=True)[0]


def wave(n: int, horizon: int, generator: Generator) -> Tensor:
    """Sums of six sines that are zero at both ends (n, 2, horizon), of unit variance between."""
    t = torch.linspace(0, torch.pi, horizon)
    sines = torch.stack([(k * t).sin() for k in range(1, 7)])
    return torch.randn(n, 2, 6, generator=generator) @ sines / 3**0.5
