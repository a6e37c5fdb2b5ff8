"""Students against what their teachers' steps come to, exactly."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Consistency, GuidedOnce, Progressive, mean_velocity
from sdegen.distill.straight import both, moved
from sdegen.exact.distributions import Gaussian
from sdegen.guidance import CFG, Contrast, Guided, Similarity, Thresholded
from sdegen.model.denoiser import Around
from sdegen.networks import MLP, UNet
from sdegen.sde.learned import LearnedVPSDE
from sdegen.sde.level import Level
from tests.cases import MIXTURE, SDES, close, normal, refused

ALL = {**SDES, "flow_whole": sg.FlowSDE(T=1.0)}
every_sde = pytest.mark.parametrize("sde", ALL.values(), ids=ALL)


def oracle(teacher: sg.ScoreModel, loss: Progressive, predicts: str) -> sg.ScoreModel:
    """The student that says exactly what the teacher's inner steps come to, at its own levels."""
    sde, rows = loss.walk.sde, loss.times
    tops = torch.stack([row[0] for row in rows])

    def said(x: Tensor, t: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        for i in range(len(x)):
            k = int((tops - t[i]).abs().argmin())
            levels: list[Level] = sde(rows[k]).unbind()  # type: ignore[assignment]
            x0, eps = both(x[i : i + 1], levels[0], mean_velocity(teacher, x[i : i + 1], levels))
            a, b = student.target(levels[0])
            found[i] = (a * x0 + b * eps)[0]
        return found

    student = sg.ScoreModel(said, sde, predicts=predicts, flow_only=True)
    return student


@every_sde
@pytest.mark.parametrize("inner", [1, 2, 3])
def test_a_student_ends_where_its_teacher_does(sde: sg.LinearSDE, inner: int) -> None:
    """n steps of the mean prediction are inner * n DDIM steps of the teacher, on every SDE."""
    teacher = sg.exact.exact_model(MIXTURE, sde)
    loss = Progressive(teacher, 3, inner, sg.walks.straight)
    x = sde.prior.sample(normal(3, 2))
    student = oracle(teacher, loss, "x0")
    ends = sg.solve(student, x, solver=sg.DDIM(), walk=loss.walk).x
    fine = torch.cat([loss.times[:, :-1].flatten(), loss.times[-1:, -1]])
    close(ends, sg.solve(teacher, x, solver=sg.DDIM(), walk=fine).x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "velocity", "edm"])
def test_the_loss_is_zero_at_that_student(predicts: str) -> None:
    """Whatever it predicts; and it is not at its teacher."""
    sde = sg.VPSDE()
    teacher = sg.exact.exact_model(MIXTURE, sde)
    loss = Progressive(teacher, 3)
    if predicts != "edm":
        off = loss(oracle(teacher, loss, predicts), MIXTURE.sample(6), torch.Generator())
        assert float(off.max()) < 1e-18
    assert float(loss(teacher, MIXTURE.sample(6), torch.Generator()).max()) > 1e-4


def test_a_walk_in_lam_is_cut_in_lam() -> None:
    """The teacher's steps lie between the student's, equal in lam where there is lam."""
    sde = sg.VPSDE()
    loss = Progressive(sg.exact.exact_model(MIXTURE, sde), 4, 4)
    walk, times = loss.walk, loss.times
    lam = sde(times.flatten()).lam.reshape(4, 5)
    close(lam.diff(dim=1), lam.diff(dim=1)[0, 0].expand(4, 4), rtol=1e-9)
    close(times[:, 0], walk.times[:-1])
    close(times[:, -1], walk.times[1:])


def test_mean_velocity_moves_as_the_steps_do() -> None:
    sde = sg.SubVPSDE()
    teacher = sg.exact.exact_model(Gaussian([0.0], [[0.5]]), sde)
    levels: list[Level] = sde(sg.walks.straight(sde, 6)).unbind()  # type: ignore[assignment]
    x = sde.prior.sample(normal(4, 1))
    end = sg.solve(teacher, x, solver=sg.DDIM(), walk=sg.walks.straight(sde, 6)).x
    close(moved(x, levels[0], levels[-1], mean_velocity(teacher, x, levels)), end, rtol=1e-9)


