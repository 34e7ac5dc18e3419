"""Evaluations of a user's own network: any torch module that gives logits (B, K) of pixels (B, C, H, W) in [0, 1].

Rotations, occlusions and attacks measured in pixels hand the module exactly the pixels. Noise and attacks in 'standardized' space
(Eq. 8 as printed) need a mean and a scale: those of the data set's training part, by `reading` in conf/evaluate.yaml, as for a stored
run of the same reading. The changed image is brought back to pixels, where it may leave [0, 1], before the module sees it.

Axes: B images of a chunk, D = C H W pixels, K classes; the replica axis R is 1.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from noise_reg.compose import CONF, composed
from noise_reg.config import read_evaluations, read_job, read_runtime
from noise_reg.data import Dataset, Standardizer, load
from noise_reg.data.own import load_content
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import EvaluationSpec, ShiftSpec, ValidationSpec
from noise_reg.evaluations import measure
from noise_reg.faults import is_memory, one_line
from noise_reg.nn import CLEAN, Places
from noise_reg.pipeline import find_device
from noise_reg.precision import arithmetic
from noise_reg.prepare import TrainingData, held_out, prepare, shifted
from noise_reg.shape import check_shape
from noise_reg.spec import RunSpec
from noise_reg.store import EVALUATION_COLUMNS, Store

TRIED = 2  # images that a module is tried on before any work


@dataclasses.dataclass(frozen=True)
class PixelNetwork:
    """A module on pixels as a stack of one on standardised pixels. `name` stands for it in messages, `dataset` for the images."""

    module: nn.Module
    name: str
    dataset: str
    image: tuple[int, int, int]
    classes: int
    dtype: torch.dtype
    standardizer: Standardizer

    @property
    def replicas(self) -> int:
        return 1

    def replica(self, place: int) -> PixelNetwork:
        return self

    def __call__(self, x_RBD: Tensor, places: Places, /) -> Tensor:
        """Logits (1, B, K), checked. Raises UserError that names the model."""
        (x_BD,) = x_RBD
        pixels = self.standardizer.undo(x_BD.view(-1, *self.image))
        asked = f"model = {self.name}: given images {tuple(pixels.shape)} of {self.dataset} on {pixels.device}"
        try:
            logits = self.module(pixels.to(self.dtype))
        except UserError:
            raise
        except Exception as error:
            if is_memory(error):
                raise
            raise UserError(
                f"{asked}, it raised {type(error).__name__}: {one_line(error)}. Remedy: a module that takes (B, C, H, W) pixels "
                "in [0, 1] of that data set, all of it on one device"
            ) from error
        if problem := self.problem(logits, pixels):
            raise UserError(f"{asked}, {problem}")
        return logits.to(x_BD.dtype)[None]

    def problem(self, logits: object, pixels: Tensor) -> str | None:
        """What is wrong with what the module returned, or None."""
        expected = (len(pixels), self.classes)
        if not isinstance(logits, Tensor):
            return f"it returned {type(logits).__name__}, must be a tensor of logits {expected}"
        if tuple(logits.shape) != expected:
            return f"it returned shape {tuple(logits.shape)}, must be (B, K) = {expected}: one logit a class"
        if not logits.is_floating_point():
            return f"it returned {logits.dtype}, must be floating-point logits"
        if logits.device != pixels.device:
            return f"it returned logits on {logits.device}, must be on {pixels.device}"
        bad = int((~logits.detach().isfinite()).any(1).sum())
        if bad:
            return f"it returned logits that are not finite for {bad} of them"
        if pixels.requires_grad and not logits.requires_grad:
            return "it returned logits without a gradient by the pixels (detached?), which an attack climbs"
        return None


def evaluate(
    model: nn.Module,
    dataset: str | Dataset,
    evaluations: Sequence[str] = ("corruption",),
    *,
    overrides: Sequence[str] = (),
    data_dir: str | Path | None = None,
    download: bool = True,
    device: str = "auto",
    store: str | Path | None = None,
    name: str | None = None,
) -> pd.DataFrame:
    """Accuracy of `model` as of a stored run: one row a strength, columns `evaluation, strength, accuracy` (a fraction).

    model: logits (B, K) of pixels (B, C, H, W) in [0, 1]; it standardises inside. It is used in evaluation mode, on `device`, and left as it
    was. dataset: a name, or a Dataset. evaluations: as for scripts/evaluate.py: corruption, fgsm, pgd, pgd_stable, rotation, occlusion, ...
    overrides: of conf/evaluate.yaml, as "corruption.draws=10", "attack.pgd.steps=100", "dataset.test_images=500", "reading=std".
    data_dir, download, device: as for `train_stack`. store, name: rows are kept in that store too, under that name, see
    `Store.model_evaluations`.

    Raises UserError that names what is wrong with the model, the data or the settings.

    >>> pixels_to_logits = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> rows = evaluate(pixels_to_logits, "digits", ["corruption"], overrides=["corruption.grid=[0,0.5]"], device="cpu")
    >>> rows["evaluation"].tolist(), rows["strength"].tolist()
    (['corruption', 'corruption', 'clean'], [0.0, 0.5, 0.0])
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model = {model!r}: is of type {type(model).__name__}, must be a torch.nn.Module")
    if (store is None) != (name is None):
        raise UserError(f"name = {name}, store = {store}: rows are kept where both are given")
    given = dataset if isinstance(dataset, Dataset) else None
    chosen = "digits" if given else dataset  # of a Dataset only split seed and test_images are read from the group
    with composed("evaluate", (f"dataset={chosen}", *overrides)) as cfg:
        cfg.data_dir, cfg.download, cfg.device = None if data_dir is None else str(data_dir), download, device
        cfg.evaluations, cfg.name = list(evaluations), name
        cfg.store = cfg.store if store is None else str(store)
        check_shape(cfg, CONF, "evaluate")
        return evaluate_composed(model, cfg, type(model).__name__, given)


