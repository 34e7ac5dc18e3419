"""Draws Figs 1, 4 and 5 of the NINR paper from networks of its own: `python scripts/drawings.py`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.drawings import draw


@hydra.main(version_base="1.3", config_path="../conf", config_name="drawings")
@entry.told
def main(cfg: DictConfig) -> None:
    draw(cfg)


if __name__ == "__main__":
    entry.run(main)
