"""Sweeps the noise of an injection node through its phases and draws the phase diagram: `python scripts/phases.py`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.phase_sweep import sweep


@hydra.main(version_base="1.3", config_path="../conf", config_name="phases")
@entry.told
def main(cfg: DictConfig) -> None:
    sweep(cfg)


if __name__ == "__main__":
    entry.run(main)
