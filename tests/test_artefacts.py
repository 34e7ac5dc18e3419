"""Rows come back exactly; figures and tables say what they are made of, and can be made again from their folder."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from noise_reg.artefacts import REGISTRY, artefact, fig2, numbers, redraw, table2
from noise_reg.artefacts.lines import Line, lines
from noise_reg.artefacts.methods import METHODS, SPARE, label, styles
from noise_reg.artefacts.rows import Rows, read_rows, thin_history, write_rows
from noise_reg.errors import UserError
from tests.made_rows import AS_CLAIMED, CONTEXT, diverge, keep_at_chance, made_rows, with_reading

FEW = {method: AS_CLAIMED[method] for method in ("none", "l2", "in_ninr_catapult", "cdt")}
FILES = ("runs.csv", "evaluations.csv", "history.csv", "verdicts.json", "provenance.json")


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(Text))


def line_of(rows: Rows, method: str, reading: str = "") -> Line:
    return next(x for x in lines(rows) if (x.arch, x.method, x.reading) == ("fc", method, reading))


def table_row(folder: Path, arch: str, method: str, reading: str = "") -> dict[str, str]:
    with open(folder / "table2.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return next(row for row in rows if (row["arch"], row["method"], row["reading"]) == (arch, method, reading))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artefact with both parts, with a second reading and diverged runs."""
    rows = diverge(with_reading(made_rows(FEW), "in_ninr_catapult", "exact loss"), "l2", range(3))
    folder = tmp_path_factory.mktemp("results") / "demo"
    REGISTRY["demo"].build(rows, CONTEXT, folder)
    return folder


def test_rows_come_back_to_the_last_bit(tmp_path: Path) -> None:
    rows = made_rows(FEW)
    rows.runs.loc[0, "test_accuracy"] = 0.1 + 0.2
    rows.runs.loc[1, "train_accuracy"] = float("nan")
    keys = {"0000000000000000": "0012345678901234", "0000000000000001": "12e4567890123456"}
    for frame in (rows.runs, rows.evaluations, rows.history):
        assert frame is not None
        frame["key"] = frame["key"].replace(keys)
    write_rows(rows, tmp_path)
    again = read_rows(tmp_path)
    for name in ("runs", "evaluations", "history"):
        mine, theirs = (getattr(r, name).set_index("key").sort_index(kind="stable") for r in (rows, again))
        pd.testing.assert_frame_equal(mine, theirs[mine.columns], check_dtype=False, check_exact=True)


