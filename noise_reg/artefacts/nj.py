"""The N+J table (Rifai, Glorot, Bengio, Vincent, from a summary): test error by data set, depth and method; claims R1 and R2."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head, two_columns
from noise_reg.artefacts.methods import METHODS, dataset_name, rank, styles
from noise_reg.artefacts.methods import label as method_label
from noise_reg.artefacts.paper import paper_numbers
from noise_reg.artefacts.statistics import Interval, combine, difference, holm, judge_greater, student, summarise
from noise_reg.artefacts.tables import claim_block, claims_table
from noise_reg.artefacts.verdicts import Part, Verdict, absent, interval_text, noted, part
from noise_reg.decimals import shortest

SOURCE = "Adding noise to the input of a model trained with a regularized objective (a summary), 'Key Results'"
TABLES = ("search", "runs")
PLAIN, BEST = "none", "nj"
RIVALS = ("none", "l2", "input_noise", "jacobian")
PRINTED = {"none": "mlp", "nj": "nj"}  # in paper.yaml
RULE = (
    "Test accuracy, {who}, paired by seed, on each data set and depth. A part is reproduced if its 95 % interval lies above 0, "
    "contradicted if the difference is negative with Holm's p < 0.05 over the parts of the data set and depth, otherwise "
    "inconclusive (under-powered beyond a half-width of 2 points or below 3 runs)."
)
R1_RULE = RULE.format(who="N − MLP and J − MLP")
R2_RULE = RULE.format(who="N+J − each other method")
Cell = tuple[str, int]  # data set, depth
BySeed = dict[int, float]


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """nj_table.png, .svg, .md under `out`, and the verdicts on R1 and R2."""
    errors = by_cell(tables["runs"])
    verdicts = [r1(errors), r2(errors)]
    save_figure(out, "nj_table", figure(errors, context))
    save_text(out, "nj_table.md", as_markdown(tables, errors, context, verdicts))
    return verdicts


def by_cell(runs: pd.DataFrame) -> dict[Cell, dict[str, BySeed]]:
    """(data set, depth) -> method -> seed -> test error in percent, of completed runs."""
    found: dict[Cell, dict[str, BySeed]] = {}
    for row in runs.to_dict("records"):
        of = found.setdefault((str(row["dataset"]), int(row["depth"])), {}).setdefault(str(row["method"]), {})
        if row["status"] == "completed":
            of[int(row["seed"])] = 100 - 100 * float(row["test_accuracy"])
    return {cell: {m: found[cell][m] for m in sorted(found[cell], key=lambda m: rank(m, METHODS))} for cell in found}


def name_of(cell: Cell) -> str:
    return f"{dataset_name(cell[0])}, {cell[1]} hidden {'layer' if cell[1] == 1 else 'layers'}"


def label(method: str) -> str:
    return "MLP" if method == PLAIN else f"+ {method_label(method)}"


def lower(cell: Cell, methods: Mapping[str, BySeed], pairs: Sequence[tuple[str, str]]) -> list[Part]:
    """Whether the first of each pair errs less: parts in points of accuracy."""
    intervals = [difference(methods.get(second, {}), methods.get(first, {})) for first, second in pairs]
    adjusted = holm([interval.p for interval in intervals])
    words = {pair: f"{label(pair[0])} − {label(pair[1])}, accuracy" for pair in pairs}
    missing = {pair: [label(method) for method in pair if method not in methods] for pair in pairs}
    return [
        absent(name_of(cell), words[first, second], " and ".join(missing[first, second]))
        if missing[first, second]
        else part(name_of(cell), words[first, second], interval, judge_greater(interval, p))
        for (first, second), interval, p in zip(pairs, intervals, adjusted, strict=True)
    ]


def r1(errors: Mapping[Cell, Mapping[str, BySeed]]) -> Verdict:
    pairs = [("input_noise", PLAIN), ("jacobian", PLAIN)]
    parts = [p for cell, methods in errors.items() for p in lower(cell, methods, pairs)]
    statement = "Input noise alone and the Jacobian penalty alone each beat the plain MLP."
    return verdict("R1", statement, parts, R1_RULE, errors)


def r2(errors: Mapping[Cell, Mapping[str, BySeed]]) -> Verdict:
    parts = [p for cell, methods in errors.items() for p in lower(cell, methods, [(BEST, rival) for rival in RIVALS])]
    return verdict("R2", "N+J is best on all three data sets.", parts, R2_RULE, errors)


def verdict(claim: str, statement: str, parts: Sequence[Part], rule: str, cells: Iterable[Cell]) -> Verdict:
    there = {dataset for dataset, _ in cells}
    papers = paper_numbers()["noise_jacobian"]["test_error"]["values"]
    without = [dataset_name(d) for d in papers if d not in there]
    note = f"without {' and '.join(without)}" if without else ""
    return Verdict(claim, statement, combine([p.verdict for p in parts]), tuple(parts), rule, noted(parts, note))


def printed(dataset: str, method: str) -> float | None:
    values = paper_numbers()["noise_jacobian"]["test_error"]["values"].get(dataset, {})
    value = values.get(PRINTED.get(method, ""))
    return None if value is None else float(value)


def against(ours: BySeed, paper: float) -> Interval:
    """Ours minus the paper's number, which comes without spread or n: the interval is of ours alone."""
    s = summarise(list(ours.values()))
    return student(s.mean - paper, s.standard_error, s.n - 1, (s.n, 1), paired=False)


