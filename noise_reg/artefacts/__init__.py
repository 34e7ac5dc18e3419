"""Artefacts: figures and tables as pure functions of committed rows. Nothing in here imports torch.

`REGISTRY[name].build(rows, context, out)` makes the whole folder of an artefact of trained runs (STUDIES holds those computed
from settings, MEASURED those of tables, EVERY all) and returns its verdicts; `redraw(folder)`
makes it again from what is committed there. `context` is the provenance: it must hold `preset` and `dataset`; `below_paper_scale` ('' at the paper's scale, else what is less) is computed from
the rows of trained runs; it may hold `spread` ('runs', the default, or 'mean'),
and whatever else a reader should know (seeds, reading, commit, versions, machine, date, seconds) in values that JSON
can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noise_reg.artefacts import fig2, fig3, fig6, fig9, phases, table1, table2, variants
from noise_reg.artefacts.folder import Kept, check_context, load_provenance
from noise_reg.artefacts.rows import Rows, read_rows, write_rows
from noise_reg.artefacts.scale import below_paper_scale
from noise_reg.artefacts.studies import MEASURED, STUDIES
from noise_reg.artefacts.verdicts import Verdict
from noise_reg.errors import UserError

Draw = Callable[[Rows, Mapping[str, Any], Path], list[Verdict]]


@dataclass(frozen=True)
class Artefact(Kept[Rows]):
    """Drawn from the rows of trained runs. `parts` each draw their own files (<part>.png, .svg, .md, .csv); `whole_history`
    where they need every epoch with its losses and norms."""

    name: str
    title: str
    source: str
    parts: tuple[Draw, ...]
    whole_history: bool = False

    def write(self, data: Rows, context: Mapping[str, Any], folder: Path) -> None:
        check_context(context, data)
        write_rows(data, folder)

    def read(self, folder: Path) -> Rows:
        return read_rows(folder)

    def completed(self, data: Rows, context: Mapping[str, Any]) -> dict[str, Any]:
        return {**context, "below_paper_scale": below_paper_scale(data, context, self.name)}

    def contents(self, data: Rows) -> Iterator[str]:
        yield from (f"run {key}" for key in data.runs["key"])
        of = (data.evaluations[name] for name in ("key", "evaluation", "strength"))
        yield from (
            f"run {key}, {evaluation} at {float(strength)!r}" for key, evaluation, strength in zip(*of, strict=True)
        )

    def draw_all(self, data: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
        return [verdict for draw in self.parts for verdict in draw(data, context, out)]


REGISTRY = {
    made.name: made
    for made in (
        Artefact("fig2", "Fig. 2: robustness against input corruption", fig2.SOURCE, (fig2.draw,)),
        Artefact("fig3", "Fig. 3: phases of the noise injection node", fig3.SOURCE, (fig3.draw,), whole_history=True),
        Artefact("fig6", "Fig. 6: robustness against adversarial attacks", fig6.SOURCE, (fig6.draw,)),
        Artefact("fig7", "Fig. 7: other noise distributions", variants.FIG7_SOURCE, (variants.draw_fig7,)),
        Artefact("fig8", "Fig. 8 and Table 3: other optimisers", variants.FIG8_SOURCE, (variants.draw_fig8,)),
        Artefact("fig9", "Fig. 9: a VGG-style network on CIFAR-10", fig9.SOURCE, (fig9.draw,)),
        Artefact(
            "phases", "Phase diagram of the noise injection node", phases.SOURCE, (phases.draw,), whole_history=True
        ),
        Artefact("table1", "Table 1: domain shift from MNIST to USPS", table1.SOURCE, (table1.draw,)),
        Artefact("table2", "Table 2: accuracy on clean test data", table2.SOURCE, (table2.draw,)),
        Artefact(
            "demo", "Fig. 2 and Table 2 on an embedded data set", f"{fig2.SOURCE} and Table 2", (fig2.draw, table2.draw)
        ),
    )
}

EVERY: dict[str, Kept[Any]] = {**REGISTRY, **MEASURED, **STUDIES}


def artefact(name: str) -> Artefact:
    if name not in REGISTRY:
        raise UserError(f"artefact {name!r} is unknown; known are {', '.join(REGISTRY)}")
    return REGISTRY[name]


def artefact_folders(results: Path) -> list[Path]:
    """The finished folders under `results`; hidden ones are still being drawn."""
    return sorted(p.parent for p in results.glob("[!.]*/provenance.json"))


def redraw(folder: Path) -> list[Verdict]:
    """Figures, tables and verdicts of `folder` again, from its rows (or a study's tables) and provenance alone."""
    context = load_provenance(folder)
    if "artefact" not in context:
        raise UserError(f"{folder / 'provenance.json'}: 'artefact' must be given; known are {', '.join(EVERY)}")
    name = context["artefact"]
    return (EVERY[name] if name in EVERY else artefact(name)).redraw(context, folder)
