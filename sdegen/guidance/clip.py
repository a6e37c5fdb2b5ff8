"""A contrastive pair: an encoder of noisy states and one of captions, in one space of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from sdegen.guidance.judges import Encoder
from sdegen.guidance.wrapped import refuse_end
from sdegen.sde.level import Level, expand
from sdegen.sde.process import SDE, LinearSDE
from sdegen.text import Encoder as TextEncoder
from sdegen.text import TransformerReader

LARGEST = 100.0
"""What exp(logit_scale) is cut to.  Radford et al. (2021), section 2.5."""


class CLIP(nn.Module):
    """Logits exp(logit_scale) <f(x_t, t), g(text)> of noisy states and captions, |f| = |g| = 1.

    Radford et al. (2021); of noisy images as in Nichol et al. (2022), GLIDE.
    ``sg.losses.contrastive`` trains it. Over all functions the loss is least where the logits are
    log p(x_t, text) / (p(x_t) p(text)) and a constant: the gradient by x_t is then what the score
    lacks to be that of p(x_t | text).

    image: an ``Encoder`` of noisy states, to (b, d).
    text:  (tokens, mask) of captions -> (b, d), as a ``TextTower``.

    ``Guided`` by ``Similarity(clip.image)``, at s times ``scale`` and with a text's ``embed_text``
    as the target, is guided by it; ``embed`` is what unCLIP's two models are of.
    """

    def __init__(self, image: Encoder, text: nn.Module) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def sde(self) -> SDE:
        """Whose states it knows."""
        return self.image.sde

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), 100 at most, where its slope is 100 too: it may come back."""
        cut = self.logit_scale.detach().exp().clamp(max=LARGEST)
        return cut * (1 + (self.logit_scale - self.logit_scale.detach()))

    def forward(self, x: Tensor, level: Level, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits (b, k) of states x (b, *) at a level and k captions, in float32 at least.

        ValueError where the two encoders make features of different width.
        """
        f, g = wide(self.image(x, level)), wide(self.text(tokens, mask))
        if f.ndim != 2 or f.shape[1:] != g.shape[1:]:
            raise ValueError(
                f"Features of states are {tuple(f.shape)} and of captions {tuple(g.shape)}: let "
                "both encoders make as many numbers, (b, d)."
            )
        return self.scale * normalize(f) @ normalize(g).T

    def embed(self, x0: Tensor) -> Tensor:
        """z (b, d) of clean data x0 (b, *): sqrt(d) f(alpha x0, t_min), of norm sqrt(d).

        So its coordinates are of unit variance, about, as diffusion asks of data.
        """
        sde = self.sde
        assert isinstance(sde, LinearSDE)  # an Encoder takes no other
        level = sde(torch.tensor(sde.t_min, dtype=torch.float64))
        refuse_end(level, "The embedding of clean data", "sigma")  # no label says it
        return on_sphere(wide(self.image(expand(level.alpha, x0) * x0, level)))

    def embed_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """z (b, d) of captions, sqrt(d) g, of norm sqrt(d)."""
        return on_sphere(wide(self.text(tokens, mask)))


class TextTower(nn.Module):
    """What a text encoder says of captions as ``out`` numbers: (b, m, *) and (b, m) -> (b, out).

    Tokens that are numbers of words go through a small transformer, those of a reader through
    this; then an MLP of two layers makes ``out`` numbers of their mean over the mask. (Radford et
    al. 2021 take the token at the text's end.)  ``width``: of the transformer and the MLP.
    """

    def __init__(self, encoder: TextEncoder, out: int, width: int = 64) -> None:
        super().__init__()
        e, self.reader = encoder.width, encoder.reader()
        if encoder.words:
            e, self.reader = width, TransformerReader(width, encoder.words, encoder.most, 2, 4)
        if isinstance(self.reader, TransformerReader):
            # Of unit variance: words smaller than what attention adds are hardly told apart.
            nn.init.normal_(self.reader.table.weight)
        self.hidden, self.leave = nn.Linear(e, width), nn.Linear(width, out)

    def fit(self, tokens: Tensor, mask: Tensor) -> None:
        """Let the reader take what it takes of the distinct training captions."""
        if self.reader is not None:
            self.reader.fit(tokens, mask)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Of captions; those without a token are all alike."""
        if self.reader is not None:
            tokens, mask = self.reader(tokens, mask)
        kept = mask[..., None].to(tokens)
        mean = (tokens * kept).sum(1) / kept.sum(1).clamp(min=1)
        out: Tensor = self.leave(silu(self.hidden(mean.to(self.hidden.weight))))
        return out


def on_sphere(v: Tensor) -> Tensor:
    """sqrt(d) v / |v| of vectors (b, d): an embedding of that direction."""
    return v.shape[-1] ** 0.5 * normalize(v, dim=-1)


def as_token(z: Tensor) -> dict[str, Tensor]:
    """Embeddings z (b, d) as what a network with ``token_width=d`` is told of them, a token each:
    ``model.given(**as_token(z))``, which ``dropped`` and ``CFG`` take away by ``NO_TEXT``.

    ValueError for a z of another shape.
    """
    if z.ndim != 2:
        raise ValueError(f"Embeddings are (b, d), but z is {tuple(z.shape)}.")
    return {"tokens": z[:, None], "mask": z.new_ones(len(z), 1, dtype=torch.bool)}


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.float() if x.element_size() < 4 else x
