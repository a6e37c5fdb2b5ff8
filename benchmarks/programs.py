"""Systems of the field as programs of examples/, for the gallery."""

from __future__ import annotations

from systems import System

PROGRAMS: list[System] = [
    System(
        "lora",
        "adapting",
        "LoRA",
        ["Hu et al. (2022)"],
        "W' = W + (alpha / r) B A,  B = 0 at first;  A and B alone are trained",
        "A model of thin digits learns bold ones by adapters beside its layers, and by "
        "all of its weights. Means over two seeds.",
        ["sdegen/networks/adapters.py", "sdegen/training/frozen.py", "sdegen/runs/adapting.py"],
        "lora",
        script="lora.py",
        needs=["edm"],
    ),
    System(
        "controlnet",
        "adapting",
        "ControlNet",
        ["Zhang et al. (2023)"],
        "net'(x, hint) = decode(h_i + Z_i(copy(x + Z(hint))_i)),  h = encode(x),  Z = 0 at first",
        "A locked model of digits is shown means of 2 x 2 pixels, or edges, or both by two "
        "controls that were trained apart; that of means is a mean over two seeds.",
        ["sdegen/networks/control.py", "sdegen/training/frozen.py", "sdegen/runs/adapting.py"],
        "control",
        script="control.py",
        needs=["edm"],
    ),
    System(
        "dreambooth",
        "adapting",
        "DreamBooth",
        ["Ruiz et al. (2023)"],
        "loss(instances, new class) + weight loss(the frozen model's own samples, their classes)",
        "A class more is learned of five pictures, alone and beside samples that the model made "
        "before: a data set of two. Means over two seeds.",
        ["sdegen/data/mixed.py", "sdegen/networks/widening.py"],
        "dreambooth",
        script="dreambooth.py",
        needs=["edm"],
    ),
    System(
        "slim",
        "training",
        "Slim diffusion",
        ["Yang et al. (2023)"],
        "w(t) mean_f W_f |F (eps - eps_teacher)|_f^2,  W = (1 + V) / 2,  "
        "V_f ~ 1 / |F x0_teacher|_f;  "
        "sum_i g_i haar(x)_i",
        "Students of a quarter of their teacher's width: by the mean square, and by a distance of "
        "spectra, with gated wavelets, and by each of the two alone. Means over three seeds.",
        ["sdegen/networks/wavelet.py", "sdegen/losses/spectra.py", "sdegen/distill/teaching.py"],
        "slim",
        script="slim.py",
    ),
    System(
        "decision-diffuser",
        "sequences",
        "Decision Diffuser",
        ["Ajay et al. (2023)"],
        "eps = eps(x, none) + w (eps(x, R) - eps(x, none));  a = f(s, s')",
        "Plans through a maze, drawn under a return with half the noise, their ends known; and "
        "where an agent gets that follows them.",
        ["sdegen/data/mazes.py", "sdegen/guidance/inpaint.py", "sdegen/guidance/free.py"],
        "decision_diffuser",
        script="decision_diffuser.py",
    ),
    System(
        "linear-plans",
        "sequences",
        "Plans of a linear system",
        ["Ajay et al. (2023)"],
        "p(plan | s_1, R) = N(m + K (y - A m), (I - K A) S),  K = S A^T (A S A^T)^-1",
        "The planner of Decision Diffuser where what it should draw is known in closed form.",
        ["sdegen/exact/posteriors.py", "sdegen/guidance/inpaint.py", "sdegen/guidance/free.py"],
        "linear_plans",
        script="linear_plans.py",
    ),
    System(
        "timegrad",
        "sequences",
        "TimeGrad",
        ["Rasul et al. (2021)", "Gneiting & Raftery (2007)"],
        "h_k = GRU(h_{k-1}, x_{k-1}),  x_k ~ p(x_k | h_k)",
        "Hours of electricity in Italy, of which the second half of a day is forecast; and an "
        "autoregression, whose forecasts are known in closed form.",
        [
            "sdegen/data/recordings.py",
            "sdegen/metrics/forecasts.py",
            "sdegen/exact/gaussian_series.py",
        ],
        "timegrad",
        script="timegrad.py",
    ),
    System(
        "markup",
        "sequences",
        "Markup to images, scheduled sampling",
        ["Deng et al. (2023)"],
        "w(s) |eps(x_s', s) - (x_s' - alpha_s x0) / sigma_s|^2,  x_s' the model's own step",
        "Strings drawn by a transformer that attends to their signs, and read again by the "
        "nearest of the font's glyphs.",
        ["sdegen/data/typeset.py", "sdegen/losses/exposure.py", "sdegen/networks/transformer.py"],
        "markup",
        script="markup.py",
    ),
    System(
        "chorales",
        "sequences",
        "Symbolic music",
        ["Mittal et al. (2021)", "Lugmayr et al. (2022)"],
        "x0 = y where it is known;  z = slerp(z_a, z_b, w) between encodings",
        "Four bars of four voices: an alto or two bars drawn into Bach's, whole ones drawn, and "
        "mixtures of two. Lines are voices.",
        ["sdegen/data/bach.py", "sdegen/guidance/inpaint.py", "sdegen/likelihood/flow.py"],
        "chorales",
        script="chorales.py",
    ),
    System(
        "molecules",
        "volumes",
        "Clouds of points under a property",
        ["Hoogeboom et al. (2022)", "Satorras et al. (2021)"],
        "F = F(x, none) + w (F(x, energy) - F(x, none)),  F(R x P) = R F(x) P",
        "Small molecules as clouds of atoms, drawn under the energy of their hydration: black are "
        "carbon, red oxygen, blue nitrogen, green chlorine.",
        ["sdegen/networks/egnn.py", "sdegen/data/freesolv.py", "sdegen/guidance/free.py"],
        "molecules",
        script="molecules.py",
    ),
    System(
        "brain",
        "volumes",
        "Cubes of a volume",
        ["Lugmayr et al. (2022)"],
        "x0 = y where it is known, on a walk that climbs back",
        "Cubes of a brain; six slices of each are lost, and drawn.",
        ["sdegen/data/brain.py", "sdegen/networks/unet.py", "sdegen/guidance/inpaint.py"],
        "brain",
        script="brain.py",
    ),
    System(
        "video",
        "sequences",
        "Video diffusion",
        ["Ho et al. (2022b)"],
        "h + Attention over frames (LN h) after each block, zero at first;  "
        "x0_b - w alpha / 2 grad |x_a - x0_a|^2",
        "An image network, attention over time, images beside the frames. Digits go straight on "
        "and bounce; the second half of a clip is drawn when the first is known.",
        [
            "sdegen/networks/video.py",
            "sdegen/networks/temporal.py",
            "sdegen/losses/clips.py",
            "sdegen/data/moving.py",
        ],
        "moving_digits",
        script="moving_digits.py",
    ),
    System(
        "score-distillation",
        "volumes",
        "Score distillation, DreamFusion",
        ["Poole et al. (2023)"],
        "d theta = E[w (eps(alpha x + sigma eps) - eps)] dx / d theta,  x = render(theta)",
        "A model of 8 x 8 digits as the loss of blobs in the plane and of a density in space, "
        "which a classifier of real digits reads from views that were never drawn.",
        ["sdegen/distill/scores.py"],
        "score_distillation",
        script="score_distillation.py",
        needs=["edm"],
    ),
    System(
        "compression",
        "theory",
        "Lossy compression with Gaussian diffusion",
        ["Theis et al. (2022)"],
        "rate = KL(q(x_T | x0) || prior) + sum of KL(q(x_s | x_t, x0) || p(x_s | x_t))",
        "16 x 16 patches of photographs: rate and distortion of what a network of six minutes "
        "sends, beside a Gaussian and JPEG without its head; eight patches as bytes and back.",
        [
            "sdegen/likelihood/rates.py",
            "sdegen/likelihood/compression.py",
            "sdegen/likelihood/channel.py",
            "sdegen/likelihood/messages.py",
        ],
        "compression",
        script="compression.py",
    ),
    System(
        "convergence",
        "theory",
        "Convergence, measured",
        ["Chen et al. (2023b)", "Lee, Lu & Tan (2022)"],
        "KL(p || p_hat) <= KL(p_T || prior) + sum of E KL(p(x_s | x_t) || p_hat(x_s | x_t))",
        "On Gaussians, without sampling: the start, a wrong score, steps, and a corrector.",
        ["sdegen/exact/convergence.py"],
        "convergence",
        script="convergence.py",
    ),
    System(
        "tempering",
        "theory",
        "Denoising MCMC",
        ["Kim & Ye (2022)"],
        "p(y, i) ~ p_i(y):  y <- y - step rho eps + sqrt(2 step) rho z,  i ~ p(i | y)",
        "Three far modes of weights 0.2, 0.5, 0.3: all chains begin in the second.",
        ["sdegen/sampling/tempering.py"],
        "tempering",
        script="tempering.py",
    ),
]
"""In the order of the gallery, after those of commands."""