def figure(errors: Mapping[Cell, Mapping[str, BySeed]], context: Mapping[str, Any]) -> Figure:
    """A panel a data set and depth: every run, mean and 95 % interval of each method, the paper's two numbers."""
    head = Head(
        "Test error of tanh MLPs with noise and Jacobian regularisation",
        f"Dots: runs (their height says nothing); bar: mean and its 95 % t interval; dashes: the paper's number, printed without spread. {scale(context)}",
        context["below_paper_scale"],
    )
    cells = list(errors)
    made = two_columns(
        head, len(cells), lambda axis, n: panel(axis, cells[n], errors[cells[n]]), each=2.15, xlabel="test error (%)"
    )
    for dataset in {cell[0] for cell in cells}:  # its depths are to be compared
        own = [axis for axis, cell in zip(made.axes, cells, strict=False) if cell[0] == dataset]
        ends = [axis.get_xlim() for axis in own]
        for axis in own:
            axis.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
    return made


def panel(axis: Axes, cell: Cell, methods: Mapping[str, BySeed]) -> None:
    look = styles(methods)
    for place, (method, values) in enumerate(methods.items()):
        style, s = look[method], summarise(list(values.values()))
        # at different heights, so that equal ones are seen
        axis.plot(
            sorted(values.values()), [place - 0.13 * (n % 3) for n in range(len(values))], ls="", marker=style.marker, ms=5, color=style.colour, alpha=0.55,
            mfc=style.colour if style.filled else "none",
        )  # fmt: skip
        reach = student(s.mean, s.standard_error, s.n - 1, (s.n, s.n), paired=True) if s.n > 1 else None
        if reach is not None:
            axis.errorbar(
                s.mean, place + 0.28, xerr=s.mean - reach.low, fmt="|", color="#000000", capsize=3, lw=1.4, ms=9
            )
        value = printed(cell[0], method)
        if value is not None:
            axis.plot([value, value], [place - 0.4, place + 0.45], color="#666666", ls=(0, (3, 1.5)), lw=1.6)
    axis.set_yticks(range(len(methods)), [label(m) for m in methods])
    axis.set_ylim(len(methods) - 0.4, -0.75)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.set_title(name_of(cell), fontsize=10, loc="left")


