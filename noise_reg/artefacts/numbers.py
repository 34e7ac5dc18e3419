"""Tables of one number a method (NINR, Tables 1 and 2): ours beside the paper's, a verdict on every number."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.lines import Line, archs, span
from noise_reg.artefacts.methods import arch_name, dataset_name
from noise_reg.artefacts.paper import paper_numbers, printed
from noise_reg.artefacts.statistics import NUMBER_RULE, Interval, Summary, summarise, verdict_of_number, welch
from noise_reg.artefacts.verdicts import Part, Verdict, interval_text, note_of, part
from noise_reg.errors import UserError

NO_NUMBERS = "The paper has no numbers for this data set."
OURS, PAPER = "#0072B2", "#D55E00"
MARGIN, ROW = 0.15, 0.36  # inches


@dataclass(frozen=True)
class Subject:
    """What a table's number is: `name` of its files and `table` of paper.yaml ('table_2'); `what` the accuracy is of, in
    words, and `comparison` in short."""

    name: str
    table: str
    title: str
    what: str
    comparison: str

    @property
    def dataset(self) -> str:
        """The paper's."""
        return str(paper_numbers()["ninr"][self.table]["dataset"])


@dataclass(frozen=True, eq=False)
class Entry:
    """One line of the table: ours, the paper's number or None, and what follows from both."""

    line: Line
    ours: Summary
    paper: Summary | None
    interval: Interval | None
    verdict: str


def draw_numbers(
    subject: Subject, found: Sequence[Line], context: Mapping[str, Any], out: Path, *further: str
) -> list[Verdict]:
    """<name>.md, .csv, .png, .svg under `out`, and a verdict on every number that the paper prints. The numbers are the lines'
    `clean`; `further` blocks end the document."""
    entries = table(subject, found, context["dataset"])
    save_figure(out, subject.name, figure(subject, entries, context))
    save_text(out, f"{subject.name}.csv", as_csv(entries))
    save_text(out, f"{subject.name}.md", as_markdown(subject, entries, context, *further))
    note = note_of(context, subject.dataset, dataset_name(context["dataset"]))
    return [as_verdict(subject, entry, note) for entry in entries if entry.interval is not None]


def table(subject: Subject, found: Sequence[Line], dataset: str) -> list[Entry]:
    if not found:
        raise UserError(f"{subject.name}: the rows hold no runs")
    return [entry_of(line, printed(subject.table, line.arch, line.method, dataset)) for line in found]


def entry_of(line: Line, paper: Summary | None) -> Entry:
    ours = summarise(list(line.clean.values()))
    if paper is None:
        return Entry(line, ours, None, None, "")
    verdict = verdict_of_number(ours, paper, runs=line.count, diverged=line.lost)
    return Entry(line, ours, paper, welch(ours, paper), verdict)


def as_part(subject: Subject, entry: Entry) -> Part:
    assert entry.interval is not None
    return part(
        entry.line.arch, f"ours − paper, {subject.comparison}", entry.interval, entry.verdict, entry.line.account()
    )


def as_verdict(subject: Subject, entry: Entry, note: str) -> Verdict:
    name = f"{arch_name(entry.line.arch)}, {entry.line.label}"
    statement = f"{subject.title} is {plus_minus(entry.paper)} %."
    paper_name = subject.table.replace("_", " ").capitalize()
    return Verdict(f"{paper_name}, {name}", statement, entry.verdict, (as_part(subject, entry),), NUMBER_RULE, note)


def plus_minus(summary: Summary | None) -> str:
    """'88.1 ± 0.5', mean and 2 standard deviations; '–' when there is no number."""
    if summary is None or not summary.n:
        return "–"
    return f"{summary.mean:.1f}" + ("" if math.isnan(summary.sd) else f" ± {2 * summary.sd:.1f}")


def difference_text(subject: Subject, entry: Entry) -> str:
    return "–" if entry.interval is None else interval_text(as_part(subject, entry))


