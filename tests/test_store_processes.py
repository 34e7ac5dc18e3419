"""The store when processes are killed, compete, or meet a full disk: each test lets real processes do so."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import noise_reg
from noise_reg.atomic import HOST
from noise_reg.store import Store

SPEC = {"dataset": {"name": "digits"}, "arch": {"name": "fc"}, "seed": 0}
RECORD = {"method": "none", "status": "completed"}
KEYS = [f"{number:016x}" for number in range(150)]

PREAMBLE = """
import os, resource, signal, sys, time
import numpy as np, pandas as pd
from noise_reg.store import Store, StoreError
SPEC = {"dataset": {"name": "digits"}, "arch": {"name": "fc"}, "seed": 0}
RECORD = {"method": "none", "status": "completed"}
KEYS = [f"{number:016x}" for number in range(150)]
store = Store(sys.argv[1])
def write(key, elements):
    weights = {"w": np.full(elements, int(key, 16), np.float32)}
    store.write_run(key, SPEC, pd.DataFrame({"epoch": [0]}), weights, RECORD)
"""


def start(script: str, root: Path) -> subprocess.Popen[str]:
    """A process that runs `script` on the store at `root`, and whose first line says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, str(root)],
        cwd=Path(noise_reg.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> str:
    """Lets it go on and returns what it prints until its end, which must be a good one."""
    output, errors = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, errors
    return output


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob("*.part"))


def assert_whole(store: Store, key: str) -> None:
    """Exactly what the child `write` wrote, all of it."""
    (weights,) = store.weights(key).values()
    assert len(weights) and (weights == np.float32(int(key, 16))).all()
    assert store.read_record(key) == RECORD and len(store.history(key)) == 1


def test_a_kill_at_any_step_of_writing_leaves_a_whole_run_or_none(tmp_path: Path) -> None:
    """Children die by SIGKILL before their first, second, ... call that makes something durable or visible."""
    script = """
calls = 0
def dying(call, at):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapper
print("ready", flush=True)
for at in range(1, 20):
    child = os.fork()
    if child == 0:
        os.fsync, os.replace, os.mkdir = (dying(call, at) for call in (os.fsync, os.replace, os.mkdir))
        write(KEYS[at], 1000)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(KEYS[at], store.state(KEYS[at]), os.WIFSIGNALED(status))
    if not os.WIFSIGNALED(status):
        break
"""
    steps = [line.split() for line in finish(start(script, tmp_path)).splitlines()]
    assert len(steps) >= 7  # four files, their folder, the rename, the folder of runs
    assert [killed for _, _, killed in steps] == ["True"] * (len(steps) - 1) + ["False"]
    states = [state for _, state, _ in steps]
    assert states == sorted(states, reverse=True) and set(states) == {"missing", "complete"}
    store = Store(tmp_path)
    intact = {key for key, state, _ in steps if state == "complete"}
    assert store.take_complete([key for key, _, _ in steps], pytest.fail) == intact == set(store.runs().key)
    for key in intact:
        assert_whole(store, key)
    assert leftovers(tmp_path) == []


def test_a_kill_at_a_random_moment_leaves_whole_runs_only(tmp_path: Path) -> None:
    script = """
print("ready", flush=True)
for key in KEYS:
    write(key, 500_000)
"""
    for attempt in range(4):
        root = tmp_path / str(attempt)
        process = start(script, root)
        time.sleep(0.05 + 0.3 * np.random.default_rng(attempt).random())
        kill(process)
        store = Store(root)
        for path in (root / "runs").glob("[!.]*"):
            assert_whole(store, path.name)
        found = store.take_complete(KEYS, pytest.fail)
        assert found == {path.name for path in (root / "runs").iterdir()} and leftovers(root) == []


