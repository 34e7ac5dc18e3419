"""Computes a study, which needs no data and no trained runs: `python scripts/study.py study=toy`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import datetime
import time
from importlib.metadata import version
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from noise_reg import entry
from noise_reg.artefacts.studies import STUDIES
from noise_reg.checkout import commit
from noise_reg.errors import UserError
from noise_reg.place import deliver, read_place


@hydra.main(version_base="1.3", config_path="../conf", config_name="study")
@entry.told
def main(cfg: DictConfig) -> None:
    settings: dict[str, Any] = OmegaConf.to_container(cfg.study, resolve=True)  # type: ignore[assignment]
    if settings["name"] not in STUDIES:
        raise UserError(f"study = {settings['name']}: unknown; known are {', '.join(STUDIES)}")
    study, started = STUDIES[settings["name"]], time.perf_counter()
    study.check(settings)
    place = read_place(cfg, "study", ("study",))
    tables = study.measure(settings)
    context = {
        "settings": settings,
        "commit": commit(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "pandas")},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    deliver(study, tables, context, place)


if __name__ == "__main__":
    entry.run(main)
