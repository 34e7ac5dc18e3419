"""Runs and artefacts as Weights & Biases runs: the only file that imports wandb, in a process of its own (see mirror.py).

Everything here raises what goes wrong; what was not written whole is an error too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from noise_reg.spec import checked, one_of

if TYPE_CHECKING:
    import wandb

# Seconds that a dead network or a full disk may cost, once: until the service has started, until the server has
# answered, until a finished run has been sent, until a written run has been read back.
SERVICE_TIMEOUT, INIT_TIMEOUT, FINISH_TIMEOUT, READ_TIMEOUT = 30.0, 20.0, 60.0, 60.0

# wandb records machine, command line, code and terminal unless told otherwise; a result needs none of them.
PRIVATE: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "docker": "",
    "email": "",
    "host": "anonymous",
    "label_disable": True,
    "program": "noise_reg",
    "program_abspath": "noise_reg",
    "program_relpath": "noise_reg",
    "save_code": False,
    "username": "anonymous",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_executable": "python",
    "x_save_requirements": False,
}


@dataclass(frozen=True)
class TrackingSpec:
    mode: str = checked(one_of("offline", "online", "disabled"))
    project: str = checked(
        lambda name: None if name and not set(name) & set("/\\#?%:") else "text without / \\ # ? % :"
    )
    folder: str = checked(lambda folder: None if folder else "a folder")  # wandb writes to its sub-folder wandb/

    @property
    def target(self) -> str:
        """What a mirror is told apart by: a run that is shown in one place is not thereby shown in another."""
        where = (
            [os.environ.get(name, "") for name in ("WANDB_BASE_URL", "WANDB_ENTITY")] if self.mode == "online" else []
        )
        return " ".join([self.mode, *filter(None, where), self.project])


class Writer:
    """Writes to one target; every run and artefact replaces what the target had under its id."""

    def __init__(self, spec: TrackingSpec) -> None:
        self.spec = spec
        self._settings: wandb.Settings | None = None

    def connect(self) -> None:
        """Starts wandb's service; online a missing key is told."""
        self._start()

    def write_run(
        self,
        key: str,
        spec: Mapping[str, Any],
        record: Mapping[str, Any],
        history: pd.DataFrame,
        evaluations: pd.DataFrame,
        group: str,
        tags: Sequence[str],
    ) -> Path:
        """One stored run, its folder: `spec` is a RunSpec as nested dict, `record` the run's row of the store (with its method).

        The config keeps the nesting, which W&B shows and filters as `strengths.nin_input`. The summary holds the
        record's scalars and each evaluation as `<evaluation>/<strength>`. W&B's own clock counts the mirroring; the
        training took `seconds`.
        """
        name = f"{spec['dataset']['name']}-{spec['arch']['name']}-{record['method']}-s{spec['seed']}"
        config = {**spec, "key": key, "method": record["method"]}
        with self._run(key, name=name, group=group, job_type="train", tags=tags, config=config) as run:
            last = 0
            for row in history.dropna(axis="columns", how="all").to_dict("records"):
                last = int(row["epoch"])
                run.log({str(column): value for column, value in row.items()}, step=last)
            if len(evaluations):
                run.log({"evaluations": table(evaluations, run, "evaluations", last)}, step=last)
            run.summary.update(summary_of(record, evaluations))
        return Path(run.settings.sync_dir)

    def write_artefact(self, name: str, folder: Path, context: Mapping[str, Any]) -> Path:
        """One figure or table, its folder: every PNG of its folder as an image, every CSV as a table, verdicts.json as summary."""
        config = dict(context)
        with self._run(f"artefact-{name}", name=name, group=name, job_type="artefact", config=config) as run:
            import wandb

            media: dict[str, Any] = {
                f"figure/{png.stem}": wandb.Image(str(png)) for png in sorted(folder.glob("*.png"))
            }
            for csv in sorted(folder.glob("*.csv")):
                label = f"table/{csv.stem}"
                media[label] = table(pd.read_csv(csv), run, label, 0)
            run.log(media, step=0)
            verdicts = folder / "verdicts.json"
            if verdicts.exists():
                run.summary.update(by_claim(json.loads(verdicts.read_text(encoding="utf-8"))))
        return Path(run.settings.sync_dir)

    def remove_others(self, id_: str, known: Collection[str]) -> None:
        """Removes the offline folders of this id but those `known`: what a killed process left, or what was written anew."""
        for folder in self._folders(id_):
            if folder.name not in known:
                shutil.rmtree(folder)

    def _folders(self, id_: str) -> list[Path]:
        return [
            path for path in Path(self.spec.folder).glob("wandb/offline-run-*") if path.name.split("-", 3)[3] == id_
        ]

    @contextmanager
    def _run(self, id_: str, **arguments: Any) -> Iterator[wandb.Run]:
        settings = self._start().model_copy()  # init writes its arguments into the settings it is given
        import wandb

        while time.strftime("%Y%m%d_%H%M%S") in [folder.name.split("-", 3)[2] for folder in self._folders(id_)]:
            time.sleep(0.1)  # wandb names a folder by the second, and would write into the one that is there
        run = wandb.init(id=id_, settings=settings, **arguments)
        try:
            yield run
        except BaseException:  # wandb's own context manager would print a traceback
            run.finish(exit_code=1)
            raise
        run.finish()
        if self.spec.mode == "offline":
            check_whole(Path(run.settings.sync_file))

    def _start(self) -> wandb.Settings:
        """The settings of every run; the first call starts wandb's service, which then serves them all."""
        if self._settings is not None:
            return self._settings
        folder = Path(self.spec.folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK):  # wandb would fall back to the temporary folder
            raise PermissionError(f"cannot write to {folder}")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reports its own crashes over the network
        import wandb

        settings = wandb.Settings(
            mode=self.spec.mode,  # type: ignore[arg-type]
            project=self.spec.project,
            root_dir=str(folder),
            use_dot_wandb=False,
            symlink=False,
            silent=True,
            quiet=True,
            reinit="create_new",
            stop_fn=lambda: None,  # else the web page's stop button sends this process an interrupt
            x_service_wait=SERVICE_TIMEOUT,
            init_timeout=INIT_TIMEOUT,
            finish_timeout=FINISH_TIMEOUT,
            finish_timeout_raises=True,
            **PRIVATE,
        )
        wandb.setup(settings=settings)
        if self.spec.mode == "online" and not wandb.login(
            prompt=False, verify=False
        ):  # a prompt would hold up a training
            raise PermissionError("no API key; run `wandb login`, set WANDB_API_KEY, or track offline")
        self._settings = settings
        return settings


