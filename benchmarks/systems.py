"""Systems of the field as commands of sdegen, for the gallery: what each is, and what shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class System:
    """One page of the gallery.

    name: of its page.  family: under which it is listed; a slow test runs one system of each.
    title, papers: as docs/references.md has them.  equation: what is solved or minimised.  says:
    what is to be seen.  homes: modules that are it.  needs: systems whose commands go before.
    run: its folder below outputs, this system's own or another's.  train: what trains it, None
    where another system does.  samples: by a name, what ``sdegen-sample`` is told; evaluate: what
    ``sdegen-evaluate`` is.  picture: of the run's folder, None for that of the last samples.
    result: where training leaves its figures, of a system that is neither sampled nor evaluated.
    script: a program of examples/ that is all of it: ``python examples/SCRIPT outputs/RUN TOLD``,
    told what it is told beside its folder, with --quick in seconds, writes picture.png and
    result.json there, {"config": {...}, "figures": [{"what": words, "value": number, "beside":
    number or null, "of": what that is, "wished": words}]}.
    """

    name: str
    family: str
    title: str
    papers: Sequence[str]
    equation: str
    says: str
    homes: Sequence[str]
    run: str
    train: str | None = None
    samples: Mapping[str, str] = field(default_factory=dict)
    evaluate: str | None = None
    picture: str | None = None
    result: str = "table.json"
    script: str | None = None
    told: str = ""
    needs: Sequence[str] = ()

    @property
    def commands(self) -> list[str]:
        """All of them, in the folder of all runs."""
        if self.script is not None:
            return [f"python examples/{self.script} outputs/{self.run} {self.told}".rstrip()]
        run = f"run=outputs/{self.run}"
        train = f"sdegen-train {self.train} name={self.run}".replace("  ", " ")
        found = [] if self.train is None else [train]
        found += [f"sdegen-sample {run} {how} name={name}" for name, how in self.samples.items()]
        return found + (
            [] if self.evaluate is None else [f"sdegen-evaluate {run} {self.evaluate}"]
        )

    @property
    def results(self) -> list[str]:
        """Files that they leave, whose figures are shown."""
        if self.script is not None:
            return [f"outputs/{self.run}/result.json"]
        if self.evaluate is not None:
            return [f"outputs/{self.run}/likelihood/result.json"]
        made = [f"outputs/{self.run}/samples/{name}-*/result.json" for name in self.samples]
        return made or [f"outputs/{self.run}/{self.result}"]

    @property
    def shown(self) -> str:
        """The picture that they leave."""
        if self.script is not None:
            return f"outputs/{self.run}/picture.png"
        if self.picture is not None:
            return f"outputs/{self.run}/{self.picture}"
        return f"outputs/{self.run}/samples/{list(self.samples)[-1]}-*/samples.png"


SYSTEMS = [
    System(
        "edm",
        "processes",
        "A preconditioned network and its samplers",
        ["Karras et al. (2022)"],
        "D = c_skip x + c_out F(c_in x, c_noise);  loss |F - target|^2, ln sigma ~ N(-1.2, 1.2^2)",
        "The default run: labels that are dropped now and then, five solvers at 10, 20 and 40 "
        "calls. Other pages sample it.",
        ["sdegen/model/prediction.py", "sdegen/losses/weightings.py", "sdegen/losses/times.py"],
        "digits",
        train="",
        picture="samples-dpmpp.png",
    ),
    System(
        "ddpm",
        "processes",
        "DDPM",
        ["Ho et al. (2020)"],
        "dx = -beta/2 x dt + sqrt(beta) dw;  loss |eps - eps_theta(x_t, t)|^2",
        "100 and 500 steps of the chain, with noise of the posterior's variance.",
        ["sdegen/sde/song.py", "sdegen/losses/dsm.py", "sdegen/solvers/stochastic.py"],
        "ddpm",
        train="sde=vp model=eps loss@loss.loss=song",
        samples={
            "chain100": "solver=ddpm steps=100 n=500",
            "chain500": "solver=ddpm steps=500 n=500",
        },
    ),
    System(
        "ncsn",
        "processes",
        "NCSN, annealed Langevin",
        ["Song & Ermon (2019)"],
        "x <- x + eps_i score(x, sigma_i) + sqrt(2 eps_i) z,  eps_i ~ sigma_i^2",
        "VE's levels fall geometrically, and Langevin's steps are taken at each; before it, the "
        "reverse equation on the same network.",
        ["sdegen/sde/song.py", "sdegen/solvers/correctors.py"],
        "ncsn",
        train="sde=ve model=score loss@loss.loss=song",
        samples={
            "reverse": "solver=euler_maruyama nfe=500 n=500",
            "langevin": "solver=annealed_langevin nfe=500 n=500",
        },
    ),
    System(
        "score-sde",
        "solvers",
        "Predictor and corrector, probability flow",
        ["Song et al. (2021)"],
        "dx = [f - (1 + eta^2)/2 g^2 score] dt + eta g dw",
        "The reverse equation by Euler-Maruyama, its flow by an adaptive solver of SciPy's, and "
        "reverse diffusion with Langevin's corrections.",
        [
            "sdegen/solvers/equation.py",
            "sdegen/solvers/correctors.py",
            "sdegen/solvers/backends.py",
        ],
        "digits",
        samples={
            "em": "solver=euler_maruyama nfe=200 n=500",
            "flow": "solver=scipy n=500",
            "pc": "solver=song_pc nfe=200 n=500",
        },
        needs=["edm"],
    ),
    System(
        "ddim",
        "solvers",
        "DDIM",
        ["Song, Meng & Ermon (2021)"],
        "x_s = alpha_s x0 + sigma_s eps",
        "The network of DDPM without noise on the way.",
        ["sdegen/solvers/stochastic.py"],
        "ddpm",
        samples={"ddim10": "solver=ddim nfe=10 n=500", "ddim50": "solver=ddim nfe=50 n=500"},
        needs=["ddpm"],
    ),
    System(
        "dpm-solver",
        "solvers",
        "DPM-Solver, DPM-Solver++, UniPC",
        ["Lu et al. (2022a)", "Lu et al. (2022b)", "Zhao et al. (2023)"],
        "x_s = (alpha_s / alpha_t) x_t - alpha_s INT e^-lam eps(lam) dlam, by polynomials in lam",
        "Ten network calls of each.",
        [
            "sdegen/solvers/exponential.py",
            "sdegen/solvers/multistep.py",
            "sdegen/solvers/unipc.py",
        ],
        "digits",
        samples={
            "dpm2": "solver=dpm_2 nfe=10 n=500",
            "dpmpp": "solver=dpmpp nfe=10 n=500",
            "unipc": "solver=unipc nfe=10 n=500",
        },
        needs=["edm"],
    ),
    System(
        "vdm",
        "likelihood",
        "Variational diffusion models",
        ["Kingma et al. (2021)"],
        "-log p(x) <= prior + reconstruction + 1/2 INT |x0 - x0_theta|^2 d(alpha^2/sigma^2)",
        "The bound is the loss, and the schedule is learned for its variance. Bits per dimension "
        "of held-out digits of 17 grey values, by the flow and by the bound.",
        ["sdegen/losses/vdm.py", "sdegen/sde/learned.py", "sdegen/likelihood/bounds.py"],
        "vdm",
        train="experiment=likelihood/digits_bits sde=learned loss@loss.loss=vdm",
        evaluate="n=200 elbo_draws=32",
        picture="samples-dpmpp.png",
    ),
    System(
        "likelihood",
        "likelihood",
        "Likelihood of the flow",
        ["Song et al. (2021)", "Song et al. (2021b)"],
        "log p_0(x_0) = log p_T(x_T) + INT div f dt along dx/dt = f",
        "Trained by the weighting under which the loss bounds the likelihood. Bits per dimension "
        "of held-out digits of 17 grey values.",
        [
            "sdegen/likelihood/density.py",
            "sdegen/likelihood/divergence.py",
            "sdegen/losses/times.py",
        ],
        "bits",
        train="experiment=likelihood/digits_bits loss@loss.loss=likelihood",
        evaluate="n=200",
        picture="samples-dpmpp.png",
    ),
    System(
        "iddpm",
        "variances",
        "Learned variances",
        ["Nichol & Dhariwal (2021)", "Bao et al. (2022b)"],
        "ln v = f ln v_large + (1 - f) ln v_small, f a second output;  loss simple + 0.001 L_vlb",
        "Steps whose variance the network says, beside solvers that guess it or have none.",
        ["sdegen/solvers/variances.py", "sdegen/losses/hybrid.py"],
        "iddpm",
        train="experiment=heads/iddpm",
        picture="samples-learned.png",
    ),
    System(
        "cfg",
        "guidance",
        "Classifier-free guidance",
        ["Ho & Salimans (2022)"],
        "eps = eps(x, none) + w (eps(x, y) - eps(x, none))",
        "The stronger, the more alike are the digits of a class. The distance is to all held-out "
        "digits, in which guidance loses kinds.",
        ["sdegen/guidance/free.py", "sdegen/losses/conditions.py"],
        "digits",
        samples={
            "plain": "nfe=20 n=500",
            "cfg2": "guidance=cfg guidance.scale=2 nfe=40 n=500",
            "cfg5": "guidance=cfg guidance.scale=5 nfe=40 n=500",
        },
        needs=["edm"],
    ),
    System(
        "classifier",
        "guidance",
        "Classifier guidance",
        ["Dhariwal & Nichol (2021)"],
        "score(x | y) = score(x) + w grad log p(y | x)",
        "A judge of noisy digits is fitted to the run's data at first, and stays in its folder.",
        ["sdegen/guidance/classifier.py", "sdegen/runs/judging.py"],
        "digits",
        samples={"classifier": "guidance=classifier guidance.scale=2 nfe=20 n=500"},
        needs=["edm"],
    ),
    System(
        "inverse",
        "guidance",
        "Inverse problems",
        ["Chung et al. (2023)", "Rozet et al. (2024)"],
        "grad log p(y | x_t) ~ grad log N(y; A x0(x_t), std^2 + A Cov[x0 | x_t] A')",
        "A box of each held-out digit is unknown.",
        ["sdegen/guidance/inverse.py", "sdegen/guidance/operators.py"],
        "digits",
        samples={"seen": "task=inpaint observation=mmps n=8 draws=8 nfe=40"},
        needs=["edm"],
    ),
    System(
        "flow-matching",
        "training",
        "Flow matching",
        ["Lipman et al. (2023)"],
        "x_t = (1 - t) x0 + t z;  loss |v(x_t, t) - (z - x0)|^2",
        "Straight lines between data and noise.",
        ["sdegen/sde/schedules.py", "sdegen/losses/weightings.py"],
        "flow",
        train="sde=flow model=velocity loss@loss.loss=flow_matching",
        picture="samples-dpmpp.png",
    ),
    System(
        "progressive",
        "training",
        "Progressive distillation",
        ["Salimans & Ho (2022)"],
        "one step of the student is several of its teacher's: x0 = sum_i q_i x0_i,  sum_i q_i = 1",
        "Four steps that were learned from 32 of the default run's.",
        ["sdegen/distill/teaching.py", "sdegen/solvers/jump.py"],
        "four",
        train="experiment=distill/progressive teacher.run=outputs/digits loss.steps=4",
        samples={"student": "n=500"},
        needs=["edm"],
    ),
]
"""In the order of the gallery."""
