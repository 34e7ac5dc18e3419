"""What the N+J summary leaves open: the cost of a step, lambda x sigma, other losses and noises, other perturbations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import dataset_name, layer, styles
from noise_reg.artefacts.nj import label
from noise_reg.artefacts.statistics import Interval, Summary, difference, holm, student, summarise
from noise_reg.artefacts.verdicts import Verdict, interval_text, part
from noise_reg.decimals import shortest

SOURCE = "Adding noise to the input of a model trained with a regularized objective (a summary): further questions"
TABLES = ("cost", "map", "variants", "perturbed")
PLAIN = "none"
FGSM_SHOWN = 0.1  # the largest delta of the figure; the table has all
TITLE = "Questions that the N+J summary leaves open"
PAIRS = (
    ("input_noise", PLAIN),
    ("jacobian", PLAIN),
    ("nj", "jacobian"),
)  # whose accuracy under perturbations is compared
PERTURBED = {
    "occlusion": "side of a black square (pixels)",
    "rotation": "rotation (degrees)",
    "fgsm": "δ (pixels from 0 to 1)",
}
TITLES = {"occlusion": "Occlusion", "rotation": "Rotation", "fgsm": "FGSM"}


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """nj_questions.png, .svg, .md under `out`. The summary claims nothing here that a rule could judge."""
    save_figure(out, "nj_questions", figure(tables, context))
    save_text(out, "nj_questions.md", as_markdown(tables, context))
    return []


def errors(runs: pd.DataFrame) -> dict[int, float]:
    """Test error in percent by seed, of completed runs."""
    done = runs[runs["status"] == "completed"]
    return {int(seed): 100 - 100 * float(a) for seed, a in zip(done["seed"], done["test_accuracy"], strict=True)}


def network(settings: Mapping[str, Any]) -> str:
    """'tanh MLP, 128 units'."""
    widths = [o.partition("=")[2].strip("[]") for o in settings["overrides"] if o.startswith("arch.widths=")]
    return f"tanh MLP, {widths[-1].replace(',', '-')} units" if widths else "tanh MLP"


def figure(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any]) -> Figure:
    settings = context["settings"]
    head = Head(
        f"{TITLE}: {dataset_name(context['dataset'])}",
        f"{network(settings)} but where the cost's legend says, {settings['seeds']} runs a point ({settings['map']['seeds']} in the map); bars and bands: 95 % t "
        f"interval of the mean. Cost: one replica, B = {settings['cost']['batch_size']}, median of {settings['cost']['repeats']}. "
        f"Preset {context['preset']}.",
        context["below_paper_scale"],
    )
    width = 11.0
    height = head.height(width) + 8.6
    made = Figure(figsize=(width, height))
    axes = made.subplots(
        2,
        3,
        gridspec_kw={
            "left": 0.11,
            "right": 0.985,
            "bottom": 0.075,
            "top": 8.2 / height,
            "hspace": 0.34,
            "wspace": 0.42,
        },
    )
    head.write(made, 0.15)
    cost_panel(axes[0][0], tables["cost"])
    map_panel(axes[0][1], tables["map"])
    variants_panel(axes[0][2], tables["variants"])
    for axis, evaluation in zip(axes[1], PERTURBED, strict=True):
        perturbed_panel(axis, tables["perturbed"], evaluation)
    axes[1][0].legend(fontsize=9, frameon=False)
    return made


def ratios(cost: pd.DataFrame) -> dict[str, dict[str, tuple[float, float]]]:
    """network -> method -> (milliseconds, ratio to the plain step), medians over repeats; ratios are of the same repeat. Networks
    lack the methods that they refuse."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for network in dict.fromkeys(cost["network"]):
        ms, ratio = by_repeat(cost, network)
        found[network] = {str(m): (float(ms[m].median()), float(ratio[m].median())) for m in ms}
    return found


