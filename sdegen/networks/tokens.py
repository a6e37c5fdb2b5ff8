"""Tokens that a network is given, and one of its own for where there are none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdegen.checks import tensor, whole
from sdegen.networks.attention import Context, Edit
from sdegen.networks.embedding import looked_up


class Tokens(nn.Module):
    """What a network is given as ``tokens`` and ``mask``, as its attention's Context; see
    ``Conditioned`` for what they are.

    Of words a table of vectors and one of ``length`` places are learned with the network; it takes
    the vectors that these have there too (``vectors``). A
    sample without any token attends to one that is learned, and that nobody else sees; it is the
    last column of every map. So "no tokens" is: tokens not given, or a mask of False alone, or
    words of 0 alone.

    Raises ValueError, in a sentence, for tokens of another shape or type, too many of them, words
    out of range (on the CPU only: elsewhere the check would wait for the device), and a mask of
    another shape or type.
    """

    def __init__(self, width: int, words: int = 0, length: int = 77) -> None:
        super().__init__()
        self.width = whole("token_width", width)
        self.words, self.length = whole("words", words, 0), whole("length", length)
        self.none = nn.Parameter(0.02 * torch.randn(width))
        if words:
            self.table = nn.Embedding(words + 1, width)
            self.places = nn.Parameter(0.02 * torch.randn(length, width))
            nn.init.normal_(self.table.weight, std=0.02)

    def forward(
        self, batch: int, tokens: Tensor | None, mask: Tensor | None, edit: Edit | None
    ) -> Context:
        if tokens is None:
            if mask is not None:
                raise ValueError("mask was given, but no tokens: give both, or neither.")
            shape = (batch, 0) if self.words else (batch, 0, self.width)
            tokens = self.none.new_zeros(shape, dtype=torch.int64 if self.words else None)
        self._check(batch, tokens, mask)
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if self.words and not tokens.is_floating_point():
            mask = mask & (tokens != 0)
        vectors = self.vectors(tokens)
        # Behind the others, so that column j of a map is token j; and always there: processes
        # that sum their gradients wait for those of every parameter.
        none, keep = self.none.expand(batch, 1, -1), ~mask.any(1, keepdim=True)
        vectors, keep = torch.cat([vectors, none.to(vectors)], 1), torch.cat([mask, keep], 1)
        return Context(vectors, keep[:, None, None], edit)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors (B, m, width) of tokens: those of words, at their places, others as they
        are."""
        if not self.words or tokens.is_floating_point():
            return tokens.to(self.none.dtype)
        n = self.words
        refusal = f"tokens have numbers outside 0 .. {n}: 0 for none, then {n} words."
        return looked_up(self.table.weight, tokens, refusal) + self.places[: tokens.shape[1]]

    def _check(self, batch: int, tokens: Tensor, mask: Tensor | None) -> None:
        for name, each in {"tokens": tokens, "mask": mask}.items():
            if each is not None:
                tensor(f"The network's {name}", each)
        said = f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}"
        vectors = not self.words or (tokens.is_floating_point() and tokens.ndim == 3)
        shape = (batch, "m", self.width) if vectors else (batch, "m")
        fits = tokens.ndim == len(shape) and all(
            n == wanted for n, wanted in zip(tokens.shape, shape, strict=True) if wanted != "m"
        )
        right = tokens.is_floating_point() if vectors else tokens.dtype == torch.int64
        if not (fits and right):
            kind = "vectors" if vectors else "torch.int64, numbers of words,"
            raise ValueError(f"{said}, expected {kind} of ({', '.join(map(str, shape))}).")
        if tokens.shape[1] > self.length:
            raise ValueError(
                f"{said}, which are more than length = {self.length}: cut them, or build the "
                "network for more."
            )
        if mask is not None and (mask.shape != tokens.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of "
                f"{tuple(tokens.shape[:2])}: True where a token is one."
            )
