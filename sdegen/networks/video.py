"""An image network over the frames of clips, with attention over time between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.networks.attention import Clip, Edit, name_layers
from sdegen.networks.conditioned import Conditioned
from sdegen.networks.layers import refuse_misfits, with_beside
from sdegen.networks.temporal import Framewise, TemporalAttention


class Video(nn.Module):
    """A network for clips x (b, channels, f, h, w): an image network on all frames, and attention
    over time after each of its blocks.

    net:   a UNet, ADM, DiT or Transformer of images, which is a part of this one from now on; it
           keeps its weights, trained or not, and their names.
    heads: of attention over time, whose width is even.

    Attention over time ends in zeros at first, so that f frames start as f images, to the bit.

        video(x, t, y=None, c=None, tokens=None, mask=None, edit=None, images=None, **numbers)

    images: booleans (b, f), true where a frame is an image by itself: it is what ``net`` makes of
            it, at any weights, and no other frame sees it. So images and clips are trained
            together: Ho et al. (2022b), section 3, and ``losses.with_images``.
    All else is told as to ``Conditioned``, once a clip; c is (b, beside, f, h, w).

    Raises ValueError for a net that is none of images, or is a video's already, heads that do not
    divide a block's channels into even widths, and what does not fit, as ``Conditioned`` does.
    """

    def __init__(self, net: Conditioned, heads: int = 2) -> None:
        super().__init__()
        if not isinstance(net, Conditioned) or net.dims != 2:
            said = f"dims = {net.dims}" if isinstance(net, Conditioned) else repr(net)[:60]
            raise ValueError(
                "A video's net is a UNet, ADM, DiT or Transformer of images, dims = 2, but this "
                f"is {said}."
            )
        self.net = net
        blocks = [each for each in net.modules() if isinstance(each, Framewise)]
        if any(each.temporal is not None for each in blocks):
            raise ValueError(
                f"This {type(net).__name__} is part of a video's network already, whose attention "
                "over time would be lost: give another one, or a deepcopy made before."
            )
        for block in blocks:
            block.temporal = TemporalAttention(block.leaves, heads).to(next(net.parameters()))
        name_layers(self)

    @classmethod
    def of(
        cls,
        images: Callable[..., Conditioned],
        channels: int,
        classes: int = 0,
        heads: int = 2,
        beside: int = 0,
        numbers: Sequence[str] = (),
        out: int | None = None,
        token_width: int = 0,
        words: int = 0,
        length: int = 77,
    ) -> Video:
        """Of what makes an image network, as ``partial(UNet, width=12)``, by what a configuration
        knows: see ``Conditioned``."""
        net = images(
            channels=channels,
            classes=classes,
            beside=beside,
            numbers=numbers,
            out=out,
            token_width=token_width,
            words=words,
            length=length,
        )
        return cls(net, heads)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | int | None = None,
        c: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        edit: Edit | None = None,
        images: Tensor | None = None,
        **numbers: Tensor | float,
    ) -> Tensor:
        net = self.net
        if x.ndim != 5 or not x.shape[2]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected clips (b, {net.channels}, f, H, W)."
            )
        b, _, f, *space = x.shape
        refuse_misfits(
            torch.Size([b, x.shape[1], *space]), net.channels, 2, net.multiple, net.remedy
        )
        refuse_frames(images, b, f)
        t, y, tokens, mask = (
            per_frame(value, name, b, f)
            for name, value in {"t": t, "y": y, "tokens": tokens, "mask": mask}.items()
        )
        numbers = {name: per_frame(value, name, b, f) for name, value in numbers.items()}
        # All of it frame by frame, as the image network would: products with fewer rows may round
        # in another way.
        e = net.conditioning(t, y, b * f, numbers)
        context = replace(net.context(b * f, tokens, mask, edit), clip=Clip(f, images))
        h = net.through(with_beside(x, c, net.beside).transpose(1, 2).flatten(0, 1), e, context)
        return h.unflatten(0, (b, f)).transpose(1, 2)


def per_frame(value: Any, name: str, b: int, f: int) -> Any:
    """What b clips are told, for each of their f frames; ValueError for another length."""
    if not isinstance(value, Tensor) or not (value.ndim or name in ("t", "y")):
        return value
    if not value.ndim:
        raise ValueError(f"{name} is one value for {b} clips, expected ({b},): one of each.")
    if len(value) != b:
        raise ValueError(f"{name} has {len(value)} values for {b} clips, expected one of each.")
    return value.repeat_interleave(f, 0)


def refuse_frames(images: Tensor | None, b: int, f: int) -> None:
    """ValueError for a mask of frames of another type or shape."""
    fine = isinstance(images, Tensor) and images.dtype is torch.bool and images.shape == (b, f)
    if images is None or fine:
        return
    said = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, Tensor) else images
    raise ValueError(
        f"images is {said}, expected torch.bool of ({b}, {f}): true where a frame is an image by "
        "itself."
    )