def check_whole(file: Path) -> None:
    """Raises OSError if wandb did not write an offline run to its end, of which it says nothing itself."""
    from wandb.util import get_core_path

    call = [get_core_path(), "leet", "inspect", "--json", "--summary", "--no-observability", "-run-file", str(file)]
    read = subprocess.run(call, capture_output=True, text=True, timeout=READ_TIMEOUT, check=False)
    state = json.loads(read.stdout)["state"] if read.returncode == 0 else "unreadable"
    if state != "finished":
        raise OSError(f"{file.parent} was not written to its end: {state}; is the disk full?")


def table(frame: pd.DataFrame, run: wandb.Run, label: str, step: int) -> wandb.Table:
    import wandb

    rows: list[Any] = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    shown = wandb.Table(columns=list(map(str, frame.columns)), data=rows, allow_mixed_types=True)
    # Bound before it is logged, a table is one file in the run's folder. Otherwise wandb stages a second copy under the
    # home folder and names that path in its log, and an offline run could not be sent from another machine.
    shown.bind_to_run(run, label, step)
    return shown


def summary_of(record: Mapping[str, Any], evaluations: pd.DataFrame) -> dict[str, Any]:
    native = {name: value.item() if hasattr(value, "item") else value for name, value in record.items()}
    summary = {name: value for name, value in native.items() if isinstance(value, str | bool | int | float)}
    for row in evaluations.to_dict("records"):
        summary[f"{row['evaluation']}/{row['strength']:g}"] = row["accuracy"]
    return summary


def by_claim(verdicts: Any) -> Any:
    """A list of verdicts as a mapping: W&B shows nested mappings as summary columns, but lists not at all."""
    if isinstance(verdicts, list) and all(isinstance(verdict, Mapping) for verdict in verdicts):
        verdicts = {str(verdict.get("claim", place)): verdict for place, verdict in enumerate(verdicts)}
    return {name: by_claim(item) for name, item in verdicts.items()} if isinstance(verdicts, Mapping) else verdicts
