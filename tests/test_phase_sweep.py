"""The phase sweep from its configuration to the diagram; brackets and verdicts on made phases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noise_reg.artefacts import phases, redraw
from noise_reg.phase_sweep import sweep
from noise_reg.spec import SpecError
from noise_reg.store import Store
from tests.composed import composed

SWEEP = [
    "wandb=disabled", "grid={low: 0.1, high: 6, count: 6}", "bisections=2", "seeds=1", "~settings",
    ("overrides=['dataset=digits','arch=fc','arch.widths=[128]','optimizer.learning_rate=0.05','optimizer.batch_size=400',"
    "'reading=exact_loss','max_epochs=40','stop_accuracy=1.0','corruption.grid=[0.5]','corruption.draws=1']"),
    "+settings={base: [], half rate: ['optimizer.learning_rate=0.025']}",
]  # fmt: skip


RELU = {"arch": "fc", "loss": "exact", "widths": [8]}
LINEAR = {**RELU, "arch": "linear"}


def test_the_bracket_is_between_the_last_run_before_the_first_onset_and_that_one() -> None:
    names = {0.1: "decoupled", 0.3: "decay", 1.0: "catapult", 2.0: "decay", 3.0: "divergent"}
    assert phases.bracket(names) == (0.3, 1.0)
    assert phases.bracket({0.1: "decay"}) == (0.1, None)
    assert phases.bracket({0.1: "divergent"}) == (None, 0.1)


@pytest.mark.parametrize(
    ("onset", "verdict"), [((1.2, 1.4), "reproduced"), ((0.9, 1.1), "inconclusive"), ((0.3, 0.4), "contradicted")]
)
def test_n14_is_judged_by_the_square_of_the_bracket(onset: tuple[float, float], verdict: str) -> None:
    runs = {0.01: "decoupled", onset[0]: "decay", onset[1]: "catapult", 4.0: "divergent"}
    n14, beyond, constant = phases.judge({"one": {0: runs}, "other": {0: runs}}, {"one": LINEAR, "other": RELU})
    assert [len(v.numbers) for v in (n14, beyond)] == [1, 1] and n14.verdict == beyond.verdict == verdict
    assert constant.verdict == "reproduced"


def test_another_onset_contradicts_the_constant_and_none_decides_nothing() -> None:
    def runs(onset: float) -> phases.Phases:
        return {0.01: "decay", onset: "decay", 1.01 * onset: "catapult"}

    def verdict(*onsets: float) -> str:
        found = {str(onset): {0: runs(onset) if onset else {0.1: "decay"}} for onset in onsets}
        return phases.judge(found, dict.fromkeys(found, RELU))[-1].verdict

    assert verdict(1.0, 2.0) == "contradicted"
    assert verdict(1.0, 0.0) == "inconclusive"
    assert (verdict(1.0, 1.3), verdict(1.0, 1.3, 0.75)) == ("reproduced", "contradicted")  # each is near the first


@pytest.mark.parametrize(
    ("exact", "clamped", "verdict"),
    [(1.2, 4.0, "reproduced"), (1.2, None, "reproduced"), (1.2, 1.4, "contradicted"), (3.0, 4.0, "contradicted")],
)
def test_reading_2_explains_the_catapult_where_the_losses_diverge_apart(
    exact: float, clamped: float | None, verdict: str
) -> None:
    def runs(divergence: float | None) -> dict[int, phases.Phases]:
        end = {divergence: "divergent"} if divergence else {}
        return {0: {0.1: "decay", 1.0: "catapult", 1.9: "catapult"} | end}

    settings = {
        "exact": RELU,
        "clamped": {**RELU, "loss": "clamped"},
        "wide": {**RELU, "loss": "clamped", "widths": [9]},
    }
    found = {"exact": runs(exact), "clamped": runs(clamped), "wide": runs(1.0)}
    last = phases.judge(found, settings)[-1]
    assert (last.claim, last.verdict, len(last.numbers)) == ("reading 2", verdict, 1)


def test_a_sweep_brackets_each_onset_and_goes_on_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with composed("phases", *SWEEP, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        sweep(cfg)
        made = len(Store(tmp_path / "store").runs())
        assert made == 2 * (6 + 2)
        before = (tmp_path / "phases-small" / "phases.md").read_text()
        sweep(cfg)
    assert len(Store(tmp_path / "store").runs()) == made
    assert (tmp_path / "phases-small" / "phases.md").read_text() == before
    assert "12 found" in capsys.readouterr().out
    verdicts = json.loads((tmp_path / "phases-small" / "verdicts.json").read_text())
    assert "half rate: σ_cat is" in verdicts[1]["numbers"][0]["comparison"]
    assert [v.claim for v in redraw(tmp_path / "phases-small")] == ["N14, beyond linear networks", "η σ_ε² = const"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.low=0", r"grid\.low = 0: must be a finite number above 0"),
        ("grid.high=0.001", r"grid\.high = 0\.001: must be above grid\.low"),
        ("grid.count=1", r"grid\.count = 1: must be a whole number of at least 2"),
        ("seeds=0", "seeds = 0"),
        ("bisections=-1", "bisections = -1"),
    ],
)
def test_impossible_settings_fail_before_any_work(override: str, message: str, tmp_path: Path) -> None:
    with composed("phases", f"store={tmp_path}/s", override) as cfg, pytest.raises(SpecError, match=message):
        sweep(cfg)
    assert not (tmp_path / "s" / "runs").exists()
