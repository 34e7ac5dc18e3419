"""The figure of precisions: a panel a method, the difference to the reference over sigma_noise, clean, and as a mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from noise_reg.artefacts import markdown
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import DASH_DOT, DASHED, OPTIMIZERS, SOLID, Style, arch_name, dataset_name
from noise_reg.artefacts.precision_pairs import CLEAN, LEVEL, MEAN, Pairing
from noise_reg.artefacts.statistics import Interval
from noise_reg.decimals import shortest

TITLE = "Fast arithmetic against"
STYLES = (
    Style("#0072B2", SOLID, "o", True),
    Style("#D55E00", DASHED, "s", False),
    Style("#000000", DASH_DOT, "^", False),
)
COLUMNS = 3
BESIDE = 0.16  # of the strength axis, from one point to the next outside the curve
WITHIN = "#ececec"


def described(context: Mapping[str, Any]) -> str:
    """The runs in words."""
    net, settings = context["network"], context["settings"]
    seeds, epochs = settings["seeds"], settings["max_epochs"]
    end = f" or {100 * net['stop_accuracy']:g} % training accuracy" if net["stop_accuracy"] < 1 else ""
    return (
        f"{arch_name(net['arch'])}, hidden layers of {', '.join(map(str, net['widths']))}, {OPTIMIZERS[net['optimizer']]}, "
        f"η = {net['eta']:g}, B = {net['batch']}, {context['reading']['loss']} loss, at most {markdown.counted(epochs, 'epoch')}{end}; "
        f"{markdown.counted(seeds, 'seed')} a method and precision, preset {context['preset']}"
    )


def figure(found: Sequence[Pairing], context: Mapping[str, Any]) -> Figure:
    """A panel a method, a line a fast precision."""
    settings = context["settings"]
    reference, margin = settings["reference"], float(settings["margin"])
    head = Head(
        f"{TITLE} {reference}: {dataset_name(context['dataset'])}",
        f"{described(context)}. Mean difference in accuracy to {reference}, paired by seed over the runs that learned in both; each run is "
        f"evaluated in the precision of its training. Bands and bars: {100 * LEVEL:g} % t intervals. The panels' vertical axes differ.",
        str(context["below_paper_scale"]),
    )
    methods = list(dict.fromkeys(pairing.name for pairing in found))
    columns = min(COLUMNS, len(methods))
    width, left, each, rows = 11.0, 0.15, 2.5, -(-len(methods) // columns)
    top = head.height(width - left) + 0.4
    height = top + 0.3 + each * rows + 0.3
    made = Figure(figsize=(width, height))
    place = {"left": 0.075, "right": 0.985, "bottom": 0.55 / height, "top": 1 - (top + 0.42) / height}
    axes = made.subplots(rows, columns, squeeze=False, gridspec_kw={**place, "hspace": 0.48, "wspace": 0.2})
    head.write(made, left)
    styles = {fast: STYLES[i % len(STYLES)] for i, fast in enumerate(settings["fast"])}
    for n, axis in enumerate(axes.flat):
        if n < len(methods):
            draw_panel(axis, [pairing for pairing in found if pairing.name == methods[n]], styles, margin)
            last = n + columns >= len(methods)
            axis.set(
                xlabel=r"$\sigma_{\mathrm{noise}}$" if last else "", ylabel="" if n % columns else "difference (points)"
            )
        else:
            axis.set_axis_off()
    handles = [Line2D([], [], label=f"{fast} − {reference}", **look(style)) for fast, style in styles.items()]
    bounds = Patch(facecolor=WITHIN, edgecolor="#666666", linestyle="--", label=f"within ±{margin:g} points")
    made.legend(
        handles=[*handles, bounds], loc="upper left", bbox_to_anchor=(0.065, 1 - (top - 0.38) / height), ncols=len(handles) + 1,
        frameon=False, fontsize=9.5, handlelength=3.6, borderaxespad=0,
    )  # fmt: skip
    return made


def look(style: Style) -> dict[str, Any]:
    filling = style.colour if style.filled else "white"
    return {"color": style.colour, "ls": style.dash, "lw": 1.5, "marker": style.marker, "ms": 4.5, "mfc": filling}


def draw_panel(axis: Axes, found: Sequence[Pairing], styles: Mapping[str, Style], margin: float) -> None:
    """Clean accuracy at the left, the curve, its mean at the right."""
    axis.axhspan(-margin, margin, color=WITHIN, lw=0, zorder=0)
    for at in (-margin, margin):
        axis.axhline(at, color="#666666", ls=(0, (4, 3)), lw=0.8, zorder=1)
    axis.axhline(0, color="#999999", lw=0.8, zorder=1)
    curve = [sigma for sigma in found[0].sigmas if sigma != CLEAN]
    strongest, first = max(curve, default=1.0), min(curve, default=1.0)
    start, mean_at = first - BESIDE, strongest + BESIDE
    reach = 1.2 * margin
    for n, pairing in enumerate(found):
        style, shift = styles[pairing.precision], 0.3 * BESIDE * (n - (len(found) - 1) / 2)
        over = [pairing.interval(sigma) for sigma in curve]
        draw_curve(axis, curve, over, style)
        clean, mean = pairing.interval(CLEAN), pairing.interval(MEAN)
        for at, interval in ((start, clean), (mean_at, mean)):
            draw_point(axis, at + shift, interval, style)
        ends = [abs(end) for i in (*over, clean, mean) for end in (i.difference, i.low, i.high)]
        reach = max([reach, *(end for end in ends if math.isfinite(end))])
    ticks = ticks_of(curve)
    axis.set_xticks([start, *ticks, mean_at], ["clean", *(f"{shortest(t)}" for t in ticks), "mean"], fontsize=8.5)
    axis.set(xlim=(start - 0.6 * BESIDE, mean_at + 0.6 * BESIDE), ylim=(-1.08 * reach, 1.08 * reach))
    if not any(pairing.seeds for pairing in found):
        axis.text(0.5, 0.62, "no pair of runs learned", transform=axis.transAxes, ha="center", fontsize=9)
    axis.set_title(title(found), fontsize=9, loc="left")
    axis.tick_params(axis="y", labelsize=8.5)
    axis.spines[["top", "right"]].set_visible(False)


def ticks_of(curve: Sequence[float]) -> list[float]:
    """At most six of the strengths, the last one among them."""
    step = -(-len(curve) // 6)
    return list(curve[::-1][::step][::-1])


def draw_curve(axis: Axes, sigmas: Sequence[float], over: Sequence[Interval], style: Style) -> None:
    low, high = [i.low for i in over], [i.high for i in over]
    axis.plot(sigmas, [i.difference for i in over], **look(style), zorder=3)
    axis.fill_between(sigmas, low, high, color=style.colour, alpha=0.2, lw=0, zorder=2)
    for end in (low, high):  # seen without colour, too
        axis.plot(sigmas, end, color=style.colour, ls=style.dash, lw=0.6, zorder=2)


def draw_point(axis: Axes, at: float, interval: Interval, style: Style) -> None:
    reach = 0.0 if math.isnan(interval.half_width) else interval.half_width
    bar = {**look(style), "ls": "", "ms": 5.5}
    axis.errorbar([at], [interval.difference], yerr=[reach], capsize=3, elinewidth=1.2, zorder=3, **bar)


def title(found: Sequence[Pairing]) -> str:
    """The method and its pairs; below, what became of runs that did not learn."""
    counts = [str(len(pairing.seeds)) for pairing in found]
    said = counts[0] if len(set(counts)) == 1 else " and ".join(counts)
    words = f"{found[0].name}: {markdown.counted(said, 'pair')}"
    dead = {line.reading: line.count - len(line.trained) for p in found for line in (p.reference, p.fast)}
    gone = ", ".join(f"{precision} {n}" for precision, n in dead.items() if n)
    return words + (f"\ndid not learn, of {found[0].reference.count}: {gone}" if gone else "")