def as_csv(entries: Sequence[Entry]) -> str:
    """All numbers in percent or percentage points, empty where there is none."""
    names = ["arch", "method", "reading", "label", "runs", "n", "diverged_without_accuracy", "mean", "two_sd"]
    names += ["paper_mean", "paper_two_sd", "paper_n", "difference", "low", "high", "verdict"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for e in entries:
        numbers = [e.ours.mean, 2 * e.ours.sd]
        numbers += [e.paper.mean, 2 * e.paper.sd, e.paper.n] if e.paper else [math.nan] * 3
        numbers += [e.interval.difference, e.interval.low, e.interval.high] if e.interval else [math.nan] * 3
        shown = ["" if math.isnan(v) else f"{v:.6f}".rstrip("0").rstrip(".") for v in numbers]
        identity = [e.line.arch, e.line.method, e.line.reading, e.line.label, e.line.count, e.ours.n, e.line.lost]
        writer.writerow([*identity, *shown, e.verdict])
    return out.getvalue()


def as_markdown(subject: Subject, entries: Sequence[Entry], context: Mapping[str, Any], *further: str) -> str:
    header = ["network", "method", "ours ± 2σ (n)", "paper ± 2σ (n = 10)"]
    header += ["ours − paper [95 % Welch interval]", "verdict", "not completed or learned"]
    body = []
    for e in entries:
        ours = f"{plus_minus(e.ours)} ({e.ours.n})"
        numbers = [ours, plus_minus(e.paper), difference_text(subject, e), e.verdict or "–"]
        learned = e.line.learned()
        others = "" if learned is e.line else f"; the others: {plus_minus(summarise(list(learned.clean.values())))}"
        body.append([arch_name(e.line.arch), e.line.label, *numbers, (e.line.account() or "–") + others])
    has_paper = any(e.paper for e in entries)
    return markdown.document(
        f"# {subject.title}",
        f"Accuracy in % on {subject.what}, mean ± 2 standard deviations over n runs "
        f"with a finite accuracy. {scale(entries)} Preset {context['preset']}.",
        markdown.scale_note(context),
        markdown.table(header, body),
        f"How a verdict is reached. {NUMBER_RULE}" if has_paper else NO_NUMBERS,
        *further,
    )


def scale(entries: Sequence[Entry]) -> str:
    """'FC at most 500 epochs, CNN at most 100 epochs.'"""
    caps: dict[str, list[int]] = {}
    for e in entries:
        caps.setdefault(e.line.arch, []).extend(int(cap) for cap in e.line.runs["max_epochs"])
    words = {arch: markdown.counted(span(values), "epoch") for arch, values in caps.items()}
    return ", ".join(f"{arch_name(arch)} at most {epochs}" for arch, epochs in words.items()) + "."


def figure(subject: Subject, entries: Sequence[Entry], context: Mapping[str, Any]) -> Figure:
    """A dot plot: each run, ours mean ± 2 s.d., the paper's mean ± 2 sigma, the verdict in words."""
    present = archs([e.line for e in entries])
    rows = max(sum(e.line.arch == arch for e in entries) for arch in present)
    has_paper = any(e.paper for e in entries)
    left, panel, right, bottom = 2.35, 4.0, 1.8, 0.95
    width = (left + panel + right) * len(present)
    under = f"{scale(entries)} Preset {context['preset']}." + ("" if has_paper else f" {NO_NUMBERS}")
    dataset = dataset_name(context["dataset"])
    title = subject.title if dataset in subject.title else f"{subject.title}: {dataset}"
    head = Head(title, under, context["below_paper_scale"])
    height = head.height(width - MARGIN) + 0.4 + ROW * rows + bottom
    made = Figure(figsize=(width, height))
    for i, arch in enumerate(present):
        x = (i * (left + panel + right) + left) / width
        axes = made.add_axes((x, bottom / height, panel / width, ROW * rows / height))
        draw_panel(axes, [e for e in entries if e.line.arch == arch], arch, f"{subject.comparison} accuracy (%)")
    head.write(made, MARGIN)
    where = {"bbox_to_anchor": (0.1 / width, 0.05 / height), "borderaxespad": 0}
    made.legend(handles=legend(has_paper), loc="lower left", ncols=3, frameon=False, fontsize=8.5, **where)
    return made


def draw_panel(axes: Axes, entries: Sequence[Entry], arch: str, x_label: str) -> None:
    for y, e in enumerate(entries):
        ours_y, learned = y - 0.16 if e.paper else y, e.line.learned()
        runs = list(learned.clean.values())
        axes.plot(runs, [ours_y] * len(runs), "|", color=OURS, alpha=0.45, markersize=5)
        if runs:
            ours = summarise(runs)
            spread = None if math.isnan(ours.sd) else 2 * ours.sd
            axes.errorbar(ours.mean, ours_y, xerr=spread, fmt="o", color=OURS, markersize=5.5, elinewidth=1.6)
        if e.paper:
            how: dict[str, Any] = {"fmt": "D", "color": PAPER, "markerfacecolor": "white", "markersize": 5}
            axes.errorbar(e.paper.mean, y + 0.2, xerr=2 * e.paper.sd, elinewidth=1.1, **how)
        tally = e.line.tally() + ("" if learned is e.line else ", not drawn")
        words = "\n".join(text for text in (e.verdict, tally) if text)
        axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    names = [f"{e.line.label} ({e.ours.n})" for e in entries]
    axes.set_yticks(range(len(entries)), names, fontsize=8.5)
    axes.set(ylim=(len(entries) - 0.4, -0.6), xlabel=x_label)
    axes.set_title(f"{arch_name(arch)} (number of runs in brackets)", fontsize=10, loc="left")
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def legend(has_paper: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=OURS, marker="o", markersize=5.5, linewidth=1.6, label="ours, mean ± 2 s.d. over runs"),
        Line2D([], [], color=OURS, marker="|", linestyle="none", markersize=6, alpha=0.6, label="one run"),
    ]
    hollow = Line2D([], [], color=PAPER, marker="D", markerfacecolor="white", markersize=5, linewidth=1.1)
    hollow.set_label("paper, mean ± 2σ, n = 10")
    return [*handles, hollow] if has_paper else handles
