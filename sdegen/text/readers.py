"""What stands between an encoder's tokens and a network, and is saved with its weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole
from sdegen.networks.attention import Place, attend, head_width, of_heads


class Reader(nn.Module):
    """tokens and mask (b, m) of an encoder -> those of a network, (b, k, e) and (b, k)."""

    @abstractmethod
    def fit(self, tokens: Tensor, mask: Tensor) -> None:
        """Take what is known beforehand of the distinct training captions' tokens."""

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Of a batch."""


class Reading(nn.Module):
    """A network whose tokens come through a reader: ``net(x, t, tokens=, mask=, ...)``."""

    def __init__(self, net: nn.Module, reader: Reader) -> None:
        super().__init__()
        self.net, self.reader = net, reader

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        **told: Any,
    ) -> Tensor:
        """What the network makes of x (b, *) at the time labels t (b,).

        ValueError for tokens without a mask, or a mask without tokens.
        """
        if (tokens is None) != (mask is None):
            raise ValueError("tokens and mask belong together: give both, or neither.")
        if tokens is not None:
            tokens, mask = self.reader(tokens, mask)
        out: Tensor = self.net(x, t, tokens=tokens, mask=mask, **told)
        return out


class TransformerReader(Reader):
    """Numbers of words (b, m) -> a summary of them all and each in its context, (b, m + 1, width).

    Tables of words and of places, then blocks of self-attention and a two-layer MLP, each behind a
    normalisation. The summary is the place of a learned vector before the words: Devlin et al.
    (2019), section 3. What stands where no word is changes nothing of the others.

    Raises ValueError for tokens of another shape or type, too many of them, or out of range (on
    the CPU only: elsewhere the check would wait for the device).
    """

    def __init__(self, width: int, words: int, length: int, layers: int, heads: int) -> None:
        super().__init__()
        head_width(width, heads)
        self.words, self.length = whole("words", words), whole("length", length)
        self.table = nn.Embedding(words + 1, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        nn.init.normal_(self.table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(whole("layers", layers)))
        self.norm = nn.LayerNorm(width)

    def fit(self, tokens: Tensor, mask: Tensor) -> None:
        """Nothing: all of it is learned."""

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(b, m) int64 and bool -> (b, m + 1, width) and (b, m + 1)."""
        if tokens.dtype != torch.int64 or tokens.ndim != 2 or tokens.shape[1] > self.length:
            raise ValueError(
                f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, expected torch.int64 "
                f"of (b, m), numbers of {self.length} words at most."
            )
        if mask.shape != tokens.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of "
                f"{tuple(tokens.shape)}: True where a token is one."
            )
        try:
            words = self.table(tokens) + self.places[: tokens.shape[1]]
        except IndexError:
            raise ValueError(
                f"tokens have numbers outside 0 .. {self.words}: 0 for none, then {self.words} "
                "words."
            ) from None
        mask = mask & (tokens != 0)
        h = torch.cat([self.summary.expand(len(tokens), 1, -1), words], dim=1)
        seen = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)  # something is always seen
        for block in self.blocks:
            h = block(h, seen)
        return self.norm(h), torch.cat([mask.any(1, keepdim=True), mask], dim=1)


class Block(nn.Module):
    """Self-attention among what is seen, then an MLP.  Vaswani et al. (2017), section 3.1, with
    the normalisations before them: Xiong et al. (2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        """(b, n, width) with seen (b, n)."""
        q, k, v = of_heads(self.qkv(self.norm1(h)), 3, self.heads)
        place = Place("text", False, (h.shape[1],))
        mixed = attend(q, k, v, place, seen[:, None, None])
        h = h + self.leave(mixed.transpose(1, 2).flatten(2))
        out: Tensor = h + self.out(F.gelu(self.hidden(self.norm2(h))))
        return out


class Whitener(Reader):
    """z = W (v - mean): vectors v (b, m, d) -> (b, m, dims), over the training captions of mean 0
    and covariance I.

    W has the ``dims`` first principal directions of the distinct captions' vectors, each over its
    standard deviation. Sentence vectors lie in a narrow cone: as they are, what tells captions
    apart is a small part of them. ``mean`` and W are saved with the weights.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.zeros(dims, dim))

    def fit(self, tokens: Tensor, mask: Tensor) -> None:
        """Of the captions' vectors, in float64; ValueError where they span less than ``dims``."""
        v = tokens[mask].double()
        dims = len(self.matrix)
        if len(v) <= dims:
            raise ValueError(
                f"text.dims = {dims} directions of {len(v)} distinct captions: give fewer than "
                "captions."
            )
        mean = v.mean(0)
        _, s, directions = torch.linalg.svd(v - mean, full_matrices=False)
        std = s / len(v) ** 0.5
        if std[dims - 1] <= 1e-4 * std[0]:
            rank = int((std > 1e-4 * std[0]).sum())
            raise ValueError(
                f"text.dims = {dims}, but the captions' vectors vary in {rank} directions: give "
                f"text.dims={rank} or fewer."
            )
        self.mean.copy_(mean)
        self.matrix.copy_(directions[:dims] / std[:dims, None])

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(b, m, d) -> (b, m, dims), and the mask itself."""
        if tokens.ndim != 3 or tokens.shape[2] != len(self.mean):
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}, expected (b, m, {len(self.mean)})."
            )
        return F.linear(tokens.to(self.mean.dtype) - self.mean, self.matrix), mask
