"""LoRA by peft on our networks: silent at first, the base untouched, saved alone, merged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.networks import (
    ADM,
    EDM2,
    EGNN,
    MLP,
    Controlled,
    DiT,
    Transformer,
    UNet,
    Video,
    lora,
)
from sdegen.training import Trainer
from sdegen.training.settings import TrainSettings
from tests.cases import close, refused

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "unet": (lambda: UNet(1, width=16, heads=2), (1, 8, 8), ["qkv", "leave", "conv1", "conv2"]),
    "mlp": (lambda: MLP(2, width=16), (2,), ["enter", "leave"]),
}


def model(kind: str) -> sg.ScoreModel:
    """With weights that are not silent anywhere."""
    torch.manual_seed(0)
    net = NETWORKS[kind][0]()
    for weight in net.parameters():
        weight.data += 0.05 * torch.randn(weight.shape)
    return sg.ScoreModel(net, sg.VPSDE()).eval()


def adapted(kind: str) -> sg.ScoreModel:
    """The same with an adapter."""
    found = model(kind)
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=2, lora_alpha=2, target_modules=NETWORKS[kind][2])
    assert isinstance(found.net, nn.Module)
    peft.inject_adapter_in_model(lora, found.net)
    return found


def samples(of: sg.ScoreModel, kind: str) -> Tensor:
    return sg.sample(of, (3, *NETWORKS[kind][1]), nfe=4, seed=0)


def base(of: sg.ScoreModel) -> dict[str, Tensor]:
    """The weights that the adapter stands on, by the names that they had."""
    found = {n: w for n, w in of.state_dict().items() if "lora_" not in n}
    return {n.replace(".base_layer", ""): w.clone() for n, w in found.items()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_adapter_is_silent_and_its_training_leaves_the_base(kind: str, tmp_path: Path) -> None:
    plain, found = model(kind), adapted(kind)
    assert torch.equal(samples(found, kind), samples(plain, kind))
    data = ArrayData(torch.randn(16, *NETWORKS[kind][1]))
    settings = TrainSettings(steps=3, batch_size=4, warmup=0, ema=0.5, log_every=1)
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    assert len(list(Trainer(found, data, sg.dsm_loss, optimizer, settings, tmp_path).steps())) == 3
    before = base(plain)
    assert base(found).keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in base(found).items())
    learnt = {n for n, w in found.named_parameters() if w.requires_grad}
    assert learnt and all("lora_" in name for name in learnt)
    assert not torch.allclose(samples(found, kind), samples(plain, kind))
    # Of another training that was stopped and goes on: the same to the bit.
    again = Trainer(adapted(kind), data, sg.dsm_loss, optimizer, settings, tmp_path)
    assert again.step == 3
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name])


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_adapter_is_saved_alone_and_merged(kind: str) -> None:
    found = adapted(kind)
    for name, weight in found.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    state = peft.get_peft_model_state_dict(found.net)  # type: ignore[arg-type]
    assert state and all("lora_" in name for name in state)
    other = adapted(kind)
    peft.set_peft_model_state_dict(other.net, state)  # type: ignore[arg-type]
    assert torch.equal(samples(other, kind), samples(found, kind))
    assert torch.equal(samples(copy.deepcopy(other), kind), samples(found, kind))
    for layer in other.net.modules():  # type: ignore[union-attr]
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.merge()
    x = torch.randn(3, *NETWORKS[kind][1])
    t = torch.full((3,), 0.5)
    close(other(x, t).eps, found(x, t).eps, atol=1e-4)


EVERY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: MLP(2, 16), (2,)),
    "series": (lambda: UNet(2, 8, heads=2, dims=1), (2, 8)),
    "volumes": (lambda: UNet(1, 8, heads=2, dims=3), (1, 4, 4, 4)),
    "adm": (lambda: ADM(1, 8, (1, 2), 1, (1,), head_width=4), (1, 8, 8)),
    "wavelets": (lambda: ADM(1, 8, (1, 2), 1, (1,), head_width=4, wavelets=True), (1, 8, 8)),
    "dit": (lambda: DiT(1, 16, 2, 2), (1, 8, 8)),
    "transformer": (lambda: Transformer(1, 16, 2, 2), (1, 8, 8)),
    "edm2": (lambda: EDM2(1, 8, heads=2, classes=3), (1, 8, 8)),
    "egnn": (lambda: EGNN(2, 8, 2), (5, 4)),
    "video": (lambda: Video(UNet(1, 8, heads=2)), (1, 3, 8, 8)),
    "controlled": (lambda: Controlled(UNet(1, 8, heads=2)), (1, 8, 8)),
}
"""Every network that denoises, and the shape of its states."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", EVERY)
def test_every_network_takes_an_adapter(kind: str, tmp_path: Path) -> None:
    """By default: silent at first, learning in training mode without a change of the base, and,
    saved and set into another, the same to the bit; merged, to rounding."""
    make, shape = EVERY[kind]

    def made() -> nn.Module:
        torch.manual_seed(0)
        net = make()
        for weight in net.parameters():
            weight.data += 0.05 * torch.randn(weight.shape)
        return net.requires_grad_(False)  # kernels differ by it in the last bit

    plain, x, t = made().eval(), torch.randn(3, *shape), torch.full((3,), 0.5)
    net, other = lora(made(), 3).train(), lora(made(), 3).eval()
    assert torch.equal(net.eval()(x, t), plain(x, t))
    learnt = [weight for weight in net.train().parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(learnt, 1e-2)
    for _ in range(2):  # A begins to learn where B is no longer zero
        optimizer.zero_grad()
        (net(x, t) - x).square().mean().backward()
        optimizer.step()
    assert all(bool(weight.grad.any()) for weight in learnt if weight.grad is not None)
    frozen = {n.replace(".base_layer", ""): w for n, w in net.state_dict().items()}
    assert all(torch.equal(w, frozen[n]) for n, w in plain.named_parameters())
    assert not torch.allclose(net.eval()(x, t), plain(x, t), atol=1e-4)
    save_file(peft.get_peft_model_state_dict(net), tmp_path / "a.safetensors")
    peft.set_peft_model_state_dict(other, load_file(tmp_path / "a.safetensors"))
    assert torch.equal(other(x, t), net(x, t))
    for layer in other.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.merge()
    close(other(x, t), net(x, t), atol=1e-4)


def test_an_adapter_is_of_the_layers_that_are_named() -> None:
    """Whole ends of names, of layers that can have one, and not of others of the same name."""
    net = lora(Controlled(UNet(1, 8, heads=2)), targets=["leave"])
    found = {n.partition(".lora_")[0] for n, _ in net.named_parameters() if "lora_" in n}
    assert found and all(name.endswith("attention.leave") for name in found)
    for of, targets, said in (
        (UNet(1, 8, heads=2), ["norm1"], "'norm1' of the UNet is .*, but an adapter is of linear"),
        (UNet(1, 8, heads=2), ["kv"], "No layer of the UNet is called 'kv'"),
        (UNet(1, 8, heads=2), "qkv", "targets are a list of texts"),
        (EDM2(1, 8, heads=2), ["conv1"], "'conv1' of the EDM2 is MPConv, but"),
        (nn.Sequential(nn.ReLU()), None, "No layer of the Sequential takes an adapter"),
    ):
        with refused(said):
            lora(of, targets=targets)  # type: ignore[arg-type]


class Foreign(nn.Module):
    """Layers that others' networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.enter, self.tanh = Conv1D(8, 2), nn.ModuleDict({"leave": nn.Tanh()})
        self.leave = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)[:, None]
        return self.leave(self.tanh["leave"](self.attention(h, h, h)[0][:, 0]))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(
    ("targets", "of"),
    [
        (["attention"], {"attention", "attention.base_layer.out_proj"}),
        (["enter", "leave"], {"enter", "leave"}),
        (None, {"leave"}),  # linear layers, but for one that attention asks for its weight
    ],
)
def test_layers_of_others_networks_take_one(targets: list[str] | None, of: set[str]) -> None:
    torch.manual_seed(0)
    net, x = Foreign(), torch.randn(3, 2)
    before = net(x)
    lora(net, targets=targets)
    assert {n.partition(".lora_")[0] for n, _ in net.named_parameters() if "lora_" in n} == of
    close(net(x), before, atol=1e-6)
    for name in of:
        weight = net.get_parameter(f"{name}.lora_B.default.weight")
        weight.data.fill_(0.1)
        assert not torch.allclose(net(x), before, atol=1e-4)
        weight.data.zero_()


def test_adapters_that_can_do_nothing_are_refused() -> None:
    for how, said in (
        ({"targets": []}, "targets is empty"),
        ({"alpha": 0.0}, "alpha = 0 leaves an adapter silent"),
        ({"alpha": float("nan")}, "alpha must be a number, but it is nan"),
    ):
        with refused(said):
            lora(UNet(1, 8, heads=2), **how)  # type: ignore[arg-type]
    with refused("This UNet has adapters already"):
        lora(lora(UNet(1, 8, heads=2)))