def by_repeat(cost: pd.DataFrame, network: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Milliseconds, and times the plain step of the same repeat: one row a repeat, one column a method that the network has."""
    rows = cost[cost["network"] == network]
    ms = rows.pivot(index="repeat", columns="method", values="ms")[list(dict.fromkeys(rows["method"]))]
    return ms, ms.div(ms.iloc[:, 0], axis=0)


def cost_cells(cost: pd.DataFrame, network: str, methods: Sequence[str]) -> list[str]:
    """'2.8 ms, 1.9 (1.5 to 4.0)': medians, and the range of the ratio over repeats; the plain step's milliseconds alone."""
    ms, ratio = by_repeat(cost, network)

    def cell(m: str) -> str:
        if m not in ms:
            return "refused"
        time = f"{ms[m].median():.2f} ms"
        if m == ms.columns[0]:
            return time
        return f"{time}, {ratio[m].median():.2f} ({ratio[m].min():.2f} to {ratio[m].max():.2f})"

    return [cell(m) for m in methods]


def cost_panel(axis: Axes, cost: pd.DataFrame) -> None:
    found = ratios(cost)
    hatches, colours = ("", "///", "...", "xxx"), ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
    methods = list(dict.fromkeys(cost["method"]))[1:]
    height = 0.8 / len(found)
    for n, (network, by_method) in enumerate(found.items()):
        there = [k for k, m in enumerate(methods) if m in by_method]
        places = np.array(there) + (n - (len(found) - 1) / 2) * height
        values = [by_method[methods[k]][1] for k in there]
        axis.barh(places, values, height, color=colours[n % 4], hatch=hatches[n % 4], edgecolor="white", label=network)
        for place, value in zip(places, values, strict=True):
            axis.text(value, place, f" {value:.1f}", va="center", fontsize=7.5)
    axis.axvline(1, color="#000000", lw=0.8)
    axis.set_yticks(range(len(methods)), methods, fontsize=8.5)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(v[1] for by_method in found.values() for v in by_method.values()))
    axis.set_xlabel("times the plain step")
    axis.legend(fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(1.0, 0.6))  # beside the short bars
    axis.set_title("Cost of a training step", fontsize=10, loc="left")


def map_panel(axis: Axes, table: pd.DataFrame) -> None:
    mean = mean_map(table)
    image = axis.imshow(mean.to_numpy(), cmap="cividis_r", aspect="auto")
    axis.set_xticks(range(len(mean.columns)), [f"{shortest(c)}" for c in mean.columns], fontsize=8.5)
    axis.set_yticks(range(len(mean.index)), [f"{shortest(i)}" for i in mean.index], fontsize=8.5)
    low, high = np.nanmin(mean.to_numpy()), np.nanmax(mean.to_numpy())
    for (row, column), value in np.ndenumerate(mean.to_numpy()):
        dark = value > low + 0.55 * (high - low)
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axis.set(xlabel="σ in the Jacobian's input (pixels)", ylabel="λ")
    axis.set_title("N+J: test error (%), dark is worse", fontsize=10, loc="left")
    image.set_clim(low, high)


def with_errors(table: pd.DataFrame) -> pd.DataFrame:
    """The completed runs with their test errors in percent."""
    return table[table["status"] == "completed"].assign(error=lambda t: 100 - 100 * t["test_accuracy"])


def mean_map(table: pd.DataFrame) -> pd.DataFrame:
    return with_errors(table).pivot_table(index="jacobian", columns="noise", values="error", aggfunc="mean")


def reach_of(s: Summary) -> float:
    """Half of the 95 % t interval of a mean."""
    return 0.0 if s.n < 2 else s.mean - student(s.mean, s.standard_error, s.n - 1, (s.n, s.n), paired=True).low


def variants_panel(axis: Axes, table: pd.DataFrame) -> None:
    methods, variants = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["variant"]))
    look = styles(methods)
    for n, method in enumerate(methods):
        style = look[method]
        for place, variant in enumerate(variants):
            s = summarise(list(errors(table[(table["method"] == method) & (table["variant"] == variant)]).values()))
            axis.errorbar(
                s.mean, place + 0.17 * (n - (len(methods) - 1) / 2), xerr=reach_of(s), fmt=style.marker, color=style.colour, ms=5.5,
                capsize=2, mfc=style.colour if style.filled else "none", label=label(method) if not place else None,
            )  # fmt: skip
    axis.set_yticks(range(len(variants)), [v.replace(" ", "\n", 1) for v in variants], fontsize=8.5)
    axis.set_ylim(len(variants) - 0.4, -0.6)
    axis.legend(fontsize=8, frameon=False)
    axis.set_xlabel("test error (%)")
    axis.set_title("Loss, dropout, heavy tails", fontsize=10, loc="left")


