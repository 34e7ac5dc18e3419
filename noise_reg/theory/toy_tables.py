"""What is measured of the toy model: Eqs 9 to 16 against each other and against simulation, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from noise_reg.errors import UserError
from noise_reg.limits import EPOCHS, SAMPLES, check_count
from noise_reg.theory.toy import (
    Array,
    Toy,
    Weights,
    continuous_noise,
    decays,
    decays_as_printed,
    mean_step,
    noise_step,
    phase,
    sample_loss,
    sample_step,
    trajectory,
    weights,
)

TABLES = ("courses", "diagram", "noise_only", "batches", "bound")


def measure(settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Every number of the study. `settings` are those of conf/study/toy.yaml."""
    start = weights(settings["w0"], settings["w1"], settings["w_ni"])
    return {
        "courses": courses(settings, start),
        "diagram": diagram(settings, start),
        "noise_only": noise_only(settings, start),
        "batches": batches(settings, start),
        "bound": bound(settings),
    }


def courses(settings: Mapping[str, Any], start: Weights) -> pd.DataFrame:
    """w_NI step by step at one sigma_epsilon a phase: Eq. 13, and gradient descent on samples (Eq. 9)."""
    rng, steps, rows = np.random.default_rng(settings["seed"]), int(settings["steps"]), []
    for sigma in settings["course_sigmas"]:
        toy = Toy(settings["eta"], sigma)
        limit = trajectory(start, toy, steps)
        x = rng.standard_normal(settings["samples"])

        def on_samples(w: Weights, toy: Toy, x: Array = x) -> Weights:
            return sample_step(w, x, toy.sigma_epsilon * rng.standard_normal(len(x)), toy)

        sampled = trajectory(start, toy, steps, on_samples)
        name = str(phase(limit))
        for step in range(steps + 1):
            values = [float(abs(part[step])) for part in (limit.w_ni, sampled.w_ni)]
            rows.append((name, sigma, step, *values))
    return pd.DataFrame(rows, columns=["phase", "sigma_epsilon", "step", "limit", "sampled"])


def diagram(settings: Mapping[str, Any], start: Weights) -> pd.DataFrame:
    """The phase at every (sigma_epsilon, eta)."""
    sigma, rows = spaced(settings, "sigma_range"), []
    for rate in spaced(settings, "eta_range"):
        # the same time for every rate, so that one rate is no further trained than another
        steps = int(settings["diagram_time"] / rate)
        found = phase(trajectory(start, Toy(rate, sigma), steps))
        rows += [(rate, s, str(p)) for s, p in zip(sigma, found, strict=True)]
    return pd.DataFrame(rows, columns=["eta", "sigma_epsilon", "phase"])


def spaced(settings: Mapping[str, Any], name: str) -> Array:
    low, high = settings[name]
    return np.geomspace(float(low), float(high), int(settings["grid"]))


def noise_only(settings: Mapping[str, Any], start: Weights) -> pd.DataFrame:
    """Eq. 15 against Eq. 16: both weights after `noise_steps` steps, by eta sigma_epsilon^2."""
    pull = spaced(settings, "pull_range")
    toy, steps = Toy(settings["eta"], np.sqrt(pull / settings["eta"])), int(settings["noise_steps"])
    discrete, continuous = trajectory(start, toy, steps, noise_step), continuous_noise(start, toy, steps)
    columns = {"pull": pull, "discrete_w_ni": np.abs(discrete.w_ni[-1]), "discrete_w1": np.abs(discrete.w1[-1])}
    return pd.DataFrame({**columns, "continuous_w_ni": np.abs(continuous.w_ni), "continuous_w1": np.abs(continuous.w1)})


def batches(settings: Mapping[str, Any], start: Weights) -> pd.DataFrame:
    """By |B|: the spread of R_1, the mean of R_2 (both from Eq. 9 on samples), how far a sampled step is from Eq. 13's."""
    rng, rows, toy = np.random.default_rng(settings["seed"] + 1), [], Toy(settings["eta"], settings["batch_sigma"])
    limit = mean_step(start, toy)
    for batch in settings["batch_sizes"]:
        x = rng.standard_normal((int(settings["repeats"]), int(batch)))
        epsilon = toy.sigma_epsilon * rng.standard_normal(x.shape)
        plus, minus, clean = (sample_loss(start, x, sign * epsilon, 1.0) for sign in (1, -1, 0))
        first, second = (plus - minus) / 2, (plus + minus) / 2 - clean
        sampled = sample_step(start, x, epsilon, toy)
        away = np.sqrt(sum(np.mean((a - b) ** 2) for a, b in zip(sampled, limit, strict=True)))
        rows.append((int(batch), float(first.std()), float(second.mean()), float(away)))
    return pd.DataFrame(rows, columns=["batch", "r1_spread", "r2_mean", "step_error"])


def bound(settings: Mapping[str, Any]) -> pd.DataFrame:
    """Random draws: whether a step of Eq. 13 shrinks |w_NI|, and what the two conditions say."""
    rng, n = np.random.default_rng(settings["seed"] + 2), int(settings["bound_draws"])
    toy = Toy(10 ** rng.uniform(-3, 1, n), 10 ** rng.uniform(-2, 2, n))
    w = weights(rng.standard_normal(n), rng.standard_normal(n), rng.standard_normal(n))
    shrinks = np.abs(mean_step(w, toy).w_ni) < np.abs(w.w_ni)
    return pd.DataFrame(
        {"shrinks": shrinks, "corrected": decays(w.w1, toy), "printed": decays_as_printed(w.w1, toy)}
    ).value_counts().rename("draws").reset_index()  # fmt: skip


def check(settings: Mapping[str, Any]) -> None:
    """Raises UserError naming the first setting that is impossible."""
    for name in ("eta", "batch_sigma", "diagram_time"):
        if not settings[name] > 0:
            raise UserError(f"study.{name} = {settings[name]}: must be above 0")
    for name in ("steps", "samples", "grid", "repeats", "bound_draws", "noise_steps"):
        check_count(f"study.{name}", settings[name], 2, SAMPLES if name in ("samples", "bound_draws") else EPOCHS)
    for name in ("sigma_range", "eta_range", "pull_range"):
        low, high = settings[name]
        if not 0 < low < high:
            raise UserError(f"study.{name} = [{low}, {high}]: must be two numbers above 0, the smaller first")
    if len(settings["batch_sizes"]) < 3 or min(settings["batch_sizes"]) < 1:
        raise UserError(f"study.batch_sizes = {settings['batch_sizes']}: must be at least three whole numbers above 0")
