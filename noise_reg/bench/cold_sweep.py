"""The same script as Hydra's job: one run of a recipe. With `-m hydra/launcher=joblib`, a sweep of single runs as users make it."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from noise_reg.bench.cold_run import read_recipe, train_runs


@hydra.main(version_base="1.3", config_path=None)
def main(cfg: DictConfig) -> None:
    train_runs(read_recipe(Path(cfg.recipe)), [cfg.place], Path(cfg.out))


if __name__ == "__main__":
    main()