def perturbed_panel(axis: Axes, table: pd.DataFrame, evaluation: str) -> None:
    of = table[table["evaluation"] == evaluation]
    if evaluation == "fgsm":
        of = of[of["strength"] <= FGSM_SHOWN]
    for method, style in styles(of["method"]).items():
        rows = of[of["method"] == method]
        strengths = sorted(rows["strength"].unique())
        found = [summarise((100 * rows.loc[rows["strength"] == s, "accuracy"]).tolist()) for s in strengths]
        mean, reach = np.array([s.mean for s in found]), np.array([reach_of(s) for s in found])
        axis.plot(
            strengths, mean, color=style.colour, ls=style.dash, marker=style.marker, ms=4.5, label=label(method),
            mfc=style.colour if style.filled else "white", **layer(style),
        )  # fmt: skip
        axis.fill_between(strengths, mean - reach, mean + reach, color=style.colour, alpha=0.15, lw=0)
    axis.set(xlabel=PERTURBED[evaluation], ylabel="test accuracy (%)")
    axis.set_title(TITLES[evaluation], fontsize=10, loc="left")


def as_markdown(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any]) -> str:
    settings = context["settings"]
    caption = (
        f"{dataset_name(context['dataset'])}, {network(settings)}, {settings['seeds']} runs a number, mean ± standard deviation. "
        f"Preset {context['preset']}, {context['machine']}. Every run: {markdown.code(settings['overrides'])}; "
        f"{by_name(settings['methods'])}; {by_name(settings['variants'])}. The summary has no such numbers."
    )
    methods = list(dict.fromkeys(tables["cost"]["method"]))
    cost = [
        [network, *cost_cells(tables["cost"], network, methods)] for network in dict.fromkeys(tables["cost"]["network"])
    ]
    grid, map_spread = mean_map(tables["map"]), spread_of(tables["map"])
    cells = [[f"{shortest(row)}", *(f"{value:.2f}" for value in grid.loc[row])] for row in grid.index]
    return markdown.document(
        f"# {TITLE}",
        caption,
        markdown.scale_note(context),
        "## In short",
        "\n".join(f"- {line}" for line in in_short(tables, map_spread)),
        "## Cost of a training step",
        f"Milliseconds of one replica, and times the plain step of the same network and repeat; B = {settings['cost']['batch_size']}, medians "
        f"and range of {settings['cost']['repeats']} repeats. The convolutional network has batch norm, whose Jacobian in training depends on the other "
        "samples: it is refused there.",
        markdown.table(["network", *methods], cost),
        "## λ × σ",
        f"Test error of N+J in %, mean of {settings['map']['seeds']} runs; rows λ, columns σ in the Jacobian's input. σ = 0 is J. "
        f"{map_spread}",
        markdown.table(["λ", *(f"σ = {shortest(c)}" for c in grid.columns)], cells),
        "## Loss, dropout, heavy tails",
        "Test error in %, and its difference to the plain network of the same setting, in points, paired by seed; Holm's p over a "
        "setting's comparisons. Rates and strengths were chosen for the first setting and not searched for the others.",
        variants_table(tables["variants"]),
        "## Other perturbations",
        "Test accuracy in %.",
        perturbed_differences(tables["perturbed"]),
        *(
            f"{TITLES[evaluation]}, by {what}\n\n{perturbed_table(tables['perturbed'], evaluation)}"
            for evaluation, what in PERTURBED.items()
        ),
    )


def by_name(chosen: Mapping[str, list[str]]) -> str:
    """'jacobian: `regularizer=jacobian`; nj: ...', without those that change nothing."""
    return "; ".join(f"{name}: {markdown.code(overrides)}" for name, overrides in chosen.items() if overrides)


def in_short(tables: Mapping[str, pd.DataFrame], map_spread: str) -> list[str]:
    """The answers: what differs from the plain network with Holm's p < 0.05, setting by setting, and the map's."""
    lines = []
    for variant in dict.fromkeys(tables["variants"]["variant"]):
        found = compared(tables["variants"], variant)
        told = [
            f"{label(m)} errs {interval_text(part('', '', i, ''))} points" for m, (i, p) in found.items() if p < 0.05
        ]
        lines.append(f"{variant}: {', '.join(told) if told else 'no method differs from the plain network'}.")
    return [*lines, f"λ × σ: {map_spread}"]