def test_a_full_disk_is_explained_and_costs_nothing_that_was_stored(tmp_path: Path) -> None:
    script = """
write(KEYS[1], 10)
store.write_evaluation(KEYS[1], "clean", {}, [(0.0, 0.5)])
store.save_checkpoint("stack", {"w": np.zeros(10)}, {"epoch": 1})
print("ready", flush=True)
input()
def attempt(call, *args):
    try:
        call(*args)
    except StoreError as error:
        print(error)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(2000)
attempt(write, KEYS[2], 100_000)
attempt(store.write_evaluation, KEYS[1], "clean", {}, [(0.0, 0.25)] * 1000)
attempt(store.save_checkpoint, "stack", {"w": np.zeros(10_000)}, {"epoch": 2})
limit(30)
attempt(write, KEYS[3], 100_000)
limit(resource.RLIM_INFINITY)
write(KEYS[4], 100_000)
"""
    messages = finish(start(script, tmp_path)).splitlines()
    files = [f"{KEYS[2]}/weights.safetensors", "clean.json", "stack.safetensors", f"{KEYS[3]}/spec.json"]
    assert len(messages) == 4
    for message, file in zip(messages, files, strict=True):
        assert file in message and "free space or choose another store=..." in message
        assert "nothing already stored is lost; run the same command again" in message
    store = Store(tmp_path)
    assert list(store.runs().key) == [KEYS[1], KEYS[4]]
    assert store.evaluations().accuracy.tolist() == [0.5]
    assert [meta for _, meta in store.checkpoints()] == [{"epoch": 1}]
    for key in store.runs().key:
        assert_whole(store, key)
    assert leftovers(tmp_path) == [] and not (tmp_path / "damaged").exists()


def test_two_writers_of_the_same_runs_leave_each_whole(tmp_path: Path) -> None:
    script = """
print("ready", flush=True)
sys.stdin.readline()
for key in KEYS[:30]:
    write(key, 10_000)
"""
    both = [start(script, tmp_path), start(script, tmp_path)]
    for process in both:
        release(process)
    for process in both:
        finish(process)
    store = Store(tmp_path)
    assert store.take_complete(KEYS, pytest.fail) == set(KEYS[:30])
    for key in KEYS[:30]:
        assert_whole(store, key)
    assert leftovers(tmp_path) == [] and not (tmp_path / "damaged").exists()


def test_two_processes_that_find_the_same_damage_move_it_once_and_make_it_good(tmp_path: Path) -> None:
    script = """
print("ready", flush=True)
sys.stdin.readline()
store.warn = print
for key in sorted(set(KEYS[:30]) - store.take_complete(KEYS[:30], print)):
    write(key, 1000)
"""
    store = Store(tmp_path)
    for key in KEYS[:30]:
        store.write_run(key, SPEC, pd.DataFrame({"epoch": [0]}), {"w": np.zeros(1000)}, RECORD)
        os.truncate(tmp_path / "runs" / key / "weights.safetensors", 100)
    both = [start(script, tmp_path), start(script, tmp_path)]
    with store._claims.moving():  # until both have found the first one
        for process in both:
            release(process)
        time.sleep(0.5)
        assert not (tmp_path / "damaged").exists()
    told = "".join(finish(process) for process in both).splitlines()
    assert sorted(line.split()[1] for line in told) == KEYS[:30] == sorted(store.take_complete(KEYS, pytest.fail))
    assert len(list((tmp_path / "damaged").iterdir())) == 30
    for key in KEYS[:30]:
        assert_whole(store, key)


HOLDER = """
with store.claim(KEYS) as mine:
    assert mine == KEYS
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_claim_held_elsewhere_is_not_got_and_is_free_after_its_end_or_kill(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for end in (kill, finish):
        holder = start(HOLDER, tmp_path)
        with store.claim([*KEYS[:120], "free"]) as mine:
            assert mine == ["free"]
        end(holder)
        with store.claim(KEYS) as mine, store.claim(KEYS) as again:
            assert mine == KEYS and again == []


def test_a_half_written_run_is_left_alone_while_its_claim_lives(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "runs" / KEYS[0]).mkdir(parents=True)
    holder = start(HOLDER, tmp_path)
    assert store.take_complete([KEYS[0]], pytest.fail) == set()
    assert (tmp_path / "runs" / KEYS[0]).exists()
    kill(holder)
    told: list[str] = []
    assert store.take_complete([KEYS[0]], told.append) == set()
    assert len(told) == 1 and KEYS[0] in told[0] and store.state(KEYS[0]) == "missing"


def test_parts_of_dead_processes_and_parts_older_than_an_hour_are_removed(tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    owners = [f"{HOST}-{child.pid}", f"{HOST}-{os.getpid()}", f"{HOST}-{os.getpid()}", f"{'0' * 8}-{child.pid}"]
    parts = [tmp_path / "runs" / f".{KEYS[0]}.{owner}.{i:08x}.part" for i, owner in enumerate(owners)]
    for part in parts:
        part.mkdir(parents=True)
    dead, living, old, elsewhere = parts
    os.utime(old, (0, time.time() - 3700))
    checkpoint = tmp_path / "checkpoints" / dead.name
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert Store(tmp_path).take_complete([], pytest.fail) == set()
    assert [part for part in parts if part.exists()] == [living, elsewhere] and not checkpoint.exists()
