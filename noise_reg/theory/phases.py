"""The phase of a noise injection node, named from the training history of its run alone (NINR paper, section 2.2 and Fig. 3).

The text describes the phases, this module's rule makes them countable; it was fixed on runs of 20 epochs of the network of
Fig. 3 at other sigma_epsilon than the paper's four:

divergent   the run diverged, or it ended with a training loss no lower than that of its first mini-batch
            ('the network is unable to suppress the NIN and thus cannot learn any information')
catapult    |W_NI| first rose by more than `RISE` above its start, then the network recovered
            ('an initial increase ... followed by a recovery to a new minimum')
decay       |W_NI| never rose so far and lost more than `LOST` of its start ('initially experience exponential decay')
decoupled   neither ('a small-step random walk without substantially affecting the behavior of the network')
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from noise_reg.errors import UserError

RISE, LOST = 0.05, 0.05
DECOUPLED, DECAY, CATAPULT, DIVERGENT = PHASES = ("decoupled", "decay", "catapult", "divergent")
NEEDED = ("epoch", "train_loss")
NAMING = (
    f"Divergent: a loss that is not finite, or a last training loss no lower than that of the first mini-batch; catapult: else, "
    f"|W_NI| first rose by more than {100 * RISE:.0f} %; decay: else, it lost more than {100 * LOST:.0f} %; decoupled: else."
)


@dataclass(frozen=True)
class Phase:
    """`name` is one of PHASES; `peak` and `last` are |W_NI| in units of its start (1 without a node), `loss` is the last
    training loss in units of the first mini-batch's."""

    name: str
    peak: float
    last: float
    loss: float


def phase_of(history: pd.DataFrame, layer: int = 0, *, diverged: bool = False) -> Phase:
    """The phase of the node in front of `layer`; `history` as the store keeps it, rows from epoch 0 on. A run without that node
    (sigma_epsilon = 0) is decoupled, unless it diverged. Raises UserError where the history does not tell."""
    missing = [name for name in NEEDED if name not in history]
    if missing:
        raise UserError(f"history: column '{missing[0]}' is missing; needed are {', '.join(NEEDED)}")
    rows = history.sort_values("epoch")
    if rows.empty or rows["epoch"].iloc[0] != 0:
        raise UserError("history: has no row of epoch 0, the state before the first step; train the run again")
    loss = float(rows["train_loss"].iloc[-1] / rows["train_loss"].iloc[0])
    norm, peaks = f"nin_norm_{layer}", f"nin_peak_{layer}"
    if norm not in rows or rows[norm].isna().all():
        peak = last = 1.0
    elif peaks not in rows:
        raise UserError(f"history: column '{peaks}' is missing; train the run again")
    else:
        start = rows[norm].iloc[0]
        peak, last = float(rows[[norm, peaks]].max(axis=None) / start), float(rows[norm].iloc[-1] / start)
    if diverged or not loss < 1:
        name = DIVERGENT
    elif peak > 1 + RISE:
        name = CATAPULT
    else:
        name = DECAY if last < 1 - LOST else DECOUPLED
    return Phase(name, peak, last, loss)
