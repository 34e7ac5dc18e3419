"""Trains and evaluates one run, or with `-m` a sweep as stacks. `python scripts/train.py --help` lists the choices."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.sweep import stacked, train_jobs


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
@stacked
@entry.told
def main(cfg: DictConfig) -> float:
    """The objective of the run (`objective=`), which a sweeper may maximise."""
    (objective,) = train_jobs([cfg])
    return objective


if __name__ == "__main__":
    entry.run(main)
