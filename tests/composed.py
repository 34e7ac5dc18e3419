"""Composes the project's configurations for tests, as its scripts would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from noise_reg.config import Job, read_job

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
SMALL = ["dataset=digits", "arch=fc_small", "wandb=disabled"]


@contextmanager
def composed(name: str, *overrides: str) -> Iterator[DictConfig]:
    """The configuration `name`, inside Hydra's context (so that it may compose further ones)."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield compose(name, overrides=list(overrides))


def job(*overrides: str) -> Job:
    with composed("train", *overrides) as cfg:
        return read_job(cfg)
