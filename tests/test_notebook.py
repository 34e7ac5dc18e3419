"""The notebook runs from top to bottom on committed rows, without torch and without stored outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from noise_reg.artefacts import REGISTRY
from tests.made_rows import AS_CLAIMED, CONTEXT, made_rows

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NOTEBOOK = NOTEBOOKS / "explore_results.ipynb"


def execute(last_cell: str, where: Path, path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(last_cell))
    return NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(where)}}).execute()


def test_the_notebook_redraws_figure_and_tables_from_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {method: AS_CLAIMED[method] for method in ("none", "in_ninr_catapult", "cdt")}
    REGISTRY["demo"].build(made_rows(few, n=3), CONTEXT, tmp_path / "kept" / "demo")
    monkeypatch.setenv("NOISE_REG_RESULTS", "kept")
    done = execute("import sys\nassert 'torch' not in sys.modules", tmp_path)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert "demo: 18 runs on fmnist" in outputs[0].text
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert (kinds.count("image/png"), kinds.count("text/markdown")) == (2, 2)
    assert any("in-NINR (catapult)" in output.get("data", {}).get("text/markdown", "") for output in outputs)


def test_without_rows_the_notebook_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISE_REG_RESULTS", "nowhere")
    with pytest.raises(CellExecutionError, match="reproduce fig2 or the demo first"):
        execute("", tmp_path)


def test_the_toy_model_s_notebook_meets_the_four_phases_in_their_order(tmp_path: Path) -> None:
    done = execute("", tmp_path, NOTEBOOKS / "toy_model.ipynb")
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    words = "".join(output.get("text", "") for output in outputs)
    places = [words.index(f"{name}: sigma") for name in ("decoupled", "decay", "catapult", "divergent")]
    assert places == sorted(places)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