class ByClass(torch.nn.Module):
    """eps of one of two Gaussians by y, or of neither's name: linear in x."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        gain = torch.tensor([0.3, 0.9, 0.5], dtype=x.dtype)[y]
        return gain[:, None] * x


def test_a_guided_student_says_in_one_call_what_two_say() -> None:
    """eps_null + w (eps_y - eps_null) of its own w has loss 0; w is drawn between its ends."""
    sde, seen = sg.VPSDE(), []
    inner = sg.ScoreModel(ByClass(), sde, module=torch.nn.Linear(1, 1))
    truth = torch.tensor([0.3, 0.9], dtype=torch.float64)

    def one_call(x: Tensor, t: Tensor, y: Tensor, w: Tensor) -> Tensor:
        seen.append(w)
        return (0.5 + w * (truth[y] - 0.5))[:, None] * x

    student = sg.ScoreModel(one_call, sde).given(y=torch.tensor([0, 1] * 50))
    off = GuidedOnce(inner, {"y": 2}, 1.0, 4.0)(student, normal(100, 2))
    assert float(off.max()) < 1e-9  # the scale is float32, as labels are
    assert float(seen[0].min()) >= 1.0 and float(seen[0].max()) <= 4.0
    assert float(seen[0].std()) > 0.5
    assert (student.nfe, inner.nfe) == (1, 2)


def test_students_learn() -> None:
    """A small network under each loss has gradients for all its weights."""
    torch.manual_seed(0)
    sde, x0 = sg.VPSDE(), torch.randn(8, 2)
    net = MLP(2, width=8, depth=1, classes=2)
    teacher = sg.ScoreModel(net, sde, predicts="v").eval()
    student = sg.ScoreModel(MLP(2, width=8, depth=1), sde, predicts="v", flow_only=True)
    loss = Progressive(teacher, 4)
    loss(student, x0).mean().backward()
    assert student.net.leave.weight.grad is not None and net.leave.weight.grad is None
    told = sg.ScoreModel(
        MLP(2, width=8, depth=1, classes=2, numbers=("w",)), sde, predicts="v"
    ).given(y=torch.zeros(8, dtype=torch.int64))
    guided = GuidedOnce(teacher, {"y": 2})
    guided(told, x0).mean().backward()
    assert told.net.conditioning.told["of_w"].out.weight.grad is not None


VP = sg.VPSDE()
TEACHER = sg.exact.exact_model(MIXTURE, VP)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Progressive(TEACHER, 2, 0), "inner"),
        (
            lambda: Progressive(TEACHER, 2)(
                sg.exact.exact_model(MIXTURE, sg.VESDE()), normal(2, 2)
            ),
            "The teacher's states are those of VPSDE.*but the student's are of VESDE",
        ),
        (
            lambda: Progressive(lambda x: x, 2),  # type: ignore[arg-type]
            "A teacher is a model",
        ),
        (
            lambda: Progressive(sg.ScoreModel(UNet(1, width=8, dropout=0.1), VP), 2)(
                sg.ScoreModel(UNet(1, width=8), VP), torch.zeros(2, 1, 4, 4)
            ),
            "The teacher is in training mode",
        ),
        (
            lambda: Progressive(sg.ScoreModel(MLP(2, width=8), LearnedVPSDE()), 2)(
                sg.ScoreModel(MLP(2, width=8), LearnedVPSDE()), normal(2, 2).float()
            ),
            "LearnedVPSDE.* is learned with its model.*a model of an SDE that is fixed",
        ),
        (
            lambda: Progressive(sg.exact.exact_model(MIXTURE, sg.FlowSDE(T=1.0)), 2).walk,
            "The student's grid: .*infinite at an end.*walks.straight has no lam",
        ),
        (
            lambda: GuidedOnce(TEACHER, {"y": 2}, 4.0, 1.0),
            "low < high",
        ),
    ],
)
def test_refusals(make: Any, words: str) -> None:
    with refused(words):
        make()


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (lambda teacher: Progressive(teacher, 4), ()),
        (lambda teacher: Consistency(teacher, steps=4), ("jump",)),
        (lambda teacher: Consistency(teacher, stepper=sg.DDIM(), steps=4), ("jump",)),
        (lambda teacher: GuidedOnce(teacher, {"y": 2}), ("w",)),
    ],
    ids=["progressive", "consistency", "stepper", "guided"],
)
def test_a_teacher_follows_its_student(
    make: Any, numbers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded on the host, it teaches where the data are, and moves there once."""
    there, moves = torch.device("meta"), []
    teacher = sg.ScoreModel(MLP(2, width=8, depth=1, classes=2), VP, predicts="v").eval()
    net = MLP(2, width=8, depth=1, classes=2, numbers=numbers).to(there)
    y = torch.zeros(5, dtype=torch.int64, device=there)
    student, loss, move = (
        sg.ScoreModel(net, VP, predicts="v").given(y=y),
        make(teacher),
        teacher.to,
    )
    monkeypatch.setattr(teacher, "to", lambda device: (moves.append(device), move(device)))
    for _ in range(2):
        assert loss(student, torch.zeros(5, 2, device=there)).device == there
    assert {held.device for held in teacher.parameters()} == {there}
    assert moves == [there]


class Net(torch.nn.Module):
    """An MLP with dropout, told a class and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MLP(2, width=8, depth=1, classes=2, numbers=("w",))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, w: Any = 0.0) -> Tensor:
        found: Tensor = self.dropout(self.inner(x, t, y, w=w))
        return found


class Judging(torch.nn.Module):
    """log p of a state, of a batch norm's making."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)

    def forward(self, x: Tensor, level: Any, near: Tensor | None = None) -> Tensor:
        off = self.norm(x) if near is None else self.norm(x) - near
        found: Tensor = self.last(off)[:, 0]
        return found


