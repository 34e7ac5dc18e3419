"""Section 2.1 of the NINR paper measured on real networks: R_k along training, the expansion, claims N8 and N9, Eq. 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import dataset_name, training
from noise_reg.artefacts.statistics import CONTRADICTED, REPRODUCED, combine
from noise_reg.artefacts.tables import claims_table
from noise_reg.artefacts.verdicts import Part, Verdict, interval_text, slope_part

SOURCE = "Noise Injection Node Regularization for Robust Learning, section 2.1, Eqs 1 to 7"
TABLES = ("course", "expansion", "batch", "spectrum")
TITLE = "What a noise injection node adds to the loss"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
DASHES = ("-", "--", "-.", ":")
SLOPE_TOLERANCE = 0.1
AGREES = 0.1  # of the added loss
SMALL = 0.1  # of the largest sigma |W_NI| at which the expansion is judged
ROUNDING = 1e-10

N8_RULE = (
    "Root mean square of R_k over draws of noise and batches, at unit noise; the slope of its logarithm against that of the "
    "batch with its 95 % t interval. Reproduced if slope − expected (−1/2 for odd k, 0 for even) lies wholly within ±0.1, "
    "contradicted if wholly outside, else inconclusive."
)
N9_RULE = (
    "The lowest eigenvalue of the mean local Hessian at the input's node, squared error: reproduced if at least −10⁻¹⁰ of the "
    "highest in every network and epoch, else contradicted. The paper's statement is for linear activations (the network "
    "'linear'); the others are ReLU (Botev et al.). Cross-entropy is shown beside it."
)
EQ4_RULE = (
    "Noisy minus clean loss against R_1 + R_2 on the same noise, where σ_ε |W_NI| is at most 0.1: reproduced if they agree within "
    "10 % of |R_1| + |R_2| at every such σ_ε, else contradicted."
)


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """meters.png, .svg, .md under `out`, and the verdicts."""
    verdicts = judge(tables)
    save_figure(out, "meters", figure(tables, context))
    save_text(out, "meters.md", as_markdown(tables, context, verdicts))
    return verdicts


def moments(table: pd.DataFrame) -> list[tuple[str, int, pd.DataFrame]]:
    """(network, epoch, rows) in the table's order."""
    return [
        (str(name), int(str(epoch)), rows) for (name, epoch), rows in table.groupby(["network", "epoch"], sort=False)
    ]


def judge(tables: Mapping[str, pd.DataFrame]) -> list[Verdict]:
    slopes = []
    for network, epoch, rows in moments(tables["batch"]):
        for k, expected in ((1, -0.5), (2, 0.0), (3, -0.5), (4, 0.0)):
            of = rows[rows["k"] == k]
            words = f"{network}, epoch {epoch}: R_{k}"
            slopes.append(
                slope_part("FC", words, "|B|", of["batch"].tolist(), of["rms"].tolist(), expected, SLOPE_TOLERANCE, "")
            )
    signs = []
    for row in tables["spectrum"].to_dict("records"):
        share = row["lowest"] / row["highest"]
        if row["loss"] == "squared":
            words = f"{row['network']}, epoch {row['epoch']}: lowest eigenvalue {share:.1e} of the highest"
            signs.append(plain("FC", words, REPRODUCED if share >= -ROUNDING else CONTRADICTED))
    agreement = []
    norms = tables["course"].set_index(["network", "epoch"])["nin_norm"]
    for network, epoch, rows in moments(tables["expansion"]):
        small = rows[rows["sigma"] * norms[network, epoch] <= SMALL]
        if len(small):
            off = float(
                ((small["r1"] + small["r2"] - small["added"]).abs() / (small["r1"].abs() + small["r2"].abs())).max()
            )
            words = f"{network}, epoch {epoch}: R_1 + R_2 off by at most {100 * off:.2g} % at the {len(small)} smallest σ_ε tried"
            agreement.append(plain("FC", words, REPRODUCED if off <= AGREES else CONTRADICTED))
    return [
        Verdict(
            "Eq. 4",
            "At small noise the loss that the node adds is R_1 + R_2.",
            whole(agreement),
            tuple(agreement),
            EQ4_RULE,
        ),
        Verdict(
            "N8", "Odd R_k fall with the batch as |B|^(−1/2), even ones do not.", whole(slopes), tuple(slopes), N8_RULE
        ),
        Verdict(
            "N9", "The local Hessian is positive semi-definite for squared error.", whole(signs), tuple(signs), N9_RULE
        ),
    ]


