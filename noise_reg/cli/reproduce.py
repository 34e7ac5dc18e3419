"""From an artefact's configuration to its folder under results/: the plan, the runs, the rows, the figure."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from noise_reg.artefacts import artefact
from noise_reg.artefacts.folder import flat_leaves, load_provenance
from noise_reg.artefacts.lines import STUCK
from noise_reg.artefacts.rows import Rows, read_rows, thin_history
from noise_reg.artefacts.table1 import draw_digits
from noise_reg.checkout import commit
from noise_reg.config import Job, read_runtime
from noise_reg.data_check import pixel_scale
from noise_reg.errors import UserError
from noise_reg.estimate import Estimate, estimate, show_seconds
from noise_reg.evaluation_spec import CertificateSpec, EvaluationSpec, ShiftSpec
from noise_reg.pipeline import Pipeline
from noise_reg.place import Place, deliver, read_place
from noise_reg.precision import processor
from noise_reg.spec import RunSpec, SpecError, flatten
from noise_reg.store import EVALUATION_COLUMNS
from noise_reg.wanted import Wanted, certified_lines, evaluations_of, wanted_runs


def certified(cfg: DictConfig, wanted: Sequence[Wanted], pipeline: Pipeline, kept: set[str]) -> list[Wanted]:
    """`wanted`, where the first run of each line that completed and learned has the certificate too (of runs that are not stored yet,
    the first); those `kept` as rows have what they have."""
    chosen: dict[tuple[str, ...], int] = {}
    panels = {w.panel for w in wanted}
    asked = {panel: [s for s in evaluations_of(cfg, panel) if isinstance(s, CertificateSpec)] for panel in panels}
    for n, w in enumerate(wanted):
        if w.job.spec.key in kept:
            continue
        if pipeline.store.state(w.job.spec.key) != "complete" or learned(w.job, pipeline):
            chosen.setdefault((w.panel, w.job.method, w.reading), n)
    found, left = list(wanted), {panel: certified_lines(cfg, panel) for panel in panels}
    for n in chosen.values():
        job, panel = wanted[n].job, wanted[n].panel
        if left[panel] < 1:
            continue
        left[panel] -= 1
        extra = (*job.evaluations, *asked[panel])
        found[n] = dataclasses.replace(wanted[n], job=dataclasses.replace(job, evaluations=extra))
    return found


def learned(job: Job, pipeline: Pipeline) -> bool:
    """Whether a stored run completed and is not at chance."""
    record = pipeline.store.read_record(job.spec.key)
    return record["status"] == "completed" and bool(record["train_accuracy"] > 1 / job.spec.dataset.classes + STUCK)


def reproduce(cfg: DictConfig) -> Path | None:
    """Trains what is missing and draws the artefact, whose folder it returns; with `shard`, trains that share of the stacks and
    draws nothing."""
    made = artefact(cfg.artefact.name)  # an unknown name fails before any work
    check(cfg)
    wanted = wanted_runs(cfg)
    place = read_place(cfg, "reproduce", ("artefact", "preset"))
    pipeline = Pipeline(read_runtime(cfg))
    kept = committed_rows(cfg, place.folders(made.name), wanted, pipeline) if cfg.keep_rows else None
    done = set() if kept is None else set(kept.runs["key"])
    limits = ""
    if not cfg.train:
        there = those_there(wanted, pipeline, done)
        if len(there) < len(wanted):
            limits = f"{len(there)} of {len(wanted)} runs so far"
        wanted = there
    jobs = [w.job for w in wanted if w.job.spec.key not in done]
    if cfg.shard is not None:
        jobs = share(jobs, pipeline, cfg.shard, cfg.num_shards)
    with_certificate = cfg.shard is None and "certificate" in cfg.artefact.get("evaluations", [])
    planned = jobs
    if with_certificate:
        planned = [w.job for w in certified(cfg, wanted, pipeline, done) if w.job.spec.key not in done]
    before = estimate(pipeline, planned, Path(cfg.results))
    show_plan(place, made.name, before, len(done & {w.job.spec.key for w in wanted}))
    started = time.perf_counter()
    pipeline.complete(jobs, group=made.name, tags=[made.name, cfg.preset.name])
    if with_certificate:
        wanted = certified(cfg, wanted, pipeline, done)
        chosen = [w.job for w in wanted if any(isinstance(s, CertificateSpec) for s in w.job.evaluations)]
        pipeline.evaluate_and_mirror(chosen, made.name, [made.name, cfg.preset.name])
    seconds = time.perf_counter() - started
    print(f"runs complete after {show_seconds(seconds)} (estimate: {before.range})")
    if cfg.shard is not None:
        print(
            f"share {cfg.shard} of {cfg.num_shards} stored in {pipeline.runtime.store}/; next: once all are, the same command without "
            "shard draws the artefact"
        )
        return None
    context = provenance(cfg, wanted, pipeline) | {"preset": place.preset_in_words}
    context |= {"limits": limits, "seconds": round(seconds, 1), "estimate": before.range}
    rows = collect(pipeline, wanted, kept, made.whole_history)
    out = deliver(made, rows, context, place, lambda folder: show_conversion(pipeline, wanted[0].job, folder))
    pipeline.mirror.update_artefact(out.name, out, load_provenance(out))
    return out


def committed_rows(
    cfg: DictConfig, folders: Sequence[Path], wanted: Sequence[Wanted], pipeline: Pipeline
) -> Rows | None:
    """The rows of the first of `folders` that has some. Raises UserError where they were made of other data than is there now, or
    evaluated otherwise than is asked now."""
    there = [folder for folder in folders if (folder / "runs.csv").exists()]
    if not there:
        return None
    rows, provenance_ = read_rows(there[0]), load_provenance(there[0])
    if set(rows.runs["key"]) & {w.job.spec.key for w in wanted}:
        pipeline.check.check_rows(provenance_, wanted[0].job.spec, there[0])
    recorded = dict(flat_leaves(provenance_.get("evaluations", {})))
    asked = json.loads(json.dumps(asked_evaluations(cfg)))
    for name, value in flat_leaves(asked):
        if name in recorded and recorded[name] != value:
            raise UserError(
                f"keep_rows = true: {there[0]}/ was evaluated with {name} = {recorded[name]}, asked is {value}. Remedy: ask for the "
                "same, or keep_rows=false"
            )
    return rows


def show_conversion(pipeline: Pipeline, job: Job, out: Path) -> None:
    """A contact sheet of the images that a domain shift is tested on, where there is one: the first of each centring."""
    after = {}
    for settings in job.evaluations:
        if isinstance(settings, ShiftSpec) and settings.centring not in after:
            data = pipeline.data_for(job.spec, settings)
            after[settings.centring] = (255 * data.test_pixels).round().byte().view(-1, *data.image[1:]).cpu().numpy()
            before = pipeline.dataset(settings.dataset).test_images[:, 0].numpy()
            labels = data.test_y.cpu().numpy()
    if after:
        draw_digits(before, after, labels, out)


def check(cfg: DictConfig) -> None:
    shard, shards = cfg.shard, cfg.num_shards
    if not isinstance(shards, int) or shards < 1:
        raise SpecError(f"num_shards = {shards}: must be a whole number of at least 1")
    if shard is not None and (not isinstance(shard, int) or not 0 <= shard < shards):
        raise SpecError(f"shard = {shard}: must be null or a whole number from 0 to num_shards - 1 = {shards - 1}")
    if cfg.spread not in ("runs", "mean"):
        raise SpecError(f"spread = {cfg.spread}: must be one of runs, mean")
    for name in ("train", "keep_rows"):
        if not isinstance(cfg[name], bool):
            raise SpecError(f"{name} = {cfg[name]}: must be true or false")


def those_there(wanted: Sequence[Wanted], pipeline: Pipeline, kept: set[str]) -> list[Wanted]:
    """The wanted runs that are stored or kept as rows. Raises UserError if there are none."""
    stored = pipeline.stored(w.job.spec for w in wanted)
    there = [w for w in wanted if w.job.spec.key in stored | kept]
    if not there:
        raise UserError(f"train = false: none of the {len(wanted)} runs is in the store {pipeline.runtime.store} yet")
    return there


def share(jobs: Sequence[Job], pipeline: Pipeline, shard: int, shards: int) -> list[Job]:
    """Every `shards`-th stack from `shard` on, of all stacks whatever is stored, so that shares never overlap."""
    by_key = {job.spec.key: job for job in jobs}
    stacks = pipeline.fresh_stacks([job.spec for job in by_key.values()])
    return [by_key[spec.key] for stack in stacks[shard::shards] for spec in stack]


def show_plan(place: Place, name: str, plan: Estimate, kept: int) -> None:
    print(f"plan: {name} at preset {place.preset_in_words}, into {place.folder(name)}/")
    print(f"  runs needed  {plan.needed + kept}")
    print(f"  runs found   {plan.found + kept}" + (f" ({kept} as committed rows)" if kept else ""))
    print(f"  to train     {plan.needed - plan.found} in {plan.stacks} stacks")
    print(f"  to evaluate  {plan.evaluations} evaluations of runs")
    print(f"  time         {plan.range} on {plan.device}", flush=True)


def collect(pipeline: Pipeline, wanted: Sequence[Wanted], kept: Rows | None, whole_history: bool) -> Rows:
    """The rows of the wanted runs: those in the store, then the committed ones."""
    reading = {w.job.spec.key: w.reading for w in wanted}
    method = {w.job.spec.key: w.job.method for w in wanted}
    rows, evaluations, histories = [], [], []
    store, tested = pipeline.store, tested_images(pipeline)
    fields = varied([w.job.spec for w in wanted])
    old = set() if kept is None else set(kept.runs["key"])
    for w in wanted:
        key = w.job.spec.key
        if key in old:
            continue
        record, spec = store.read_record(key), w.job.spec
        columns = ("status", "stopped_by", "epochs", "train_accuracy", "test_accuracy", "seconds", "device", "torch")
        row = {
            "key": key,
            "dataset": spec.dataset.name,
            "arch": spec.arch.name,
            "method": method[key],
            "seed": spec.seed,
            "sigma_epsilon": spec.strengths.nin_input or "",
        }
        row |= {"reading": reading[key], "precision": spec.precision, "max_epochs": spec.max_epochs}
        row |= {name: record[name] for name in columns}
        row |= {name: record.get(name, "") for name in ("diverged_quantity", "diverged_step")}
        row |= training_facts(pipeline, spec) | fields[key]
        rows.append(row)
        for settings in w.job.evaluations:
            for name, asked, shown in settings.stored():
                frame = store.evaluation(key, name, asked)
                if frame is not None:
                    told = frame.assign(key=key, evaluation=shown, images=tested(spec, settings))
                    evaluations.append(told[[*EVALUATION_COLUMNS, "images"]])
        history = store.history(key).assign(key=key)
        if not whole_history:
            history = thin_history(history[["key", "epoch", "train_accuracy", "test_accuracy"]].dropna())
        histories.append(history)
    frames = [pd.DataFrame(rows), concat(evaluations), concat(histories)]
    if kept is not None:
        current = kept.runs["key"].isin(list(reading))
        facts = {w.job.spec.key: training_facts(pipeline, w.job.spec) for w in wanted if w.job.spec.key in old}
        committed = [
            with_facts(kept.runs[current], facts),
            kept.evaluations[kept.evaluations["key"].isin(kept.runs["key"][current])],
        ]
        if kept.history is not None:
            committed.append(kept.history[kept.history["key"].isin(kept.runs["key"][current])])
        frames = [concat([new, old_]) for new, old_ in zip(frames, committed, strict=False)]
    return Rows(frames[0], frames[1], frames[2] if len(frames) > 2 else None)


def training_facts(pipeline: Pipeline, spec: RunSpec) -> dict[str, Any]:
    """What a row says of its network and training, for captions and what is below the paper's scale. inputs: pixels of an image."""
    data = pipeline.data(spec)
    return {
        "train_images": len(data.x),
        "test_images": len(data.test_x),
        "inputs": math.prod(data.image),
        "classes": spec.dataset.classes,
        "network": "-".join(map(str, (*spec.arch.filters, *spec.arch.widths))),
        "learning_rate": spec.optimizer.learning_rate,
        "batch_size": spec.optimizer.batch_size,
    }


