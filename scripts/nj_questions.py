"""Measures and draws what the N+J summary leaves open: `python scripts/nj_questions.py`."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.nj_questions import study


@hydra.main(version_base="1.3", config_path="../conf", config_name="nj_questions")
@entry.told
def main(cfg: DictConfig) -> None:
    study(cfg)


if __name__ == "__main__":
    entry.run(main)
