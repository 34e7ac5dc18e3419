"""Every contender trains the job's runs, or says why it is not there: none is timed for other work."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from noise_reg.bench import cold, graph, processes, vmap
from noise_reg.bench.cold import Cold, cold_times
from noise_reg.bench.contenders import CONTENDERS
from noise_reg.bench.plain import plain_optimizer
from noise_reg.bench.processes import Processes, chosen_runs
from noise_reg.bench.work import Recipe, Workload
from noise_reg.benchmark import gate, measured_job, read_settings
from noise_reg.errors import UserError
from noise_reg.spec import RunSpec
from tests.composed import composed

TINY = [
    "preset=smoke",
    "device=cpu",
    "jobs=[digits]",
    "presets.smoke.steps.digits=1",
    "repeats=1",
    "job.digits.seeds=2",
]
NETWORKS = {
    "fc": '"arch=fc_small","arch.widths=[16]"',
    "tanh_mlp": '"arch=tanh_mlp","arch.widths=[16]","noise=fc_small_sgd","reading=exact_loss"',
    "cnn": '"arch=cnn_small","noise=cnn_small_sgd"',
}
TOLERANCE = 1e-10  # of what is exact in fp64 but for the order of sums


def recipe(network: str = "fc", *overrides: str) -> Recipe:
    job = f'job.digits.overrides=["dataset=digits",{NETWORKS[network]},"optimizer.batch_size=8"]'
    with composed("benchmark", *TINY, job, *overrides) as cfg:
        return read_settings(cfg).recipes[0]


def captured_at_once(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """In place of a CUDA graph: the warm-up that comes before one, then the step itself."""
    for _ in range(graph.WARM_UP):
        step()
    return step


@pytest.mark.parametrize("network", ["fc", "tanh_mlp", "cnn"])
def test_at_the_gate_all_regularisers_give_the_plain_loops_weights(network: str) -> None:
    assert max(gate(recipe(network), ["d", "e", "f"], 2).values()) < TOLERANCE


@pytest.mark.parametrize("network", ["fc", "cnn"])
def test_a_captured_step_trains_as_the_plain_loop_in_spite_of_its_warm_up(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "captured", captured_at_once)
    assert gate(recipe(network), ["c"], 2)["c"] < TOLERANCE


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", ["fc", "cnn"])
def test_all_contenders_pass_the_gate_on_a_gpu(network: str) -> None:
    deviations = gate(recipe(network, "device=cuda"), list(CONTENDERS), 2)
    assert max(deviations[letter] for letter in "cdef") < TOLERANCE


@pytest.mark.parametrize(("letter", "module"), [("c", graph), ("d", vmap)])
def test_the_gate_stops_a_contender_whose_last_run_of_a_method_learns_faster(
    letter: str, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurried(named: Iterable[tuple[str, Tensor]], spec: RunSpec) -> torch.optim.SGD:
        parameters = list(named)
        for _, parameter in parameters:
            if letter == "d":  # (R, ...): all replicas but the first
                parameter.register_hook(lambda grad: torch.cat([grad[:1], 1.001 * grad[1:]]))
            elif spec.seed:
                parameter.register_hook(lambda grad: 1.001 * grad)
        return plain_optimizer(parameters, spec)

    monkeypatch.setattr(graph, "captured", captured_at_once)
    monkeypatch.setattr(module, "plain_optimizer", hurried)
    with pytest.raises(UserError, match=rf"gate: job digits, contender \({letter}\) .* deviates by 1\.0e-03"):
        gate(recipe(), [letter], 1)


def test_the_gate_stops_processes_that_train_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(chosen: Recipe, precision: str, gate: bool) -> processes.PlainLoop:
        seeds = tuple(spec.replace(seed=spec.seed + 1) for spec in chosen.specs)
        return processes.PlainLoop(Workload(dataclasses.replace(chosen, specs=seeds)), precision, gate)

    monkeypatch.setattr(processes, "loop_of", other)
    with pytest.raises(
        UserError, match=r"contender \(e\) plain loop in processes of one thread, one a core deviates by"
    ):
        gate(recipe(), ["e"], 1)


def test_processes_share_single_runs_equally_and_end_when_closed() -> None:
    assert [len(chosen_runs(recipe(), count)) for count in (1, 2, 4, 7, 16)] == [9, 10, 12, 14, 16]
    contender = Processes(Workload(recipe()), "fp32", False)
    processes = contender.workers.processes
    assert processes and all(process.is_alive() for process in processes)
    contender.close()
    assert not any(process.is_alive() for process in processes)


ONE_METHOD = 'job.digits.methods=[["regularizer=none"]]'


def test_what_is_absent_is_named_with_its_reason() -> None:
    with composed("benchmark", *TINY, "contenders=[b,c,d,e]", ONE_METHOD, "job.digits.seeds=1") as cfg:
        settings = read_settings(cfg)
    rows, job = measured_job(settings.recipes[0], settings)
    assert set(rows["contender"]) == {"b", "floor_fp32"} and list(job.deviations) == ["b"]
    assert list(job.absent) == ["c", "d", "e"]
    assert job.absent["c"] == "CUDA graphs are CUDA's, the device is cpu"
    assert job.absent["d"] == "an ensemble of one run is the plain loop"
    assert job.absent["e"] == "one run is no sweep"


def test_an_ensemble_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workload(recipe("cnn"))
    needed = vmap.needed_bytes(work)
    monkeypatch.setattr(vmap, "free_bytes", lambda device: needed / vmap.SHARE + 1)
    assert vmap.absent(work) == ""
    monkeypatch.setattr(vmap, "free_bytes", lambda device: needed / vmap.SHARE - 1)
    assert "all runs at once need about" in vmap.absent(work)
    weights = sum(parameter.size for parameter in work.start_of(work.specs[0], "fp32").values())
    assert needed > 2 * 8 * 18 * weights


def cold_recipe(runs: int) -> Cold:
    with composed(
        "benchmark",
        *TINY,
        'job.digits.overrides=["dataset=digits","arch=fc_small"]',
        ONE_METHOD,
        f"job.digits.seeds={runs}",
        "presets.smoke.cold={jobs: [digits], epochs: 2, repeats: 1}",
    ) as cfg:
        (found,) = read_settings(cfg).cold
    return found


@pytest.mark.slow
def test_cold_times_are_those_of_processes_that_write_every_run() -> None:
    table = cold_times([cold_recipe(2)], ["b", "e", "f"])
    assert list(table["contender"]) == ["b", "e", "f"] and (table["runs"] == 2).all() and (table["epochs"] == 2).all()
    assert (table["seconds"] > 0).all()
    assert table["test_accuracy"].max() - table["test_accuracy"].min() < 0.01 and table["test_accuracy"].min() > 0.5


def test_a_cold_contender_that_trains_otherwise_or_leaves_runs_out_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"b": (2, 0.9), "f": (2, 0.88)}

    def made(letter: str, job: Cold, of: Recipe) -> dict[str, object]:
        runs, accuracy = found[letter]
        return {"job": of.name, "contender": letter, "runs": runs, "seconds": 1.0, "test_accuracy": accuracy}

    monkeypatch.setattr(cold, "once", made)
    with pytest.raises(
        UserError, match=r"cold: job digits, contender \(f\) reaches a test accuracy of 0\.880, \(b\) 0\.900"
    ):
        cold_times([cold_recipe(2)], ["b", "f"])


def test_a_cold_process_that_writes_too_little_or_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(letter: str, job: Cold, of: Recipe, folder: Path) -> list[str]:
        return [
            sys.executable,
            "-c",
            f"open({str(folder / 'out' / '0.csv')!r}, 'w').write('epoch,test_accuracy\\n1,0.5')",
        ]

    def failing(letter: str, job: Cold, of: Recipe, folder: Path) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no room')"]

    monkeypatch.setattr(cold, "command", idle)
    with pytest.raises(UserError, match=r"contender \(b\) wrote 0 of 2 runs"):
        cold_times([cold_recipe(2)], ["b"])
    monkeypatch.setattr(cold, "command", failing)
    with pytest.raises(UserError, match=r"contender \(b\) failed: no room"):
        cold_times([cold_recipe(2)], ["b"])
