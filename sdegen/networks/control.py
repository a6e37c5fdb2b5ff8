"""Control: a trained network that is shown a hint, and stays what it is without.  ControlNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from sdegen.checks import number, whole
from sdegen.files import content
from sdegen.networks.adm import ADM
from sdegen.networks.attention import Context
from sdegen.networks.dit import DiT
from sdegen.networks.embedding import OTHERS
from sdegen.networks.layers import CONV, zeroed
from sdegen.networks.patches import patchify
from sdegen.networks.transformer import Transformer
from sdegen.networks.unet import UNet

Strength = float | Tensor | Mapping[str, float | Tensor]
"""How much a control adds: a number, () or (B,), or (B, parts), a number for each part; by the
names of hints where there are several."""

DECODER = ("conditioning", "tokens", "up", "grow", "norm", "modulation", "leave")
"""What a control has no copy of."""


class Patches(nn.Module):
    """A hint (B, k, *space) as tokens (B, n, width), zero at first."""

    def __init__(self, channels: int, width: int, patch: int, dims: int) -> None:
        super().__init__()
        self.patch, self.enter = patch, zeroed(nn.Linear(channels * patch**dims, width))

    def forward(self, hint: Tensor) -> Tensor:
        tokens: Tensor = self.enter(patchify(hint, self.patch))
        return tokens


class Control(nn.Module):
    """What one hint adds to a network: Z_i(h_i), h = copy(x + Z(hint)), with layers Z that are
    zero at first.

    The copy is that of a U-Net's way down and its middle, whose parts h_i are the skips and the
    middle's output, or of the first half of a transformer's blocks, whose outputs they are.
    """

    def __init__(self, net: UNet | ADM | DiT | Transformer, channels: int) -> None:
        super().__init__()
        self.channels = whole("The channels of a hint", channels)
        self.copy = deepcopy(net).requires_grad_(True)
        for name in DECODER:
            if hasattr(self.copy, name):
                delattr(self.copy, name)
        if isinstance(net, DiT | Transformer):
            self.copy.blocks = net_blocks = self.copy.blocks[: (len(net.blocks) + 1) // 2]  # type: ignore[assignment, index]
            self.hint: nn.Module = Patches(channels, net.width, net.patch, net.dims)
            layers: list[nn.Module] = [nn.Linear(net.width, net.width) for _ in net_blocks]
        else:
            conv, widths = CONV[net.dims], parts_of(net)
            first = net.shrink[0] if isinstance(net, UNet) else net.enter
            wide = len(first.weight)  # type: ignore[arg-type]
            enter, silent = conv(channels, wide, 3, padding=1), zeroed(conv(wide, wide, 1))
            self.hint = nn.Sequential(enter, nn.SiLU(), silent)
            layers = [conv(width, width, 1) for width in widths]
        self.leave = nn.ModuleList(map(zeroed, layers))
        self.to(next(self.copy.parameters()))

    def forward(self, x: Tensor, e: Tensor, context: Context, hint: Tensor) -> list[Tensor]:
        """What is added to each part of the network."""
        parts = self.copy.encode(x, e, context, self.hint(hint))  # type: ignore[operator]
        return [leave(h) for leave, h in zip(self.leave, parts, strict=True)]


def parts_of(net: UNet | ADM) -> list[int]:
    """The channels of what a U-Net's way down makes, and of its middle's output."""
    middle = net.middle if isinstance(net, UNet) else net.middle[-1]
    first = [] if isinstance(net, UNet) else [len(net.enter.weight)]
    return first + [each.leaves for each in [*net.down, middle]]  # type: ignore[misc]


class Controlled(nn.Module):
    """A trained network that is shown hints, each through a control of its own.

        net'(x, t, hint) = decode(h_i + s_i Z_i(copy(x, hint)_i)),  h = encode(x)

    Without a hint it is the network, and with one at first too, to the last bit, since the layers
    Z are zero.  Zhang et al. (2023), eqs. 2-4 and figure 3; of a transformer the first half of the
    blocks is copied, each adding to what its original makes: Chen et al. (2024), figure 4.

    net:   a UNet, ADM, DiT or Transformer. It is locked: its parameters take no gradients from
           here on, and it stays at rest.
    hints: channels of the hint, or of several hints by their names.

    It is called as the network is, and with hints (B, k, *space) by their names, "hint" for the
    only one, and how much they add as ``strength``, 1 where nothing is said: a number, one for
    each sample (B,), or for each part (B, parts) or (1, parts), or all of that by name. So
    ``CFG(model.given(hint=h, strength=ones), w, without={"strength": 0})`` is guided by the hint.

    ValueError for a network without such halves, names that the network has for something else, a
    hint or a strength of another shape, and what the network refuses.
    """

    def __init__(self, net: Any, hints: int | Mapping[str, int] = 1) -> None:
        super().__init__()
        if not isinstance(net, UNet | ADM | DiT | Transformer):
            raise ValueError(
                "A control is of a UNet, ADM, DiT or Transformer, of whose first half it has a "
                f"copy, but the network is a {type(net).__name__}."
            )
        named = {"hint": hints} if isinstance(hints, int) else dict(hints)
        taken = {*OTHERS, "strength", *net.conditioning.numbers} - (
            {"c"} if not net.beside else {*()}
        )  # type: ignore[misc]
        for name in named:
            if not name.isidentifier() or name in taken:
                raise ValueError(
                    f"A hint cannot be called {name!r}: it is a name that the network does not "
                    f"know yet, none of {', '.join(sorted(taken))}."
                )
        self.net = net.requires_grad_(False).eval()
        self.controls = nn.ModuleDict({name: Control(net, k) for name, k in named.items()})

    def train(self, mode: bool = True) -> Controlled:
        """The controls' mode; the network is at rest."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, x: Tensor, t: Tensor, strength: Strength = 1.0, **told: Any) -> Tensor:
        refuse_strength(strength, list(self.controls))
        hints = {name: told.pop(name, None) for name in self.controls}
        state, e, context = self.net.inputs(x, t, **told)
        added: list[Tensor] = []
        for name, control in self.controls.items():
            hint = hints[name]
            if hint is None:
                continue
            refuse_hint(name, hint, (len(x), control.channels, *x.shape[2:]))  # type: ignore[arg-type]
            parts = control(state, e, context, hint.to(state))
            parts = weighted(parts, strength, name)
            added = [a + b for a, b in zip(added, parts, strict=True)] if added else parts
        out: Tensor = self.net.through(state, e, context, added)
        return out