def whole(parts: Sequence[Part]) -> str:
    return combine([part.verdict for part in parts])


def plain(arch: str, words: str, verdict: str) -> Part:
    return Part(arch, words, None, None, None, (1, 0), False, verdict)


def figure(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any]) -> Figure:
    """Along training, the expansion, against the batch, and Eq. 7's trace."""
    settings = context["settings"]
    head = Head(
        f"{TITLE}: {dataset_name(context['dataset'])}",
        f"{made_with(context)}, one run a noise, node at the input; {settings['draws']} draws of noise, "
        f"{settings['images']} images, {settings['vectors']} Hutchinson vectors; fp64.",
        context["below_paper_scale"],
    )
    width = 11.0
    height = head.height(width) + 8.4
    made = Figure(figsize=(width, height))
    axes = made.subplots(
        2,
        2,
        gridspec_kw={"left": 0.08, "right": 0.985, "bottom": 0.07, "top": 7.9 / height, "hspace": 0.32, "wspace": 0.2},
    )
    head.write(made, 0.15)
    draw_course(axes[0, 0], tables["course"])
    draw_expansion(axes[0, 1], tables["expansion"])
    draw_batch(axes[1, 0], tables["batch"])
    draw_trace(axes[1, 1], tables["course"])
    for axis in axes.flat:
        axis.grid(color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, handlelength=3)
    return made


def made_with(context: Mapping[str, Any]) -> str:
    """Network and training in words; of a folder of an older version what the overrides of its settings name."""
    if "training" in context:
        return training(pd.DataFrame(context["training"]))
    asked = dict(str(one).partition("=")[::2] for one in context["settings"].get("overrides", []))
    names = {
        "arch": "arch",
        "network": "arch.widths",
        "learning_rate": "optimizer.learning_rate",
        "batch_size": "optimizer.batch_size",
    }
    known = {column: asked.get(name, "").strip("[]").replace(",", "-") for column, name in names.items()}
    return training(pd.DataFrame([known]))


def networks(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str, str]]:
    """(network, rows, colour, marker)."""
    names = list(dict.fromkeys(table["network"]))
    return [(n, table[table["network"] == n], COLOURS[i % 4], MARKERS[i % 4]) for i, n in enumerate(names)]


def draw_course(axis: Axes, table: pd.DataFrame) -> None:
    for name, rows, colour, marker in networks(table):
        axis.plot(rows["epoch"], rows["r2"], color=colour, marker=marker, ls="-", ms=5, label=f"$R_2$, {name}")
        axis.plot(
            rows["epoch"],
            rows["r1_rms"],
            color=colour,
            marker=marker,
            mfc="none",
            ls="--",
            ms=5,
            label=f"rms $R_1$, {name}",
        )
    axis.set_yscale("log")
    axis.set(xlabel="epoch", ylabel="nats")
    axis.set_title("At the training's own noise and batch", fontsize=10, loc="left")