def scale(context: Mapping[str, Any]) -> str:
    settings = context["settings"]
    return f"{settings['seeds']} runs a method, strengths chosen on validation images. Preset {context['preset']}."


def every_run(context: Mapping[str, Any]) -> str:
    """What all runs, and those of each network, were made with."""
    settings = context["settings"]
    panels = "; ".join(markdown.code(own) for own in settings["panels"].values())
    return f"Every run: {markdown.code(settings['overrides'])}; by network: {panels}."


def as_markdown(
    tables: Mapping[str, pd.DataFrame],
    errors: Mapping[Cell, Mapping[str, BySeed]],
    context: Mapping[str, Any],
    verdicts: Sequence[Verdict],
) -> str:
    caption = (
        f"Test error in %, mean ± standard deviation over runs (n). {scale(context)} {every_run(context)} The paper: '{SOURCE}', without "
        "spread or number of runs, whatever the depth."
    )
    body, lost = [], tables["runs"][tables["runs"]["status"] != "completed"]
    for cell, methods in errors.items():
        for method, values in methods.items():
            s, value = summarise(list(values.values())), printed(cell[0], method)
            against_paper = "–"
            if value is not None and s.n > 1:
                against_paper = interval_text(part("", "", against(values, value), ""))
            sd = "" if math.isnan(s.sd) else f" ± {s.sd:.2f}"
            ours = f"{s.mean:.2f}{sd} ({s.n})" if s.n else "–"
            body.append([name_of(cell), label(method), ours, "–" if value is None else f"{value:g}", against_paper])
    header = ["network", "method", "ours", "paper", "ours − paper [95 % interval of ours]"]
    note = f"{len(lost)} of {len(tables['runs'])} runs did not complete and are in no mean." if len(lost) else ""
    return markdown.document(
        "# Test error of tanh MLPs with noise and Jacobian regularisation",
        caption,
        markdown.scale_note(context),
        markdown.table(header, body),
        note,
        "## Claims",
        claims_table(verdicts),
        *(claim_block(v) for v in verdicts),
        "## The search",
        budget(tables["search"], context["settings"]),
        search_table(tables["search"]),
    )


def budget(search: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    runs, networks = len(settings["search_seeds"]), len(search[["dataset", "depth"]].drop_duplicates())
    return (
        f"Mean ± standard deviation of {markdown.counted(runs, 'run')} a candidate on the validation images; the test images take no "
        f"part in the choice. {len(search) // runs} candidates, {len(search)} runs for {networks} networks. The rate is the plain network's best and then "
        "everyone's; strength 0 is no candidate, being the plain network; N+J's noise is not searched. Chosen ones are marked *, and † where "
        "the best is the lowest or highest tried."
    )


def search_table(search: pd.DataFrame) -> str:
    body = []
    for (dataset, depth, method), group in search.groupby(["dataset", "depth", "method"], sort=False):
        by_value = {
            float(str(v)): runs for v, runs in group.groupby("rate" if method == PLAIN else "strength", sort=False)
        }
        ends = min(by_value), max(by_value)
        tried = ", ".join(
            f"{shortest(value)}: {error_text(runs['validation_accuracy'])}{'*' * bool(runs['chosen'].any())}"
            f"{'†' * bool(runs['chosen'].any() and value in ends)}"
            for value, runs in by_value.items()
        )
        what = "rate" if method == PLAIN else "strength"
        body.append([name_of((str(dataset), int(str(depth)))), label(str(method)), what, tried])
    return markdown.table(["network", "method", "searched", "value: validation error in %"], body)


def error_text(accuracies: pd.Series[float]) -> str:
    """Of a candidate's runs; of which one that diverged rules it out."""
    lost = int(accuracies.isna().sum())
    if lost:
        return f"{lost} of {len(accuracies)} diverged"
    s = summarise((100 - 100 * accuracies).tolist())
    return f"{s.mean:.2f}" + ("" if math.isnan(s.sd) else f" ± {s.sd:.2f}")