def with_facts(runs: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """`runs` with the `facts` of each key where a row of an older version lacks them: the key stands for the whole specification."""
    runs = runs.copy()
    for name in next(iter(facts.values()), {}):
        there = runs[name] if name in runs else pd.Series("", index=runs.index)
        pairs = zip(runs["key"], there, strict=True)
        runs[name] = [facts[key][name] if str(value) in ("", "nan") else value for key, value in pairs]
    return runs


def tested_images(pipeline: Pipeline) -> Callable[[RunSpec, EvaluationSpec], int]:
    """How many images an evaluation of a run is of."""

    @cache
    def available(spec: RunSpec, settings: EvaluationSpec) -> int:
        return len(pipeline.data_for(spec, settings).test_x)

    def count(spec: RunSpec, settings: EvaluationSpec) -> int:
        asked = getattr(settings, "images", 0)
        there = available(spec.replace(seed=0), settings)
        return min(asked, there) if asked else there

    return count


def varied(specs: Sequence[RunSpec]) -> dict[str, dict[str, str]]:
    """By key, those fields of the specifications in which they differ, without what every row says anyway."""
    flat = {spec.key: flatten(dataclasses.asdict(spec)) for spec in specs}
    names = {name for one in flat.values() for name in one if "." in name} - {"dataset.name", "arch.name"}
    told = sorted(name for name in names if len({str(one[name]) for one in flat.values()}) > 1)
    return {key: {name: str(one[name]) for name in told} for key, one in flat.items()}


def concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    there = [frame for frame in frames if len(frame)]
    return pd.concat(there, ignore_index=True) if there else pd.DataFrame(columns=EVALUATION_COLUMNS)


def provenance(cfg: DictConfig, wanted: Sequence[Wanted], pipeline: Pipeline) -> dict[str, Any]:
    asked = {"preset": cfg.preset.name, "spread": cfg.spread, "panels": OmegaConf.to_container(cfg.preset.panels)}
    laws = {w.reading: dataclasses.asdict(w.job.spec.distribution) for w in wanted}
    return (
        asked
        | run_provenance(wanted[0].job.spec, pipeline)
        | {"evaluations": asked_evaluations(cfg), "distributions": laws}
    )


def asked_evaluations(cfg: DictConfig) -> dict[str, Any]:
    """The settings of every evaluation, by panel and the evaluation's name."""
    return {
        panel: {s.label: dataclasses.asdict(s) for s in evaluations_of(cfg, panel)} for panel in cfg.artefact.panels
    }


def run_provenance(spec: RunSpec, pipeline: Pipeline) -> dict[str, Any]:
    """Data, reading, code and machine that runs like `spec` were made with."""
    return {
        "dataset": spec.dataset.name,
        "reading": dataclasses.asdict(spec.reading),
        "data": pipeline.data(spec).facts,
        "pixel_scale": pixel_scale(pipeline.data(spec)),
        "commit": commit(),
        "machine": machine(pipeline.device),
        "versions": {name: version(name) for name in ("torch", "numpy", "pandas", "hydra-core")},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def network_facts(spec: RunSpec) -> dict[str, Any]:
    """What the provenance of a study says of its network and training. eta: learning rate; batch: samples."""
    return {
        "arch": spec.arch.name,
        "widths": list(spec.arch.widths),
        "optimizer": spec.optimizer.name,
        "eta": spec.optimizer.learning_rate,
        "batch": spec.optimizer.batch_size,
    }


def outcome(pipeline: Pipeline, job: Job) -> dict[str, Any]:
    """What a study's table says of how a stored run ended."""
    record = pipeline.store.read_record(job.spec.key)
    return {name: record[name] for name in ("status", "epochs", "train_accuracy", "test_accuracy", "seconds")}


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, {processor().upper()}"
