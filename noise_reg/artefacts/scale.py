"""What of an artefact's rows is below the paper's scale, or not its: runs, epochs, images, network, precision, batch and rate, each as the
rows have it.

The paper's scale stands in `paper.yaml`; what it does not say of an artefact is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from noise_reg.artefacts.lines import span
from noise_reg.artefacts.markdown import counted
from noise_reg.artefacts.methods import ARCHS, arch_name, rank
from noise_reg.artefacts.paper import paper_numbers
from noise_reg.artefacts.rows import Rows

PRECISIONS = ("bf16", "tf32", "fp32", "fp64")  # rising
ALL = 10**9  # images: older rows do not count them where all were tested
OURS = ("certificate_", "clean")  # beginnings of evaluations that the paper does not have
Shortfall = tuple[str, str]  # ours and the paper's, in words


def below_paper_scale(rows: Rows, context: Mapping[str, Any], artefact: str) -> str:
    """'FC: bf16 (the paper: fp32); CNN: 3 runs a method, ... (the paper: 10 runs, ...)', '' at the paper's scale. Of an artefact that
    the paper does not have it is what `context` says."""
    paper = paper_numbers()["ninr"]["scale"].get(artefact)
    if paper is None:
        return str(context.get("below_paper_scale", ""))
    found: dict[str, list[tuple[str, str]]] = {}
    everyone = {(str(a), str(r)) for a, r in zip(rows.runs["arch"], rows.runs["reading"], strict=True)}
    for arch, reading in sorted(everyone, key=lambda one: (rank(one[0], ARCHS), one[1])):
        of = rows.runs[(rows.runs["arch"] == arch) & (rows.runs["reading"] == reading)]
        words = told(list(shortfalls(of, rows.evaluations, context, paper)))
        found.setdefault(words, []).append((arch, reading))
    named = [(who(of, everyone), words) for words, of in found.items() if words]
    limits = [f"{names}: {words}" for names, words in named]
    return "; ".join(filter(None, [*limits, str(context.get("limits", ""))]))


def told(short: list[Shortfall]) -> str:
    if not short:
        return ""
    ours, papers = (", ".join(dict.fromkeys(words)) for words in zip(*short, strict=True))
    return f"{ours} (the paper: {papers})"


def who(of: list[tuple[str, str]], everyone: set[tuple[str, str]]) -> str:
    """'CNN' where all readings of a network are meant, else 'CNN, exact loss'; the default reading alone needs no words."""
    names = []
    for arch in sorted({arch for arch, _ in of}, key=lambda arch: rank(arch, ARCHS)):
        readings = [reading for a, reading in of if a == arch]
        if {reading for a, reading in everyone if a == arch} == set(readings):
            names.append(arch_name(arch))
        else:
            names += [f"{arch_name(arch)}, {reading}" if reading else arch_name(arch) for reading in readings]
    return " and ".join(names)


def shortfalls(
    runs: pd.DataFrame, evaluations: pd.DataFrame, context: Mapping[str, Any], paper: Mapping[str, Any]
) -> Iterator[Shortfall]:
    """Of the runs of one network and reading."""
    counts = [len(of) for _, of in runs.groupby("method")]
    open_ = paper.get("not_said", {})
    if min(counts) < paper.get("runs", open_.get("runs", 0)):
        papers = f"{paper['runs']} runs" if "runs" in paper else unsaid("runs", open_["runs"])
        yield f"{span(counts)} {'run' if max(counts) == 1 else 'runs'} a method", papers
    yield from ended_early(runs, paper)
    trained = numbers(runs, "train_images") or [int(context.get("data", {}).get("train_images", paper["train_images"]))]
    if min(trained) < paper["train_images"]:
        yield f"{span(trained)} training images", f"{paper['train_images']}"
    tested = tested_on(runs, evaluations, context) or dict.fromkeys(
        ["training"], min(numbers(runs, "test_images") or [ALL])
    )
    few = {name: count for name, count in tested.items() if count < paper.get("test_images", 0)}
    for count in sorted(set(few.values())):
        names = [name for name, own in few.items() if own == count]
        where = "" if len(names) == len(tested) else f" for {', '.join(names)}"
        yield f"{count} test images{where}", f"{paper['test_images']}"
    arch = str(runs["arch"].iloc[0])
    network = paper.get("networks", {}).get(arch)
    others = sorted({str(name) for name in runs.get("network", ())} - {network, "", "nan"})
    if network and others:
        yield f"{' and '.join(others)} units", f"{network}"
    coarse = [p for p in PRECISIONS[: PRECISIONS.index(paper["precision"])] if p in set(runs["precision"])]
    if coarse:
        yield " and ".join(coarse), str(paper["precision"])
    for column, sign in (("batch_size", "B"), ("learning_rate", "η")):
        known = {float(value) for value in runs.get(column, ()) if str(value) not in ("", "nan")}
        if column in paper and known - {paper[column]}:
            yield f"{sign} = {' and '.join(f'{value:g}' for value in sorted(known))}", f"{paper[column]:g}"


def unsaid(what: str, ours: int) -> str:
    """Of something that the paper does not say: so, and what our committed figure has."""
    return f"{what} not said, our committed figure has {ours}"


def ended_early(runs: pd.DataFrame, paper: Mapping[str, Any]) -> Iterator[Shortfall]:
    """Runs that a cap below the paper's ended, or a training accuracy below the paper's."""
    open_ = paper.get("not_said", {}).get("epochs", 0)
    papers = paper.get("until") or (counted(paper["epochs"], "epoch") if "epochs" in paper else unsaid("epochs", open_))
    cut = runs[(runs["stopped_by"] == "epochs") & (runs["max_epochs"] < paper.get("epochs", open_))]
    if len(cut):
        yield f"at most {counted(span([int(cap) for cap in cut['max_epochs']]), 'epoch')}", papers
    reached = runs.loc[runs["stopped_by"] == "accuracy", "train_accuracy"]
    early = reached[reached < paper.get("stop_accuracy", 0)]
    if len(early):
        yield f"ended from {100 * early.min():.1f} % training accuracy on", f"{100 * paper['stop_accuracy']:g} %"


def numbers(table: pd.DataFrame, column: str) -> list[int]:
    """The whole numbers in a column that older rows do not have."""
    if column not in table:
        return []
    return [int(float(value)) for value in table[column] if str(value) not in ("", "nan")]


def tested_on(runs: pd.DataFrame, evaluations: pd.DataFrame, context: Mapping[str, Any]) -> dict[str, int]:
    """The number of images of each evaluation: from the rows, else as the provenance has it, else `ALL`."""
    own = evaluations[evaluations["key"].isin(runs["key"])]
    asked = context.get("evaluations", {}).get(str(runs["arch"].iloc[0]), {})
    found = {}
    for name, of in own.groupby("evaluation", sort=False):
        if str(name).startswith(OURS) or str(name).endswith("_gradients"):
            continue
        counts = numbers(of, "images") or [int(asked.get(name, {}).get("images", 0)) or ALL]
        found[str(name)] = min(counts)
    return found