def evaluate_composed(model: nn.Module, cfg: DictConfig, called: str, dataset: Dataset | None = None) -> pd.DataFrame:
    """The evaluations that a composed conf/evaluate.yaml asks for, of `model`, which messages call `called`."""
    wanted, runtime = read_evaluations(cfg, cfg.evaluations), read_runtime(cfg)
    device, dtype = find_device(runtime.device), float_type(model)
    spec = data_spec(cfg, "fp64" if dtype == torch.float64 else "fp32")
    if dataset is None and spec.dataset.content:
        dataset = load_content(spec.dataset.name, spec.dataset.content)
    dataset = dataset or load(spec.dataset.name, runtime.data_dir, runtime.download)
    data = prepare(dataset, spec, device)
    store = None if cfg.name is None else Store(runtime.store)
    if store is not None:
        store.check_place()
        check_name(store, cfg.name, dataset)
    rows: dict[tuple[str, float], float] = {}
    with borrowed(model, device, called), arithmetic(spec.precision, device):
        plain = Standardizer(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).to(device)
        network = PixelNetwork(model, called, dataset.name, data.image, data.classes, dtype, plain)
        network(data.test_pixels[None, :TRIED], CLEAN)
        for settings in wanted:
            tested = tested_on(data, dataset, spec, settings, runtime.data_dir, runtime.download)
            if getattr(settings, "space", "pixel") == "pixel":
                tested = dataclasses.replace(tested, test_x=tested.test_pixels, standardizer=plain)
            with torch.no_grad():
                one = dataclasses.replace(network, standardizer=tested.standardizer)
                measured = measure(one, tested, settings, lambda: copy.deepcopy(model))
            for label, asked, _ in settings.stored():
                strengths, accuracy_1S = measured[label]
                found = list(zip(strengths, accuracy_1S[0].tolist(), strict=True))
                rows |= {(label, strength): accuracy for strength, accuracy in found}
                if store is not None:
                    used = asked | {
                        "reading": dataclasses.asdict(spec.reading),
                        "dataset": dataclasses.asdict(spec.dataset),
                    }
                    store.write_model_evaluation(cfg.name, label, used, found, content(dataset))
    return pd.DataFrame([(*key, value) for key, value in rows.items()], columns=EVALUATION_COLUMNS[1:])


