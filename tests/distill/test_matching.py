"""Smaller students, and distances by which students are taught."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.distill import GuidedOnce, Matching, Progressive
from sdegen.exact import exact_model, power_law
from sdegen.losses import EDMWeighting, LogNormalTime, Spectral, independent, uniform_time
from sdegen.networks import ADM, UNet
from tests.cases import MIXTURE, SDES, close, normal, refused

VP = sg.VPSDE()
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@every_sde
def test_its_least_is_the_teacher(sde: sg.LinearSDE) -> None:
    """On every SDE, and nowhere else; it is asked once, and so is the student."""
    teacher, student = exact_model(MIXTURE, sde), exact_model(MIXTURE, sde)
    loss, x0 = Matching(teacher, weighting="velocity"), MIXTURE.sample(20)
    assert float(loss(student, x0, generator()).max()) < 1e-24
    assert teacher.nfe == student.nfe == 1
    other = exact_model(power_law((2,), 0.0), sde)
    assert float(loss(other, x0, generator()).min()) > 1e-9


def test_an_error_is_that_in_eps() -> None:
    """Of a student that says eps + 0.1 the loss is 0.01 w, w that of the level drawn."""
    teacher = exact_model(MIXTURE, VP)
    student = sg.ScoreModel(lambda x, t: teacher(x, VP(t)).eps + 0.1, VP)
    close(Matching(teacher)(student, MIXTURE.sample(9)), torch.full((9,), 0.01), rtol=1e-7)


LOSSES: dict[str, Any] = {
    "matching": lambda model, how: Matching(model, **how),
    "progressive": lambda model, how: Progressive(model, 3, **how),
    "guided": lambda model, how: GuidedOnce(model, {}, **how),
}


def pair() -> tuple[sg.ScoreModel, sg.ScoreModel]:
    """A teacher and a student of images, at rest, that differ."""
    torch.manual_seed(0)
    teacher, student = (sg.ScoreModel(ADM(2, 8, (1, 2), 1, (), head_width=8), VP, "v")
                        for _ in range(2))  # fmt: skip
    for model in (teacher, student):
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    return teacher.eval(), student.eval()


@pytest.mark.parametrize("kind", ["matching", "progressive"])
def test_a_spectral_distance_of_power_0_is_the_plain_loss(kind: str) -> None:
    teacher, student = pair()
    x0 = torch.randn(6, 2, 8, 8)
    plain = LOSSES[kind](teacher, {})(student, x0, generator())
    same = LOSSES[kind](teacher, {"distance": Spectral(0.0)})(student, x0, generator())
    other = LOSSES[kind](teacher, {"distance": Spectral()})(student, x0, generator())
    torch.testing.assert_close(same, plain, rtol=1e-4, atol=0)
    assert not torch.allclose(other, plain, rtol=1e-2)


def test_a_distance_is_that_of_what_the_teacher_makes_of_it() -> None:
    """In eps, by the spectrum of the teacher's x0: written out, on a student of eps."""
    teacher, other = pair()
    student = sg.ScoreModel(other.net, VP, "eps").eval()
    x0, same = torch.randn(6, 2, 8, 8), generator()
    t, _ = uniform_time(VP, independent(len(x0), x0.device, same))
    z = torch.randn(x0.shape, generator=same)
    x = VP.mix(x0, VP(t), z)
    with torch.no_grad():
        found = Matching(teacher, "eps", distance=Spectral())(student, x0, generator())
        want, off = teacher(x, t), student(x, t).eps - teacher(x, t).eps
    torch.testing.assert_close(found, Spectral()(off, want.x0), rtol=1e-3, atol=0)
    assert not torch.allclose(found, Spectral()(off, want.eps), rtol=1e-2)


def test_of_guidance_too() -> None:
    teacher, _ = pair()
    inner = sg.ScoreModel(lambda x, t, y=None: 0.3 * x, VP, module=teacher.net)
    student = sg.ScoreModel(lambda x, t, y=None, w=None: 0.5 * x, VP)
    x0, y = torch.randn(6, 2, 8, 8), torch.zeros(6, dtype=torch.int64)
    plain, same = (
        GuidedOnce(inner, {"y": 2}, distance=d)(student.given(y=y), x0, generator())
        for d in (None, Spectral(0.0))
    )
    torch.testing.assert_close(same, plain, rtol=1e-4, atol=0)


def test_a_smaller_student_learns_its_teacher() -> None:
    """Of exact Gaussian images it is less off, by the spectral distance, after some steps."""
    law = power_law((4, 4), 2.0)

    class Images(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return law.denoise(x.flatten(1), VP(t)).reshape(x.shape)

    teacher = sg.ScoreModel(Images(), VP, "x0").eval()
    torch.manual_seed(0)
    net = UNet(1, width=8, mults=(1,), attention=())
    student = sg.ScoreModel(net, VP, "edm", sigma_data=1.0)
    loss = Matching(teacher, EDMWeighting(1.0), LogNormalTime(-0.5, 1.0), distance=Spectral())
    adam, found = torch.optim.Adam(net.parameters(), 1e-2), list[float]()
    data = law.sample(4000, torch.Generator().manual_seed(0)).float().reshape(-1, 1, 4, 4)
    for step in range(60):
        off = loss(student, data[64 * step :][:64]).mean()
        adam.zero_grad(), off.backward(), adam.step()
        found.append(float(off.detach()))
    assert sum(found[-5:]) < sum(found[:2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Matching(lambda x: x), "A teacher is a model"),  # type: ignore[arg-type]
        (
            lambda: Matching(exact_model(MIXTURE, VP))(
                exact_model(MIXTURE, sg.VESDE()), normal(2, 2)
            ),
            "The teacher's states are those of VPSDE",
        ),
        (
            lambda: Matching(sg.ScoreModel(UNet(1, width=8, dropout=0.1), VP))(
                sg.ScoreModel(UNet(1, width=8), VP), torch.zeros(2, 1, 4, 4)
            ),
            "in training mode",
        ),
        (
            lambda: Matching(exact_model(MIXTURE, VP), distance=Spectral())(
                exact_model(MIXTURE, VP), normal(2, 2)
            ),
            "A spectrum is over axes of space",
        ),
    ],
)
def test_refusals(make: Any, words: str) -> None:
    with refused(words):
        make()
