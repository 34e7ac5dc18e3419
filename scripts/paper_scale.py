"""Every figure and table at the paper's scale, some minutes at a time: `python scripts/paper_scale.py minutes=9`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import sys

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.paper_scale import paper_scale


@hydra.main(version_base="1.3", config_path="../conf", config_name="paper_scale")
@entry.told
def main(cfg: DictConfig) -> None:
    sys.exit(paper_scale(cfg))


if __name__ == "__main__":
    entry.run(main)