def spread_of(table: pd.DataFrame) -> str:
    """Whether the map's cells differ, by an analysis of variance over cells and seeds; of cells whose runs all completed."""
    grid = with_errors(table).pivot_table(index=["jacobian", "noise"], columns="seed", values="error").dropna()
    cells, seeds = grid.shape
    if cells < 2 or seeds < 2:
        return "One run a cell says nothing of what is chance."
    rest = grid.sub(grid.mean(axis=1), axis=0).sub(grid.mean(axis=0), axis=1) + grid.to_numpy().mean()
    freedom = (cells - 1) * (seeds - 1)
    variance = float((rest**2).to_numpy().sum()) / freedom
    ratio = seeds * float(grid.mean(axis=1).var()) / variance if variance else math.inf
    p = float(stats.f.sf(ratio, cells - 1, freedom))
    return (
        f"The cells' means lie between {grid.mean(axis=1).min():.2f} and {grid.mean(axis=1).max():.2f} %; beside the seeds' own differences a "
        f"run scatters by {math.sqrt(variance):.2f} points (standard deviation); that all cells are alike has p = {p:.2g}."
    )


def perturbed_differences(table: pd.DataFrame) -> str:
    """Accuracy as the mean over every strength above 0, differences paired by seed."""
    touched = table[table["strength"] > 0]
    mean = 100 * touched.groupby(["evaluation", "method", "seed"])["accuracy"].mean()
    body = []
    for evaluation in PERTURBED:
        cells = []
        for first, second in PAIRS:
            both = [mean[evaluation, m].to_dict() if (evaluation, m) in mean.index else {} for m in (first, second)]
            cells.append(interval_text(part("", "", difference(*both), "")))
        body.append([TITLES[evaluation], *cells])
    header = [f"{label(first)} − {label(second)}" for first, second in PAIRS]
    return markdown.table(["mean over strengths", *(f"{name} [95 % interval]" for name in header)], body)


def compared(table: pd.DataFrame, variant: str) -> dict[str, tuple[Interval, float]]:
    """method -> its test error minus the plain network's, paired by seed, and Holm's p over the variant's comparisons."""
    of = table[table["variant"] == variant]
    by_method = {m: errors(of[of["method"] == m]) for m in dict.fromkeys(of["method"])}
    intervals = {m: difference(values, by_method[PLAIN]) for m, values in by_method.items() if m != PLAIN}
    return dict(
        zip(intervals, zip(intervals.values(), holm([i.p for i in intervals.values()]), strict=True), strict=True)
    )


def variants_table(table: pd.DataFrame) -> str:
    body = []
    for variant in dict.fromkeys(table["variant"]):
        of = table[table["variant"] == variant]
        found = compared(table, variant)
        for method in dict.fromkeys(of["method"]):
            s, cells = summarise(list(errors(of[of["method"] == method]).values())), ["–", "–"]
            if method in found:
                interval, p = found[method]
                cells = [interval_text(part("", "", interval, "")), "–" if math.isnan(p) else f"{p:.2g}"]
            sd = "" if math.isnan(s.sd) else f" ± {s.sd:.2f}"
            body.append([variant, label(method), f"{s.mean:.2f}{sd}", str(s.n), *cells])
    return markdown.table(["setting", "method", "test error", "n", "− plain [95 % interval]", "p"], body)


def perturbed_table(table: pd.DataFrame, evaluation: str) -> str:
    of = table[table["evaluation"] == evaluation]
    strengths = sorted(of["strength"].unique())
    body = []
    for method in dict.fromkeys(of["method"]):
        rows = of[of["method"] == method]
        found = [summarise((100 * rows.loc[rows["strength"] == s, "accuracy"]).tolist()) for s in strengths]
        body.append([label(method), *(f"{s.mean:.1f}" + ("" if math.isnan(s.sd) else f" ± {s.sd:.1f}") for s in found)])
    return markdown.table(["method", *(f"{shortest(s)}" for s in strengths)], body)
