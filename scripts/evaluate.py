"""Evaluates stored runs under Eq. 8 with settings of your own: `python scripts/evaluate.py store=runs corruption.draws=10`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.reevaluate import reevaluate


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
@entry.told
def main(cfg: DictConfig) -> None:
    reevaluate(cfg)


if __name__ == "__main__":
    entry.run(main)
