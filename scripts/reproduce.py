"""Reproduces a figure or table of the papers: `python scripts/reproduce.py artefact=fig2 preset=quick`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.cli.reproduce import reproduce


@hydra.main(version_base="1.3", config_path="../conf", config_name="reproduce")
@entry.told
def main(cfg: DictConfig) -> None:
    reproduce(cfg)


if __name__ == "__main__":
    entry.run(main)
