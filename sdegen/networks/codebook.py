"""Vectors by the nearest of finitely many codes, which follow the vectors that come to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdegen.checks import whole

FAINT = 1e-5
"""What Laplace smoothing adds to every count."""


class Codebook(nn.Module):
    """k codes e_i of d channels, and q(z) = the nearest of them at every place.

        n_i <- decay n_i + (1 - decay) |{z of the batch : q(z) = e_i}|
        m_i <- decay m_i + (1 - decay) SUM of these z          e_i = m_i / n_i

    after every batch in training mode, n smoothed so that none is 0. Oord et al. (2017),
    section 3.1 and appendix A.1. A code with n_i below ``restart`` of the mean is dead, and begins
    again as a vector drawn from the batch: Dhariwal et al. (2020), section 3.1.

    Called with z (B, d, *space), as it is; the gradient of the result is that of z, "straight
    through". Codes are buffers, which no optimiser sees. Processes that train together add up what
    came to their codes, and have the same ones.
    Raises ValueError for z of another number of channels.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, k: int, d: int, decay: float = 0.99, restart: float = 0.1) -> None:
        super().__init__()
        whole("codes", k, 2), whole("channels of a code", d)
        if not 0 <= decay < 1 or not 0 <= restart < 1:
            raise ValueError(f"decay = {decay} and restart = {restart}, expected 0 <= both < 1.")
        self.decay, self.restart = decay, restart
        codes = torch.randn(k, d)
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.ones(k))
        self.register_buffer("sums", codes.clone())

    def nearest(self, z: Tensor) -> Tensor:
        """Which code is nearest to z (B, d, *space) at every place, (B, *space)."""
        if z.ndim < 2 or z.shape[1] != self.codes.shape[1]:
            raise ValueError(
                f"z has shape {tuple(z.shape)}, expected (B, {self.codes.shape[1]}, ...): as many "
                "channels as a code has."
            )
        flat = self._flat(z)
        # Not by products: a code is then at distance 0 of itself, whatever the rounding.
        how = "donot_use_mm_for_euclid_dist"
        with torch.autocast(z.device.type, enabled=False):
            apart = torch.cdist(flat, self.codes.to(flat.dtype), compute_mode=how)
        return apart.argmin(1).reshape(z.shape[0], *z.shape[2:])

    def look_up(self, index: Tensor) -> Tensor:
        """Codes of an index (B, *space), (B, d, *space)."""
        return self.codes[index].movedim(-1, 1)

    def quantise(self, z: Tensor) -> Tensor:
        """The nearest codes, (B, d, *space), without a gradient."""
        return self.look_up(self.nearest(z)).to(z)

    def forward(self, z: Tensor) -> Tensor:
        """The nearest codes with the gradient of z; in training mode the codes learn from z."""
        index = self.nearest(z)
        q = self.look_up(index).to(z)
        if self.training:
            self._learn(self._flat(z), index.flatten())
        return z + (q - z).detach()

    def _flat(self, z: Tensor) -> Tensor:
        """All vectors of z, (n, d), in the type of the codes, float32 at least."""
        wide = torch.promote_types(self.codes.dtype, torch.float32)
        return z.detach().movedim(1, -1).reshape(-1, z.shape[1]).to(wide)

    @torch.no_grad()
    def _learn(self, z: Tensor, index: Tensor) -> None:
        """Take in vectors z (n, d), which came to the codes of an index (n,)."""
        k = len(self.codes)
        # Products of whole matrices are the same every time; sums by index are not on a GPU.
        came = torch.nn.functional.one_hot(index, k).to(z.dtype).T
        with torch.autocast(z.device.type, enabled=False):
            new = torch.cat([came.sum(1, keepdim=True), came @ z], 1)
        begin = z[torch.randint(len(z), (k,)).to(z.device)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(new)
            torch.distributed.broadcast(begin, 0)
        new, begin = new.to(self.sums.dtype), begin.to(self.sums.dtype)
        self.counts.lerp_(new[:, 0], 1 - self.decay)
        self.sums.lerp_(new[:, 1:], 1 - self.decay)
        total = self.counts.sum()
        dead = self.counts < self.restart * total / k
        smooth = (self.counts + FAINT) / (total + k * FAINT) * total
        self.codes.copy_(torch.where(dead[:, None], begin, self.sums / smooth[:, None]))
        self.counts.copy_(torch.where(dead, total / k, self.counts))
        self.sums.copy_(torch.where(dead[:, None], begin * total / k, self.sums))


def perplexity(index: Tensor, k: int) -> float:
    """exp of the entropy of how often the codes 0 to k - 1 come in an index: k where all come
    alike, 1 where one comes alone.

    ValueError for an empty index.
    """
    counts = index.flatten().bincount(minlength=k).double()
    if not index.numel():
        raise ValueError("Of no places there is no perplexity.")
    p = counts / counts.sum()
    return float(torch.special.entr(p).sum().exp())
