"""Hydra launcher `hydra/launcher=stacked`: the jobs of a multirun are handed over together and trained as stacks.

Each job still gets its own JobReturn, so any sweeper works on top. A task function joins in by an attribute
`run_together(configs) -> list of return values or exceptions, one a job`; other functions run one job after the other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from noise_reg import sweep_folder  # noqa: F401 - conf/ names its resolver


@dataclass
class StackedLauncherConf:
    _target_: str = "hydra_plugins.noise_reg_stacked.launcher.StackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="noise_reg")


class StackedLauncher(Launcher):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        configs = [
            self.compose(list(overrides), initial_job_idx + number) for number, overrides in enumerate(job_overrides)
        ]
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)  # for what sweepers write at their end
        together: Callable[[list[DictConfig]], list[Any]] | None = getattr(self.task_function, "run_together", None)
        tasks = [OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]) for config in configs]
        with hydra_config(configs[:1]):
            values = together(tasks) if together else [self.task_function(task) for task in tasks]
        return [
            job_return(config, task, list(overrides), value)
            for config, task, overrides, value in zip(configs, tasks, job_overrides, values, strict=True)
        ]

    def compose(self, overrides: list[str], number: int) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config


@contextmanager
def hydra_config(configs: Sequence[DictConfig]) -> Iterator[None]:
    """The task may ask Hydra how it is run, as in Hydra's own launchers; of jobs that run together the first one's answer."""
    holder = HydraConfig.instance()
    before = holder.cfg
    for config in configs:
        holder.set_config(config)
    try:
        yield
    finally:
        holder.cfg = before


def job_return(config: DictConfig, task: DictConfig, overrides: list[str], value: Any) -> JobReturn:
    result = JobReturn(
        overrides=filter_overrides(overrides), cfg=task, hydra_cfg=OmegaConf.masked_copy(config, ["hydra"])
    )
    result.working_dir, result.task_name = os.getcwd(), str(config.hydra.job.name)
    result.status = JobStatus.FAILED if isinstance(value, BaseException) else JobStatus.COMPLETED
    result.return_value = value
    return result