def test_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = made_rows(FEW, early_loss=None)
    mixed = Rows(rows.runs.sample(frac=1, random_state=1), rows.evaluations.sample(frac=1, random_state=2))
    write_rows(rows, tmp_path / "a")
    write_rows(mixed, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_rows_without_history_leave_no_old_history_behind(tmp_path: Path) -> None:
    write_rows(made_rows(FEW), tmp_path)
    assert (tmp_path / "history.csv").exists()
    write_rows(made_rows(FEW, early_loss=None), tmp_path)
    assert set(contents(tmp_path)) == {"runs.csv", "evaluations.csv"}


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (replace_in("runs.csv", ",seed,", ",sead,"), ["runs.csv", "column 'seed' is missing"]),
        (replace_in("runs.csv", ",completed,", ",done,"), ["runs.csv, line 2", "'status'", "'done'", "diverged"]),
        (replace_in("runs.csv", ",0.981,", ",98.1,"), ["runs.csv, line 2", "'train_accuracy'", "'98.1'", "fraction"]),
        (replace_in("runs.csv", ",30,", ",3.5,"), ["runs.csv, line 2", "'epochs'", "whole number"]),
        (replace_in("evaluations.csv", ",clean,0.0,", ",clean,-1,"), ["evaluations.csv, line 2", "'strength'", "'-1'"]),
        (replace_in("evaluations.csv", ",clean,0.0,", ",clean,"), ["evaluations.csv, line 2", "3 values for 4"]),
        (replace_in("evaluations.csv", ",clean,0.0,", ",corruption,0.4,"), ["evaluations.csv", "there twice"]),
        (replace_in("history.csv", "0000000000000000,", "ffff,"), ["history.csv", "'key'", "ffff is not a run"]),
        (lambda folder: (folder / "runs.csv").unlink(), ["runs.csv", "not found", "reproduce"]),
        (lambda folder: (folder / "runs.csv").write_text(""), ["runs.csv", "empty"]),
        (lambda folder: (folder / "runs.csv").write_bytes(b"\xff\xfe"), ["runs.csv", "cannot be read"]),
    ],
)
def test_bad_rows_are_named_by_file_column_and_line(
    tmp_path: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    write_rows(made_rows(FEW, archs=("fc",)), tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        read_rows(tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(made_rows(FEW), tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(UserError, match="cannot be written"):
        write_rows(made_rows(FEW, n=2), tmp_path)
    assert contents(tmp_path) == before


def test_two_runs_of_a_line_need_two_seeds() -> None:
    rows = made_rows(FEW)
    rows.runs.loc[1, "seed"] = 0
    with pytest.raises(UserError, match=r"two runs of arch 'fc', method 'none'.*`reading`"):
        lines(rows)


def test_thinned_history_keeps_each_runs_last_epoch() -> None:
    history = pd.DataFrame({"key": ["a"] * 14 + ["b"] * 4, "epoch": [*range(1, 15), *range(1, 5)]})
    kept = thin_history(history)
    assert list(kept[kept["key"] == "a"]["epoch"]) == [1, 2, 5, 10, 14]
    assert list(kept[kept["key"] == "b"]["epoch"]) == [1, 2, 4]


def test_a_folder_holds_rows_figures_tables_verdicts_and_provenance(built: Path) -> None:
    parts = {f"{part}.{ending}" for part in ("fig2", "table2") for ending in ("png", "svg", "md", "csv")}
    assert set(contents(built)) == parts | set(FILES)


def test_redrawing_gives_the_same_bytes_from_rows_and_provenance_alone(built: Path, tmp_path: Path) -> None:
    for name in ("runs.csv", "evaluations.csv", "history.csv", "provenance.json"):
        shutil.copy(built / name, tmp_path / name)
    redraw(tmp_path)
    assert contents(tmp_path) == contents(built)


def test_diverged_runs_are_counted_and_left_out_of_the_mean(built: Path) -> None:
    rows = read_rows(built)
    line = line_of(rows, "l2")
    assert (line.count, line.lost, len(line.clean), line.tally()) == (4, 3, 1, "3 of 4 diverged")
    assert "FC, L2: 3 of 4 diverged." in texts(fig2.figure(lines(rows), CONTEXT))
    for name in ("fig2.md", "table2.md"):
        assert "3 of 4 diverged" in (built / name).read_text()
    row = table_row(built, "fc", "l2")
    counts = [row[name] for name in ("runs", "n", "diverged_without_accuracy", "verdict")]
    assert counts == ["4", "1", "3", "contradicted"]


def test_a_diverged_run_with_a_finite_accuracy_is_kept_and_said_so() -> None:
    rows = made_rows(FEW)
    rows.runs.loc[0, ["status", "stopped_by"]] = "diverged"
    line = line_of(rows, "none")
    assert (len(line.clean), line.lost) == (4, 0)
    assert line.account() == "1 of 4 diverged (1 of them with a finite accuracy, kept in the mean)"


def test_runs_that_stayed_at_chance_count_in_tables_and_verdicts_but_bend_no_line() -> None:
    rows = keep_at_chance(made_rows(FEW), "l2", range(3))
    found = lines(rows)
    line, rest = line_of(rows, "l2"), line_of(rows, "l2").learned()
    assert (line.tally(), line.stuck, list(rest.clean), rest.count) == ("3 of 4 at chance", {0, 1, 2}, [3], 1)
    assert line_of(rows, "none").learned().tally() == ""
    shown = texts(fig2.figure(found, CONTEXT))
    assert "FC, L2: 3 of 4 at chance (the line is the mean over the other 1; verdicts count all)." in shown
    text = fig2.as_markdown(found, CONTEXT, [])
    assert "| L2 " in text and "| L2, without those at chance" in text
    (entry,) = (
        e
        for e in numbers.table(table2.subject(CONTEXT), found, "fmnist")
        if e.line is found[[x.label for x in found].index("L2")]
    )
    assert entry.ours.n == 4 and entry.ours.mean < 40
    assert f"3 of 4 at chance; the others: {line.clean[3]:.1f} |" in numbers.as_markdown(
        table2.subject(CONTEXT), [entry], CONTEXT
    )
    assert "3 of 4 at chance, not drawn" in texts(numbers.figure(table2.subject(CONTEXT), [entry], CONTEXT))
    everyone = line_of(keep_at_chance(made_rows(FEW), "l2", range(4)), "l2")
    assert everyone.learned() is everyone  # with nobody else there is nothing else to draw


def test_figure_2_says_data_set_runs_cap_preset_and_scale() -> None:
    shown = texts(fig2.figure(lines(made_rows(FEW)), CONTEXT))
    for words in ("Fashion-MNIST", "FC: n = 4 runs", "at most 30 epochs", "Preset smoke", "2 standard deviations over"):
        assert words in shown
    assert "Below paper scale: made-up rows" in shown
    full_scale = texts(fig2.figure(lines(made_rows(FEW)), {**CONTEXT, "below_paper_scale": ""}))
    assert "Below paper scale" not in full_scale


def test_figure_2_shows_the_papers_numbers_on_its_own_data_set_alone() -> None:
    on_digits = {**CONTEXT, "dataset": "digits"}
    assert "paper (clean, ± 2σ)" in texts(fig2.figure(lines(made_rows(FEW)), CONTEXT))
    assert "paper (clean" not in texts(fig2.figure(lines(made_rows(FEW, dataset="digits")), on_digits))


def test_a_second_reading_is_a_thin_line_of_its_own_or_a_note_when_it_diverged() -> None:
    rows = with_reading(made_rows(FEW), "in_ninr_catapult", "exact loss")
    name = "in-NINR (catapult), exact loss"
    axes = fig2.figure(lines(rows), CONTEXT).axes[0]
    assert min(artist.get_linewidth() for artist in axes.lines if len(artist.get_xdata()) > 2) == 0.8  # type: ignore[arg-type]
    assert name in texts(fig2.figure(lines(rows), CONTEXT))
    gone = rows.evaluations["key"].str.startswith("f")
    rows.runs.loc[rows.runs["reading"] != "", ["status", "stopped_by", "test_accuracy"]] = [
        "diverged",
        "diverged",
        None,
    ]
    figure = fig2.figure(lines(Rows(rows.runs, rows.evaluations[~gone])), CONTEXT)
    assert f"FC, {name}: 4 of 4 diverged." in texts(figure)
    assert name not in [t.get_text() for t in figure.legends[0].get_texts()]


def test_the_band_is_two_deviations_over_runs_or_of_the_mean() -> None:
    rows = made_rows(FEW, size=1.0)
    known = line_of(rows, "none").summaries()[0.4]
    cells = {spread: fig2.as_markdown(lines(rows), {**CONTEXT, "spread": spread}, []) for spread in ("runs", "mean")}
    assert f"{known.mean:.1f} ± {2 * known.sd:.1f} " in cells["runs"]
    assert f"{known.mean:.1f} ± {2 * known.sd / 2:.1f} " in cells["mean"]  # sqrt(4 runs)
    assert f"{2 * known.sd:.1f}" != f"{known.sd:.1f}"
    with pytest.raises(UserError, match="spread = 'range'; one of runs, mean"):
        fig2.figure(lines(rows), {**CONTEXT, "spread": "range"})


def undrawn_ticks(figure: Figure) -> set[int]:
    """Matplotlib keeps the labels of ticks beyond the axis's ends, and does not draw them."""
    found = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found |= {id(tick.label1) for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
            found |= {
                id(label)
                for tick in axis.get_major_ticks()
                for label in (tick.label1, tick.label2)
                if not label.get_visible()
            }
    return found


@pytest.mark.parametrize("archs", [("fc",), ("fc", "cnn")])
@pytest.mark.parametrize("part", ["fig2", "table2"])
def test_no_word_is_cut_off_or_lies_on_another(archs: tuple[str, ...], part: str) -> None:
    rows = diverge(with_reading(made_rows(archs=archs), "in_ninr_catapult", "exact loss"), "in_ninr_decay", range(2))
    rows = keep_at_chance(rows, "in_ninr_catapult", range(2), arch=archs[-1])
    context = {
        **CONTEXT,
        "below_paper_scale": "4 seeds and at most 30 epochs on small networks; the paper has 10 and 500",
    }
    found = lines(rows)
    subject = table2.subject(context)
    entries = numbers.table(subject, found, "fmnist")
    figure = fig2.figure(found, context) if part == "fig2" else numbers.figure(subject, entries, context)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_text().strip() and id(text) not in undrawn_ticks(figure)]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in shown if isinstance(text, Text)]
    width, height = figure.bbox.size
    for text, box in zip(shown, boxes, strict=True):
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for i, box in enumerate(boxes):
        for j in range(i):
            apart = box.x0 >= boxes[j].x1 or boxes[j].x0 >= box.x1 or box.y0 >= boxes[j].y1 or boxes[j].y0 >= box.y1
            assert apart, (shown[i].get_text(), shown[j].get_text())


def test_table_2_sets_ours_beside_the_paper_with_the_known_difference(built: Path) -> None:
    row = table_row(built, "cnn", "cdt")
    ours = 100 * made_rows(FEW).runs.query("arch == 'cnn' and method == 'cdt'")["test_accuracy"].mean()
    assert float(row["mean"]) == pytest.approx(ours, abs=1e-5)
    assert float(row["difference"]) == pytest.approx(ours - 84.1, abs=1e-5)
    assert float(row["paper_two_sd"]) == 6.4
    second = table_row(built, "fc", "in_ninr_catapult", "exact loss")
    assert second["label"] == "in-NINR (catapult), exact loss"


@pytest.mark.usefixtures("unrendered")
def test_table_2_has_no_verdict_on_a_data_set_that_the_paper_lacks(tmp_path: Path) -> None:
    context = {**CONTEXT, "dataset": "digits"}
    assert REGISTRY["table2"].build(made_rows(FEW, dataset="digits"), context, tmp_path) == []
    text = (tmp_path / "table2.md").read_text()
    assert "The paper has no numbers for this data set." in text
    assert "reproduced" not in text


def test_unknown_methods_keep_their_name_and_get_a_spare_style() -> None:
    assert (label("jacobian_0.1"), label("cdt")) == ("jacobian_0.1", "CDT 0.4")
    given = styles(["none", "unheard", "new"])
    assert (given["new"], given["unheard"], given["none"]) == (SPARE[0], SPARE[1], METHODS["none"][1])


def test_an_unknown_artefact_lists_the_known() -> None:
    with pytest.raises(
        UserError,
        match=r"artefact 'fig99' is unknown; known are fig2, fig3, fig6, fig7, fig8, fig9, phases, table1, table2, demo",
    ):
        artefact("fig99")


def test_a_context_that_lacks_or_contradicts_something_is_refused_before_any_file(tmp_path: Path) -> None:
    without = {name: value for name, value in CONTEXT.items() if name != "preset"}
    with pytest.raises(UserError, match="context: preset must be given"):
        REGISTRY["fig2"].build(made_rows(FEW), without, tmp_path)
    with pytest.raises(UserError, match="dataset = 'fmnist', but the rows hold runs on digits"):
        REGISTRY["fig2"].build(made_rows(FEW, dataset="digits"), CONTEXT, tmp_path)
    assert not contents(tmp_path)