def draw_expansion(axis: Axes, table: pd.DataFrame) -> None:
    for n, (network, epoch, rows) in enumerate(moments(table)):
        colour = COLOURS[n % 4]
        added, terms = rows["added"].abs(), (rows["r1"] + rows["r2"]).abs()
        axis.plot(
            rows["sigma"], added, color=colour, marker=MARKERS[n % 4], ls="", ms=5, label=f"{network}, epoch {epoch}"
        )
        axis.plot(rows["sigma"], terms, color=colour, ls=DASHES[n % 4], lw=1.3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set(xlabel=r"$\sigma_\epsilon$", ylabel="|noisy − clean loss| (nats)")
    axis.set_title("Marks: measured. Lines: $|R_1 + R_2|$", fontsize=10, loc="left")


def draw_batch(axis: Axes, table: pd.DataFrame) -> None:
    last = moments(table)[0]
    _, _, rows = last
    for k in range(1, 5):
        of = rows[rows["k"] == k]
        axis.errorbar(
            of["batch"],
            of["rms"],
            yerr=of["rms_error"],
            color=COLOURS[k - 1],
            marker=MARKERS[k - 1],
            ls="",
            ms=5,
            label=f"rms $R_{k}$",
        )
        first = of.iloc[0]
        slope = -0.5 if k % 2 else 0.0
        axis.plot(
            of["batch"],
            first["rms"] * (of["batch"] / first["batch"]) ** slope,
            color=COLOURS[k - 1],
            ls=DASHES[k - 1],
            lw=1,
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set(xlabel="batch size", ylabel="nats, at unit noise")
    axis.set_title(f"{last[0]}, epoch {last[1]}. Lines: slope −1/2 (odd k), 0 (even k)", fontsize=10, loc="left")


def draw_trace(axis: Axes, table: pd.DataFrame) -> None:
    for name, rows, colour, marker in networks(table):
        axis.errorbar(
            rows["epoch"], rows["trace"], yerr=2 * rows["trace_error"], color=colour, marker=marker, ls="-", ms=5,
            label=rf"Tr $\langle H\rangle$, {name}",
        )  # fmt: skip
        axis.errorbar(
            rows["epoch"], rows["corrupted_r2"], yerr=2 * rows["corrupted_r2_error"], color=colour, marker=marker, mfc="none",
            ls="--", ms=5, label=rf"$R_2$ of Eq. 7 at $\sigma_\delta = 1$, {name}",
        )  # fmt: skip
    axis.set_yscale("log")
    axis.set(xlabel="epoch", ylabel="nats")
    axis.set_title("Curvature at the input's layer (bars: 2 standard errors)", fontsize=10, loc="left")


def beyond_small_noise(table: pd.DataFrame) -> str:
    """How far R_1 + R_2 is from the loss that the node adds at the strongest noise tried, by network and epoch."""
    largest = table[table["sigma"] == table["sigma"].max()]
    told = [
        f"{r['network']}, epoch {r['epoch']}: {(r['r1'] + r['r2']) / r['added']:.2g}"
        for r in largest.to_dict("records")
    ]
    return (
        f"R_1 + R_2 over the loss added at σ_ε = {largest['sigma'].iloc[0]:g}, the strongest tried: {'; '.join(told)}."
    )


def as_markdown(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    settings = context["settings"]
    sigmas = tables["course"].groupby("network", sort=False)["sigma"].first()
    of_nodes = ", ".join(f"{network} σ_ε = {sigma:.1f}" for network, sigma in sigmas.items())
    caption = (
        f"{dataset_name(context['dataset'])}, {made_with(context)}, node at the input, one run a noise: {of_nodes}. R_1 and R_2 of "
        f"{settings['draws']} draws at B = {settings['batch']}; gradient, trace and Eq. 7 on {settings['images']} images with "
        f"{settings['vectors']} Hutchinson vectors (± standard error). The paper gives no such numbers."
    )
    course = [
        [
            str(r["network"]), str(r["epoch"]), f"{r['loss']:.3g}", f"{r['nin_norm']:.3g}", f"{r['gradient_norm']:.3g}",
            f"{r['r1_rms']:.3g}", f"{r['r2']:.3g} ± {r['r2_sd']:.2g}", f"{r['trace']:.3g} ± {r['trace_error']:.1g}",
            f"{r['corrupted_r2']:.3g} ± {r['corrupted_r2_error']:.1g}",
        ]
        for r in tables["course"].to_dict("records")
    ]  # fmt: skip
    header = ["network", "epoch", "loss", "|W_NI|", "|⟨g⟩|", "rms R_1", "R_2 ± sd", "Tr ⟨H⟩", "R_2 of Eq. 7, σ_δ = 1"]
    spectrum = [
        [str(r["network"]), str(r["epoch"]), str(r["loss"]), f"{r['lowest']:.2e}", f"{r['highest']:.3g}"]
        for r in tables["spectrum"].to_dict("records")
    ]
    parts = [[v.claim, p.comparison, interval_text(p), p.verdict] for v in verdicts for p in v.numbers]
    rules = "\n".join(f"- {v.claim}: {v.rule}" for v in verdicts)
    return markdown.document(
        f"# {TITLE}",
        caption,
        markdown.scale_note(context),
        markdown.table(header, course),
        beyond_small_noise(tables["expansion"]),
        "## Spectrum of the mean local Hessian",
        f"On {settings['spectrum_images']} images; 'linear' is the same network without its activation.",
        markdown.table(["network", "epoch", "loss", "lowest eigenvalue", "highest"], spectrum),
        "## Claims",
        claims_table(verdicts),
        markdown.table(["claim", "part", "difference [95 % interval]", "verdict"], parts),
        rules,
    )
