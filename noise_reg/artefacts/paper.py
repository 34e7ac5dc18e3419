"""The papers' numbers, read from `paper.yaml`, which names table and paper of each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from noise_reg.artefacts.statistics import Summary


@cache
def paper_numbers() -> dict[str, Any]:
    """`paper.yaml` as it stands. Shared: do not change it."""
    text = files("noise_reg.artefacts").joinpath("paper.yaml").read_text(encoding="utf-8")
    numbers: dict[str, Any] = yaml.safe_load(text)
    return numbers


def printed(table: str, arch: str, method: str, dataset: str) -> Summary | None:
    """Mean, standard deviation and n in % of a cell of NINR's `table` ('table_1', 'table_2').

    None when the paper has no such cell for this data set. The printed error is 2 sigma over runs: sd = error / 2.
    """
    entry = paper_numbers()["ninr"][table]
    cell = entry["values"].get(arch, {}).get(method)
    if cell is None or dataset != entry["dataset"]:
        return None
    mean, two_sigma = cell
    return Summary(mean=float(mean), sd=two_sigma / 2, n=entry["n"])
