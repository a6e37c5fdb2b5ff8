"""Networks that are told things beside the state, and how all of these come in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from sdegen.checks import whole
from sdegen.networks.attention import Context, Edit
from sdegen.networks.embedding import Conditioning
from sdegen.networks.layers import refuse_misfits, with_beside
from sdegen.networks.tokens import Tokens


class Conditioned(nn.Module, ABC):
    """A network for states x (B, channels, *space), with sides that are multiples of one number;
    what it is told beside them, and with which setting it is built for that:

        net(x, t, y=None, c=None, tokens=None, mask=None, edit=None, **numbers)

    t:       labels of the time, (B,).
    y:       with ``classes = n > 0``, int64 labels 0 .. n - 1, (B,) or one for all; n stands for
             "no class", as y = None does, and is what a training loop writes over the labels that
             it drops (classifier-free guidance, Ho and Salimans 2022).
    numbers: () or (B,) each, of the names in ``numbers``: "jump", how far a flow map goes, or a
             guidance's strength. One that is not given is 0.
    c:       with ``beside = k > 0``, a picture (B, k, *space) beside x, as Palette's sees what it
             restores: Saharia et al. (2022b), section 3. It is not scaled with x.
    tokens:  with ``token_width = e > 0``, vectors (B, m, e), of ``length`` at most; attention to
             places is then followed by attention to them. With ``words = n > 0`` too, int64
             (B, m) instead, word k of n as k + 1 and 0 where there is none.
    mask:    (B, m), True where a token is one; without it all are, or all words but 0.
    edit:    a function that changes attention's maps, an ``Edit``; all networks take one.

    ``out`` is the number of channels of the output, where they are not x's, as twice as many for
    two heads.

    Raises ValueError, in a sentence, for an x of another shape, and for what is told in another
    shape or type, out of range (labels and words on the CPU only: elsewhere the check would wait
    for the device), missing, or not expected.
    """

    remedy: ClassVar[str]
    """What makes the number smaller that sides are multiples of."""

    def __init__(
        self,
        channels: int,
        dims: int,
        multiple: int,
        width: int,
        classes: int,
        numbers: Sequence[str],
        beside: int,
        token_width: int,
        words: int,
        length: int,
    ) -> None:
        super().__init__()
        self.channels, self.dims, self.multiple = channels, dims, multiple
        self.beside = whole("beside", beside, 0)
        self.conditioning = Conditioning(width, classes, numbers)
        if words and not token_width:
            raise ValueError(f"words = {words} have vectors: say their token_width, above 0.")
        some = whole("token_width", token_width, 0) > 0
        self.tokens = Tokens(token_width, words, length) if some else None

    @abstractmethod
    def through(self, x: Tensor, e: Tensor, context: Context) -> Tensor:
        """The output (B, out, *space) of the state with what stands beside it, x
        (B, channels + beside, *space), told e (B, width) and what attention sees."""

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | int | None = None,
        c: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        edit: Edit | None = None,
        **numbers: Tensor | float,
    ) -> Tensor:
        return self.through(*self.inputs(x, t, y, c, tokens, mask, edit, **numbers))

    def inputs(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | int | None = None,
        c: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        edit: Edit | None = None,
        **numbers: Tensor | float,
    ) -> tuple[Tensor, Tensor, Context]:
        """What ``through`` is called with, of what the network is called with."""
        refuse_misfits(x.shape, self.channels, self.dims, self.multiple, self.remedy)
        e = self.conditioning(t, y, len(x), numbers)
        context = self.context(len(x), tokens, mask, edit)
        return with_beside(x, c, self.beside), e, context

    def context(
        self, batch: int, tokens: Tensor | None, mask: Tensor | None, edit: Edit | None
    ) -> Context:
        """What attention is told in a batch of so many."""
        if edit is not None and not callable(edit):
            raise ValueError(
                f"edit is a function of maps and their place, but it is {edit!r:.60}."
            )
        if self.tokens is not None:
            found: Context = self.tokens(batch, tokens, mask, edit)
            return found
        if tokens is not None or mask is not None:
            raise ValueError(
                "tokens were given, but the network takes none: build it with token_width > 0, or "
                "call it without."
            )
        return Context(edit=edit)
