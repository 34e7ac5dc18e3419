"""Times stacked training against plain loops: `python scripts/benchmark.py preset=quick`, or `preset=smoke` as a guard."""

from __future__ import annotations

from noise_reg import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # until `entry.run`: what follows takes seconds to import

import hydra
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.benchmark import benchmark


@hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")
@entry.told
def main(cfg: DictConfig) -> None:
    benchmark(cfg)


if __name__ == "__main__":
    entry.run(main)
