"""LoRA by peft on our networks: silent at first, the base untouched, saved alone, merged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.networks import MLP, UNet, lora
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