def within(kind: str, model: Any, judge: Judging) -> Any:
    """A wrapper of a model that is told a class."""
    y, near = torch.zeros(5, dtype=torch.int64), torch.ones(5, 2)
    if kind == "cfg":
        return CFG(model.given(y=y), 2.0, {"y": torch.tensor(2)})
    if kind == "cfg, scales":
        return CFG(model.given(y=y), torch.full((5,), 2.0), {"y": 2}, together=True)
    if kind == "guided":
        return Guided(model, judge, 2.0, given={"near": near})
    if kind == "by a function":
        return Guided(model, lambda x, level: judge(x, level))
    if kind == "by features":
        return Guided(model, Similarity(judge_of(judge)), given={"target": near[:, :1]})
    if kind == "two wrappers":
        return Thresholded(Guided(CFG(model.given(y=y), 2.0, {"y": 2}), judge), data_range=(-1, 1))
    return Contrast([model.given(y=y), model.given({"w": torch.tensor(0.5)}, y=y)], [2.0])


def judge_of(judge: Judging) -> Any:
    return partial(lambda x, level, of: of(x, level)[:, None], of=judge)


JUDGED = ["guided", "by a function", "by features", "two wrappers"]
KINDS = ["cfg", "cfg, scales", "contrast", *JUDGED]


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_in_a_wrapper_follows_too(kind: str) -> None:
    """All that it is made of is where the data are: networks, judges, what they were given."""
    there = torch.device("meta")
    model, judge = sg.ScoreModel(Net(), VP, predicts="v").eval(), Judging().eval()
    teacher = within(kind, model, judge)
    y = torch.zeros(5, dtype=torch.int64, device=there)
    net = MLP(2, width=8, depth=1, classes=2).to(there)
    student = sg.ScoreModel(net, VP, predicts="v").given(y=y)
    loss = Progressive(teacher, 4)
    for _ in range(2):
        assert loss(student, torch.zeros(5, 2, device=there)).device == there
    judged = judge.parameters() if kind in JUDGED else ()
    assert {held.device for held in (*model.parameters(), *judged)} == {there}


def test_a_teachers_own_conditions_follow() -> None:
    """Those for each sample and those for all; the teacher that was given stays as it was."""
    there = torch.device("meta")
    model = sg.ScoreModel(Net(), VP, predicts="v").eval()
    teacher = model.given(w=torch.rand(5), y=torch.zeros(5, dtype=torch.int64))
    student = sg.ScoreModel(MLP(2, width=8, depth=1).to(there), VP, predicts="v")
    for own in (teacher, model.given({"w": torch.rand(())}, y=torch.zeros(5).long())):
        loss = Progressive(own, 4)(student, torch.zeros(5, 2, device=there))
        assert loss.device == there and own.conditions["w"].device.type == "cpu"


@pytest.mark.parametrize(
    ("who", "kind"), [*(("network", k) for k in KINDS), *(("judge", k) for k in JUDGED)]
)
def test_a_teacher_in_a_wrapper_is_at_rest(who: str, kind: str) -> None:
    """Dropout of the model inside, and batch norms of what judges it, are refused."""
    model, judge = sg.ScoreModel(Net(), VP, predicts="v").eval(), Judging().eval()
    teacher = within(kind, model, judge)
    y = torch.zeros(5, dtype=torch.int64)
    student = sg.ScoreModel(MLP(2, width=8, depth=1, classes=2), VP, predicts="v").given(y=y)
    loss = Progressive(teacher, 4)
    before = judge.norm.running_mean.clone()  # type: ignore[union-attr]
    loss(student, torch.randn(5, 2))
    (model if who == "network" else judge).train()
    with refused("The teacher is in training mode.*of a wrapper the model inside"):
        loss(student, torch.randn(5, 2))
    assert torch.equal(judge.norm.running_mean, before)  # type: ignore[arg-type]


def test_a_teacher_that_takes_no_conditions_is_refused() -> None:
    """In a sentence, where its student was given some."""

    class Fixed(Around):
        """A model as it is."""

        def __init__(self, model: Any) -> None:
            self.model, self.target, self.data_range = model, model.target, None

        def __call__(self, x: Tensor, level: Any) -> Any:
            return self.model(x, level)

        def output(self, x: Tensor, level: Any) -> Tensor:
            found: Tensor = self.model.output(x, level)
            return found

        def take(self, index: Tensor) -> Any:
            return self

    loss = Progressive(Fixed(TEACHER), 4)
    student = sg.ScoreModel(lambda x, t, y=None: x, VP, flow_only=True)
    assert loss(student, normal(3, 2)).shape == (3,)
    with refused("The student was given y, but its teacher, a Fixed, takes no conditions"):
        loss(student.given(y=torch.zeros(3)), normal(3, 2))
