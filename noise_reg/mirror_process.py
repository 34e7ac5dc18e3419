"""The process in which wandb runs for mirror.py: `python -m noise_reg.mirror_process <file descriptor of its pipe>`.

It holds the lock of what it writes and notes what is done, so that it may be killed at any moment, and so may the command that
started it: what was begun is found by the next and written anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from noise_reg import tracking
from noise_reg.mirror_state import MirrorState, Shown
from noise_reg.store import Store
from noise_reg.tracking import Writer


def serve(request: dict[str, Any], done: Callable[[str], None]) -> None:
    """Does what is asked; `done` receives the id of each run or artefact. Raises whatever goes wrong."""
    tracking.SERVICE_TIMEOUT, tracking.INIT_TIMEOUT, tracking.FINISH_TIMEOUT = request["timeouts"]
    writer, store = Writer(request["spec"]), Store(request["root"])
    store.warn = lambda line: None  # the command that asks has told it
    state = MirrorState(store.root)
    if "connect" in request:
        writer.connect()
    for key in request.get("runs", []):
        show(key, lambda: store.fingerprint(key), lambda shown: of_run(writer, store, key, shown), writer, state)  # noqa: B023
        done(key)
    if "artefact" in request:
        name, folder, context = request["artefact"], Path(request["folder"]), request["context"]
        write = lambda _: writer.write_artefact(name, folder, context)
        show(f"artefact-{name}", lambda: request["content"], write, writer, state)
        done(name)


def show(
    id_: str,
    content: Callable[[], str | None],
    write: Callable[[Shown], Path],
    writer: Writer,
    state: MirrorState,
) -> None:
    """Writes one run or artefact, unless another process has just done so."""
    target = writer.spec.target
    with state.lock(id_):
        targets, now = (
            state.read(id_),
            content(),
        )  # before it is read: what is added meanwhile is written anew next time
        writer.remove_others(id_, [shown.folder for shown in targets.values() if shown.folder])
        if now in (None, targets[target].content):
            return
        folder = write(targets[target]).name
        writer.remove_others(id_, [folder, *(s.folder for t, s in targets.items() if t != target and s.folder)])
        state.done(id_, target, str(now), folder)


def of_run(writer: Writer, store: Store, key: str, shown: Shown) -> Path:
    record, evaluations = store.read_record(key), store.evaluations([key])
    return writer.write_run(
        key, store.spec(key), record, store.history(key), evaluations, shown.group, list(shown.tags)
    )


def main() -> None:
    pipe = Connection(int(sys.argv[1]))
    request = pipe.recv()
    try:
        serve(request, lambda id_: pipe.send(("done", id_)))
    except (BrokenPipeError, ConnectionResetError):  # the command that asked is no more
        return
    except (Exception, SystemExit) as error:  # noqa: BLE001  it is told there
        pipe.send(("failed", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
