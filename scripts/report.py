"""Writes one HTML page of every artefact under results/: `python scripts/report.py`. Needs no torch and no data."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.artefacts import artefact_folders, redraw
from noise_reg.artefacts.report import build_report
from noise_reg.atomic import explained, recover_folders


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
@entry.told
def main(cfg: DictConfig) -> None:
    results, out = Path(cfg.results), Path(cfg.out)
    if results.is_dir():
        with explained(results, "results"):
            recover_folders(results)
    for folder in artefact_folders(results) if cfg.redraw else ():
        redraw(folder)
    for problem in build_report(results, out):
        print(problem, file=sys.stderr)
    print(f"written: {out}")


if __name__ == "__main__":
    entry.run(main)
