"""The folder under results/ that a command's artefacts go to, and how they get there.

What a preset asks for goes to the preset's own folder. What was asked differently goes to one whose name says so, and no folder is
replaced by one that lacks something of it, unless the user says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from noise_reg.artefacts.folder import Data, Kept, flat_leaves
from noise_reg.artefacts.verdicts import Verdict
from noise_reg.atomic import check_writable, explained, recover_folders
from noise_reg.config import Runtime
from noise_reg.spec import SpecError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# how a command runs, where, and what it does with an older folder: nothing of this changes what is measured or drawn
RUNNING = {field.name for field in dataclasses.fields(Runtime)}
RUNNING |= {"results", "name", "replace", "presets", "shard", "num_shards", "train", "keep_rows", "hydra"}
WHOLE = "cpu"  # the preset whose results of a study are committed
SHOWN = 3  # names of a list in a message


@dataclass(frozen=True)
class Place:
    """`changed`: dotted names of what was asked differently from `preset`, in their order. `replace`: whatever an older folder
    holds. `store`: of the runs, where there are some."""

    results: Path
    preset: str
    usual_suffix: str
    suffix: str
    changed: tuple[str, ...]
    replace: bool
    store: str | None = None

    def folder(self, artefact: str) -> Path:
        return self.results / f"{artefact}{self.suffix}"

    def folders(self, artefact: str) -> tuple[Path, Path]:
        """The artefact's folder, and the preset's own."""
        return self.folder(artefact), self.results / f"{artefact}{self.usual_suffix}"

    def free(self, folder: Path, lost: Sequence[str], contents: Any) -> Path:
        """`folder`, or one beside it that is named by its `contents`, where `folder` holds what would be `lost`."""
        if not lost or self.replace:
            return folder
        own = folder.with_name(f"{folder.name}-{digest(contents)}")
        print(f"{folder}/ stays as it is, for it holds what this lacks ({some(lost)}); replace=true would replace it")
        return own

    @property
    def preset_in_words(self) -> str:
        """'cpu', or 'cpu, changed in seeds, panels.mnist_2': what figures and tables say."""
        return ", ".join(filter(None, [self.preset, f"changed in {some(self.changed)}" if self.changed else ""]))


def read_place(cfg: DictConfig, config: str, choices: Sequence[str] = ("preset",), usual: str | None = None) -> Place:
    """Where the results of `cfg`, composed from the primary configuration `config`, go; `choices` are the groups that name a
    preset, `usual` the end of its folder's name where the preset does not say it. Raises SpecError for an impossible name, and StoreError where nothing can be written."""
    name, replace = cfg.name, cfg.replace
    if name is not None and not NAME.fullmatch(str(name)):
        raise SpecError(
            f"name = {name}: must be null, or letters, digits, dots, dashes and underlines, the end of a folder's name"
        )
    if not isinstance(replace, bool):
        raise SpecError(f"replace = {replace}: must be true or false")
    results = Path(cfg.results)
    check_writable(results)
    if results.is_dir():
        with explained(results, "results"):
            recover_folders(results)
    changed = differences(cfg, config, choices)
    preset = str(cfg.preset.name) if "preset" in cfg else ""
    if usual is None:
        usual = str(cfg.preset.suffix) if "preset" in cfg else ""
    suffix = usual
    if name is not None:
        suffix = f"-{name}"
    elif changed:
        suffix += f"-{digest(changed)}"
    return Place(results, preset, usual, suffix, tuple(changed), replace, cfg.get("store"))


def differences(cfg: DictConfig, config: str, choices: Sequence[str]) -> dict[str, Any]:
    """What `cfg` asks for and its preset does not, or the other way round (None), by dotted name."""
    chosen = [f"{group}={cfg[group].name}" for group in choices]
    try:
        usual = leaves(hydra.compose(config, overrides=chosen))
    except HydraException as error:
        raise SpecError(f"{', '.join(chosen)}: the name must stay that of its file: {error}") from error
    asked = leaves(cfg)
    return {name: asked.get(name) for name in (asked | usual) if asked.get(name) != usual.get(name)}


def leaves(cfg: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return dict(flat_leaves({name: value for name, value in plain.items() if name not in RUNNING}))


def study_context(plain: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """What the provenance of a study says of its settings, and figures and tables of one below the committed one."""
    return {
        "preset": place.preset_in_words,
        "below_paper_scale": shorter(plain, place.preset),
        "settings": of_measurement(plain),
    }


def shorter(plain: Mapping[str, Any], preset: str) -> str:
    """'seeds 2, images 50 (the whole study: 5, 2000)': what is less than the study of preset cpu has; '' where nothing is."""
    whole = plain["presets"][WHOLE]
    asked = {**plain["presets"][preset], **{name: plain[name] for name in whole if name in plain}}
    less = [name for name in whole if is_less(asked.get(name), whole[name])]
    ours = ", ".join(f"{name} {asked.get(name)}" for name in less)
    return f"{ours} (the whole study: {', '.join(str(whole[name]) for name in less)})" if less else ""


def is_less(asked: Any, whole: Any) -> bool:
    """Of numbers, and of the length or the largest of lists."""
    if isinstance(whole, list):
        return not isinstance(asked, list) or len(asked) < len(whole) or max(asked) < max(whole)
    return isinstance(whole, int | float) and (not isinstance(asked, int | float) or asked < whole)


def of_measurement(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a study without those that say where and how it ran: what a provenance says of it."""
    return {name: value for name, value in plain.items() if name not in {*RUNNING, "preset"}}


def digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:8]


def some(names: Sequence[str]) -> str:
    """'a, b, c and 4 more'."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def deliver(
    made: Kept[Data],
    data: Data,
    context: Mapping[str, Any],
    place: Place,
    further: Callable[[Path], None] | None = None,
) -> Path:
    """Builds the folder of `made`, tells verdicts and place, and returns the folder. Where the preset's own folder holds what this
    one would not, it stays, and a folder named by the contents is built beside it."""
    out = place.folder(made.name)
    out = place.free(out, made.lost(data, context, out), made.inventory(data, context))
    verdicts = made.build(data, context, out, further)
    show_verdicts(verdicts, out)
    if place.changed:
        usual = f"preset {place.preset}" if place.preset else "the configuration"
        print(f"asked differently from {usual}: {', '.join(place.changed)}")
    show_next(out, place.store)
    return out


def show_verdicts(verdicts: Sequence[Verdict], out: Path) -> None:
    for verdict in verdicts:
        print(f"  {verdict.claim}: {verdict.verdict}. {verdict.statement}")
    for note in dict.fromkeys(verdict.note for verdict in verdicts if verdict.note):
        print(f"  all {note}")
    print(f"written to {out}/: {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}")


def show_next(out: Path, store: str | None) -> None:
    """Where runs are and what may be done with the results: the end of every command that makes an artefact."""
    page = next(iter(sorted(out.glob("*.md"))), out)
    if store is not None:
        print(f"its runs are stored in {store}/ (from Python: Store({store!r}).runs())")
    results = out.parent
    print(
        f"next: read {page}; python scripts/report.py results={results} out={results / 'report.html'} makes one page of all"
    )
