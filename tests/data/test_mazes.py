"""Mazes are trees, ways are shortest ways, plans stay in corridors, agents out of walls."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse.csgraph import connected_components, shortest_path
from torch import Tensor

from sdegen.data import MazePlans, maze, maze_plans
from sdegen.data.mazes import actions, length, pushed, route, smooth, states
from tests.cases import close, normal, refused, refused_with


def graph(walls: Tensor) -> Tensor:
    """The free squares' neighbours, as a matrix over all squares."""
    n, m = walls.shape
    free, edges = ~walls, torch.zeros(n * m, n * m)
    for i in range(n):
        for j in range(m):
            for a, b in ((1, 0), (0, 1)):
                if i + a < n and j + b < m and free[i, j] and free[i + a, j + b]:
                    edges[i * m + j, (i + a) * m + j + b] = 1
    return edges + edges.T


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 6), (5, 5), (4, 7)])
def test_a_maze_is_a_tree(rows: int, columns: int) -> None:
    """Every cell is reached, and there is one way: one edge fewer than squares."""
    walls = maze(rows, columns, seed=3)
    assert walls.shape == (2 * rows + 1, 2 * columns + 1)
    assert not walls[1::2, 1::2].any() and walls[0].all() and walls[:, -1].all()
    assert walls[::2, ::2].all()
    edges, free = graph(walls), int((~walls).sum())
    assert int(edges.sum()) == 2 * (free - 1)
    found, of = connected_components(edges.numpy())
    assert len(set(of[(~walls).flatten().numpy()].tolist())) == 1 and found > 0


def test_loops_open_as_many_walls() -> None:
    walls, open_ = maze(5, 5, seed=1), maze(5, 5, loops=4, seed=1)
    assert int(walls.sum() - open_.sum()) == 4 and not (open_ & ~walls).any()
    assert not maze(3, 3, loops=100)[1:-1:2, 2:-1:2].any()  # and no more than there are
    assert torch.equal(maze(5, 5, loops=4, seed=1), open_)
    assert not torch.equal(maze(5, 5, seed=2), walls)


def test_a_route_is_a_shortest_way() -> None:
    """As long as SciPy's, free all along, step by step."""
    walls = maze(4, 5, loops=5, seed=2)
    m = walls.shape[1]
    lengths = shortest_path(graph(walls).numpy())
    free = [(int(i), int(j)) for i, j in (~walls).nonzero()]
    for goal in free[::5]:
        for start in free[::7]:
            way = torch.tensor(route(walls, start, goal))
            assert len(way) - 1 == lengths[start[0] * m + start[1], goal[0] * m + goal[1]]
            assert tuple(way[0].tolist()) == start and tuple(way[-1].tolist()) == goal
            assert bool((way.diff(dim=0).abs().sum(1) == 1).all())
            assert not walls[tuple(way.T)].any()


def test_a_straight_way_stays_straight_and_even() -> None:
    corners = torch.stack([torch.zeros(5), torch.arange(5.0)])
    x = smooth(corners, 33)
    close(x[0], torch.zeros(33))
    assert x.shape == (2, 33) and float(x[1, 0]) > 0 and float(x[1, -1]) < 4
    close(x[1, 8:25].diff(), x[1, 8:9].new_full((16,), float(x[1, 9] - x[1, 8])), rtol=1e-4)


def test_plans_are_of_the_maze() -> None:
    data = maze_plans(500, seed=1)
    assert data.x.shape == (500, 2, 64) and len(data) == 500
    assert float(data.blocked(data.x).float().mean()) < 0.01
    assert float(data.returns.min()) == 0 and float(data.returns.max()) == 1
    close(data.returns_of(data.x), data.returns, atol=1e-5)
    assert float(torch.corrcoef(torch.stack([data.returns, length(data.x)]))[0, 1]) < -0.9999
    x, told = data[3]
    assert torch.equal(x, data.x[3]) and torch.equal(told["returns"], data.returns[3])
    corner = torch.tensor([2 * 1.5 / 11 - 1]).expand(2)
    assert float((data.x[:, :, 0] - corner).abs().max()) < 0.1 * 2 / 11 * 5
    assert torch.equal(maze_plans(500, seed=1).x, data.x)
    assert not torch.equal(maze_plans(500, seed=2).x, data.x)


def test_without_noise_plans_are_clear_of_walls() -> None:
    """Corners are cut by less than a corridor is wide."""
    data = maze_plans(200, noise=0.0)
    assert not data.blocked(data.x).any()


def test_places_are_in_squares() -> None:
    walls = maze(2, 3)
    data = MazePlans(torch.zeros(1, 2, 8), torch.zeros(1), walls, (0.0, 1.0))
    i, j = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    middle = torch.stack([(i + 0.5) / 5, (j + 0.5) / 7]).flatten(1) * 2 - 1
    assert torch.equal(data.blocked(middle[None]), walls.flatten()[None])
    outside = torch.tensor([[-1.01, 1.01, 0.0], [0.0, 0.0, -1.2]])[None]
    assert data.blocked(outside).all()


def test_actions_make_the_states() -> None:
    """What is pushed by them comes where the plan is, for any places at all."""
    x = states(0.1 * normal(4, 2, 16).cumsum(2))
    a, s = actions(x), x[..., 0]
    for k in range(15):
        s = pushed(s, a[..., k])
        close(s, x[..., k + 1], atol=1e-12)
    close(x[:, 2:, 0], x[:, 2:, 1])


def test_an_agent_that_knows_the_actions_follows_and_enters_no_wall() -> None:
    data = maze_plans(50, noise=0.0)
    x = states(data.x.double())

    def exactly(s: Tensor, then: Tensor) -> Tensor:
        return actions(torch.stack([s, then], 2))[..., 0]

    close(data.follow(x, exactly)[..., -1], x[:, :2, -1], atol=1e-9)
    through = torch.stack([torch.linspace(float(p), float(q), 64) for p, q in x[0, :2, [0, -1]]])
    assert data.blocked(through[None]).any()
    way = data.follow(states(through[None].double()), exactly)
    assert not data.blocked(way).any() and way.shape == (1, 2, 64)
    assert torch.equal(way[..., -1], way[..., -2])  # it stands before the wall


def test_refusals() -> None:
    with refused("rows must be a whole number"):
        maze(0)
    with refused("loops must be a whole number"):
        maze(3, 3, loops=-1)
    with refused_with("(0, 0) is none"):
        route(maze(2, 2), (0, 0), (1, 1))
    cut = maze(1, 3)
    cut[1, 2] = True
    with refused("no way from"):
        route(cut, (1, 1), (1, 5))
    with refused("horizon must be"):
        maze_plans(5, 7)
    with refused("n must be"):
        maze_plans(1)
    with refused("a maze of two cells at least"):
        maze_plans(5, walls=maze(1, 1))
    with refused("noise must be a number >= 0"):
        maze_plans(5, noise=-1.0)
