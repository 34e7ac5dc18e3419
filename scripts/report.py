"""Writes one HTML page of every artefact under results/: `python scripts/report.py`. Needs no torch and no data."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.artefacts import redraw
from noise_reg.artefacts.report import build_report


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
@entry.told
def main(cfg: DictConfig) -> None:
    results, out = Path(cfg.results), Path(cfg.out)
    if cfg.redraw:
        for provenance in sorted(results.glob("*/provenance.json")):
            redraw(provenance.parent)
    for problem in build_report(results, out):
        print(problem, file=sys.stderr)
    print(f"written: {out}")


if __name__ == "__main__":
    entry.run(main)