def together(*nets: Controlled) -> Controlled:
    """One network with the controls of several, which were trained apart over the same one; what
    they add is added up.

    ValueError for controls of different networks, or of the same name, and for none.
    """
    if not nets:
        raise ValueError("Controls are put together of one network or more, but there is none.")
    first = nets[0]
    found, known = Controlled(first.net, {}), content(first.net.state_dict())
    for each in nets:
        if content(each.net.state_dict()) != known:
            raise ValueError("Controls are put together that are over the same network.")
        if twice := set(each.controls) & set(found.controls):
            raise ValueError(f"Two controls are called {', '.join(sorted(twice))}.")
        found.controls.update(dict(each.controls.items()))
    return found


def refuse_hint(name: str, hint: Any, wanted: tuple[int, ...]) -> None:
    """ValueError for a hint that is not one picture of its channels for each sample."""
    if not isinstance(hint, Tensor) or hint.shape != wanted:
        said = f"of shape {tuple(hint.shape)}" if isinstance(hint, Tensor) else repr(hint)
        raise ValueError(f"{name} is {said:.80}, expected {wanted}: a picture for each sample.")


def refuse_strength(strength: Strength, names: Sequence[str]) -> None:
    """ValueError for the strength of a control that there is none of, and for one that is no
    number."""
    by_name = strength if isinstance(strength, Mapping) else {"strength": strength}
    if isinstance(strength, Mapping) and (strange := by_name.keys() - set(names)):
        raise ValueError(
            f"There is no control {', '.join(sorted(strange))} to have a strength: there are "
            f"{', '.join(names)}."
        )
    for name, value in by_name.items():
        if not isinstance(value, Tensor):
            number(f"The strength of {name}" if name in names else "strength", value)


def weighted(parts: Sequence[Tensor], strength: Strength, name: str) -> list[Tensor]:
    """What a control adds, each part times its strength."""
    value = strength.get(name, 1.0) if isinstance(strength, Mapping) else strength
    if not isinstance(value, Tensor):
        return list(parts) if value == 1 else [value * part for part in parts]
    b, n = len(parts[0]), len(parts)
    if value.shape not in ((), (b,), (1, n), (b, n)):
        raise ValueError(
            f"The strength of {name} is of shape {tuple(value.shape)}, expected (), ({b},), "
            f"(1, {n}) or ({b}, {n}): this control has {n} parts."
        )
    columns = value.unbind(1) if value.ndim == 2 else [value] * n
    each = zip(columns, parts, strict=True)
    return [w.to(part).reshape(-1, *[1] * (part.ndim - 1)) * part for w, part in each]