def data_spec(cfg: DictConfig, precision: str) -> RunSpec:
    """A run's specification, of which data set, split, standardisation and precision are those of `cfg`; the rest is never looked at."""
    if cfg.get("dataset") is None:
        raise UserError("dataset: must be given with model=, as dataset=digits: what the model is evaluated on")
    with composed("train") as any_run:
        any_run.dataset, any_run.reading, any_run.precision = cfg.dataset, cfg.reading, precision
        return read_job(any_run).spec


def tested_on(
    data: TrainingData, dataset: Dataset, spec: RunSpec, settings: EvaluationSpec, data_dir: str | None, download: bool
) -> TrainingData:
    """`data` with the images that `settings` tests on."""
    if isinstance(settings, ValidationSpec):
        return held_out(data, dataset, spec)
    if not isinstance(settings, ShiftSpec):
        return data
    if settings.statistics == "target":
        raise UserError(
            f"evaluations = {settings.label}: the model standardises inside, so the other set's statistics cannot be used"
        )
    return shifted(data, load(settings.dataset, data_dir, download), spec, settings)


def content(dataset: Dataset) -> dict[str, str]:
    """What names the test images in a store."""
    return {"dataset": dataset.name, "data_sha256": dataset.test_sha256}


def check_name(store: Store, name: Any, dataset: Dataset) -> None:
    """Raises UserError if the rows under `name` are of another data set, with which these would be mixed up."""
    for evaluation, before in store.model_evaluation_data(str(name)).items():
        if before != content(dataset):
            raise UserError(
                f"name = {name}: in the store {store.root} it has {evaluation} on {before.get('dataset')} "
                f"({before.get('data_sha256', '')[:16]}), asked is {dataset.name} ({dataset.test_sha256[:16]}). Remedy: another name"
            )


def float_type(module: nn.Module) -> torch.dtype:
    """What the module computes in: the type of its first floating-point parameter or buffer, float32 of one without."""
    tensors = (*module.parameters(), *module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


@contextmanager
def borrowed(module: nn.Module, device: torch.device, called: str) -> Iterator[None]:
    """The module on `device`, in evaluation mode and without gradients by its parameters; afterwards it is as it was.

    Raises UserError for a module that cannot be moved, or whose parameters are on several devices.
    """
    homes = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if len(homes) > 1:
        raise UserError(
            f"model = {called}: is on several devices ({', '.join(sorted(map(str, homes)))}), must be on one"
        )
    training = {part: part.training for part in module.modules()}
    needed = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        try:
            module.to(device)
        except (RuntimeError, NotImplementedError) as error:
            if is_memory(error):
                raise
            raise UserError(f"model = {called}: cannot be moved to {device}: {one_line(error)}") from error
        module.eval()
        for parameter in needed:
            parameter.requires_grad_(False)
        yield
    finally:
        for home in homes - {device}:
            module.to(home)
        for part, mode in training.items():
            part.training = mode
        for parameter, wanted in needed.items():
            parameter.requires_grad_(wanted)


def named_model(reference: str) -> nn.Module:
    """What 'my_module:build' names: a function without arguments that returns a module, or a module. `my_module` is looked for in
    the current folder too. Raises UserError for what cannot be imported, found, called or used."""
    where, _, attribute = str(reference).partition(":")
    if not where or not attribute:
        raise UserError(f"model = {reference}: must be <module>:<function>, as my_module:build")
    sys.path.insert(0, os.getcwd())  # before the folder of the script, which holds a train.py of its own
    try:
        found = importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"model = {reference}: {where} fails to import: {type(error).__name__}: {one_line(error)}. It is looked for in "
            f"{os.getcwd()} and on PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = ", ".join(name for name, value in vars(found).items() if callable(value) and name[0] != "_")
            raise UserError(
                f"model = {reference}: {where} has no {part}; what can be called there: {known or 'nothing'}"
            )
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise UserError(
            f"model = {reference}: is {type(found).__name__}, must be a function that returns a torch.nn.Module"
        )
    try:
        built = found()
    except (Exception, SystemExit) as error:
        if is_memory(error):
            raise
        raise UserError(
            f"model = {reference}: called without arguments, it raised {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(built, nn.Module):
        raise UserError(f"model = {reference}: returned {type(built).__name__}, must return a torch.nn.Module")
    return built
