"""An SDE of one's own: critically damped Langevin diffusion, Dockhorn et al. (2022)."""

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, exp, sqrt

import sdegen as sg
from sdegen.data import InfiniteBatches, toy
from sdegen.metrics import sliced_wasserstein
from sdegen.networks import MLP


@dataclass(frozen=True)
class CLD(sg.SDE):
    """dq = beta v / M dt,  dv = -beta (q + Gamma v / M) dt + sqrt(2 Gamma beta) dw."""

    M: float = 0.25  # critical damping: Gamma^2 = 4 M
    beta: float = 4.0
    gamma: float = 0.04
    T: float = 1.0
    t_min: float = 1e-3
    matrix = True

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior(torch.tensor([1.0, self.M**0.5]))

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        q, v = x.unbind(-1)
        return self.beta * torch.stack([v / self.M, -q - 2 / self.M**0.5 * v], -1)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return x.new_tensor([[0.0], [(4 * self.M**0.5 * self.beta) ** 0.5]])

    def kernel(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """From q_0 = 1, v_0 ~ N(0, gamma M): mean (*, 2), Cholesky of the covariance (*, 2, 2)."""
        u = self.beta * t.double() / self.M**0.5
        P, e = torch.special.gammainc(torch.full_like(u, 3.0), 2 * u), exp(-2 * u)
        qq = P + e * self.gamma * u**2
        qv = e * (2 * u**2 + self.gamma * u * (1 - u))  # in units of sqrt(M), and vv of M
        vv = P + e * (4 * u + self.gamma * (1 - u) ** 2)
        rows = [qq.sqrt(), 0 * u, qv / qq.sqrt(), sqrt(vv - qv**2 / qq)]
        unit = torch.tensor([1.0, self.M**0.5], dtype=torch.float64)
        mean = exp(-u)[..., None] * torch.stack([1 + u, -u], -1)
        return unit * mean, unit[:, None] * torch.stack(rows, -1).unflatten(-1, (2, 2))

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = mean q_0 + L z, whose score is -L^-T z."""
        z = (torch.randn_like(x0) if z is None else z).double()
        mean, L = (part[:, None] for part in self.kernel(t))
        x = x0[..., :1] * mean + (L * z[..., None, :]).sum(-1)
        score = -torch.linalg.solve_triangular(L.mT, z[..., None], upper=True)[..., 0]
        return x.to(x0), score.to(x0)


class VelocityScore(torch.nn.Module):
    """The velocities' score as if data were N(0, std^2 I), and what a network adds to it."""

    def __init__(self, sde: CLD, d: int, std: float) -> None:
        super().__init__()
        self.sde, self.net, self.std = sde, MLP(2 * d, width=64), std

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        mean, L = self.sde.kernel(t)
        cov = L @ L.mT + self.std**2 * mean[..., None] * mean[:, None]
        (qq, qv), (_, vv) = (row.unbind(-1) for row in cov.to(x)[:, None].unbind(-2))
        more = self.net(torch.cat([x[..., 0] / qq.sqrt(), x[..., 1] / vv.sqrt()], 1), t.log() / 4)
        v = (qv * x[..., 0] - qq * x[..., 1]) / (qq * vv - qv**2)
        v = v + more[:, ::2] * (mean[:, 0] / L[:, 1, 1]).to(x)[:, None]
        return torch.stack([torch.zeros_like(v), v], -1)


def main(steps: int = 1500, n: int = 2000, seed: int = 0) -> dict[str, float]:
    """Sliced Wasserstein distance of n samples to n fresh data, by solver; "floor": data's own."""
    torch.manual_seed(seed)
    data, fresh, sde = toy("moons"), toy("moons", n=n, seed=1), CLD()
    model = sg.ScoreModel(VelocityScore(sde, 2, 0.7), sde, predicts="score")

    def times(_: sg.SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        t, ratio = sg.losses.uniform_time(sde, u)  # the loss is one on the velocity's noise: eq. 9
        return t, ratio * sde.kernel(t)[1][:, 1, 1] ** 2

    optimizer = torch.optim.AdamW(model.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, max(steps, 1))
    for batch in islice(InfiniteBatches(len(data), 512), steps):
        optimizer.zero_grad()
        x0 = torch.stack([data.x[batch], torch.zeros(512, 2)], -1)  # velocities are not asked for
        sg.dsm_loss(model, x0, times=times).mean().backward()
        optimizer.step()
        rate.step()
    distances = {"floor": sliced_wasserstein(toy("moons", n=n, seed=2).x, fresh.x)}
    for solver, k in (
        (sg.EulerMaruyama(), 200),
        (sg.Heun(), 50),
        (sg.solvers.TorchSDE("heun"), 100),
    ):
        x = sg.sample(model, (n, 2, 2), solver=solver, steps=k, walk="quadratic", seed=seed)
        distances[type(solver).__name__] = sliced_wasserstein(x[..., 0], fresh.x)
    return distances


if __name__ == "__main__":
    print(main())
