"""The configuration tree: every choice composes, and mistakes are named before any work."""

from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException, MissingConfigException

from noise_reg.artefacts import REGISTRY
from noise_reg.config import read_job, read_study
from noise_reg.spec import ARCHS, DATASETS, SpecError
from noise_reg.wanted import wanted_runs
from tests.composed import CONF, composed, job


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


PAPER = {
    "in_ninr_decay": {"fc": (51.8, 0.0), "cnn": (2.8, 0.0)},
    "in_ninr_catapult": {"fc": (231.6, 0.0), "cnn": (87.5, 0.0)},
    "full_ninr_decay": {"fc": (16.4, 16.4), "cnn": (0.9, 0.9)},
    "full_ninr_catapult": {"fc": (51.8, 51.8), "cnn": (62.0, 62.0)},
}


@pytest.mark.parametrize("name", sorted(set(choices("dataset")) - {"npz", "plugin"}))  # these two: test_own_data.py
def test_every_dataset_composes(name: str) -> None:
    assert job(f"dataset={name}").spec.dataset.name == name
    assert name in DATASETS


@pytest.mark.parametrize("name", choices("arch"))
def test_every_architecture_composes(name: str) -> None:
    assert job(f"arch={name}").spec.arch.name in ARCHS


@pytest.mark.parametrize("name", choices("reading"))
def test_every_reading_composes(name: str) -> None:
    assert job(f"reading={name}").spec.max_epochs == 500


@pytest.mark.parametrize(("method", "arch"), [(method, arch) for method in PAPER for arch in ("fc", "cnn")])
def test_ninr_takes_the_papers_noise_for_its_architecture(method: str, arch: str) -> None:
    found = job(f"regularizer={method}", f"arch={arch}")
    assert (found.spec.strengths.nin_input, found.spec.strengths.nin_hidden) == PAPER[method][arch]
    assert found.method == method


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (["regularizer=none"], "none"),
        (["regularizer=l2"], "l2"),
        (["regularizer=l2", "regularizer.weight_decay=0.001"], "l2_0.001"),
        (["regularizer=cdt"], "cdt"),
        (["regularizer=cdt", "regularizer.sigma=0.2"], "cdt_0.2"),
        (["regularizer=in_ninr", "regularizer.sigma=51.8"], "in_ninr_51.8"),
        (["regularizer=full_ninr", "regularizer.sigma=3"], "full_ninr_3"),
        (["regularizer=in_ninr_decay", "regularizer.dropout=0.5"], "in_ninr_decay+dropout_0.5"),
        (["regularizer=in_ninr", "regularizer.sigma=3", "regularizer.nin_hidden=3"], "in_ninr_3+nin_hidden_3"),
        (["regularizer=nj", "regularizer.input_noise=0.1"], "nj+input_noise_0.1"),
        (["regularizer=nj", "regularizer.jacobian=0.2"], "nj+jacobian_0.2"),
        (["regularizer=nj", "regularizer.sigma=0.2"], "nj_0.2"),
        (["regularizer=jacobian", "regularizer.jacobian=0"], "none"),
        (["regularizer=nj", "regularizer.jacobian=0"], "none"),
    ],
)
def test_a_method_is_labelled_by_its_name_and_what_differs(overrides: list[str], label: str) -> None:
    assert job(*overrides).method == label


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularizer=in_ninr"], "regularizer.sigma: must be given for regularizer = in_ninr"),
        (["regularizer=in_ninr", "regularizer.sigma=-1"], "regularizer.sigma = -1: must be a finite number"),
        (["regularizer=in_ninr", "regularizer.sigma=nan"], "regularizer.sigma = nan: must be a finite number"),
        (["regularizer=cdt", "regularizer.sigma=1.5"], "regularizer.cdt = 1.5: must be a number in [0, 1]"),
        (["regularizer=dropout", "regularizer.dropout=1"], "regularizer.dropout = 1.0: must be a number in [0, 1)"),
        (["regularizer=dropout", "regularizer.dropout=lots"], "regularizer.dropout = 'lots': must be a number"),
        (["+regularizer.drop=0.5"], "regularizer.drop: unknown key; known are"),
        (["arch=cnn", "arch.kernel=0"], "arch.kernel = 0: must be at least 1 for arch.name = cnn"),
        (["arch=cnn", "arch.filters=[]"], "arch.filters = []: must be at least one number for arch.name = cnn"),
        (["arch=cnn", "arch.padding=none"], "arch.padding = none: must be same or valid for arch.name = cnn"),
        (["arch=fc", "arch.filters=[3]"], "arch.filters = [3]: must be [] for arch.name = fc"),
        (["+sigma=3"], "sigma: unknown key; known are arch, checkpoint_seconds"),
        (
            ["regularizer=jacobian", "regularizer.sigma=0.3"],
            "regularizer.sigma = 0.3: must be 0 for regularizer = jacobian, in",
        ),
        (
            ["regularizer=label_smoothing", "regularizer.label_smoothing=0.9"],
            "regularizer.label_smoothing = 0.9: must be a number in [0, 0.9), where the true class keeps the largest target",
        ),
        (["device=gpu"], "device = gpu: must be one of auto, cpu, cuda"),
        (["stack_size=0"], "stack_size = 0: must be auto or a whole number"),
        (["seed=[0,1]"], "seed = [0, 1]: must be a whole number"),
        (["dataset.name=fashion"], "dataset.name = fashion: must be one of fmnist, mnist"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError) as error:
        job(*overrides)
    assert message in str(error.value)


def test_ninr_without_a_paper_value_says_how_to_give_one(tmp_path: object) -> None:
    with composed("train", "~noise", "regularizer=in_ninr_decay") as cfg, pytest.raises(SpecError) as error:
        read_job(cfg)
    assert "regularizer.sigma=" in str(error.value)


def test_an_unknown_choice_lists_the_known_ones() -> None:
    with pytest.raises(MissingConfigException, match="in_ninr_decay"), composed("train", "regularizer=nonsense"):
        pass


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigCompositionException, match="sigmaa"), composed("train", "regularizer.sigmaa=1"):
        pass


@pytest.mark.parametrize("name", choices("artefact"))
def test_every_artefact_has_runs_at_its_presets(name: str) -> None:
    for preset in ["demo"] if name == "demo" else ["paper", "cpu", "short", "quick", "smoke"]:
        with composed("reproduce", f"artefact={name}", f"preset={preset}") as cfg:
            if (
                name in ("fig7", "fig8") or preset != "smoke"
            ):  # whose methods test_variants.py composes; presets differ in the rest
                cfg.artefact.methods = cfg.artefact.methods[:1]
            wanted = wanted_runs(cfg)
        assert len({w.job.spec.key for w in wanted}) == len(wanted) > 0
    assert name in REGISTRY


@pytest.mark.parametrize(
    ("preset", "draws", "strengths", "attacked"), [("paper", 3, 11, 0), ("quick", 1, 11, 0), ("smoke", 1, 3, 200)]
)
def test_a_preset_brings_its_own_evaluations(preset: str, draws: int, strengths: int, attacked: int) -> None:
    with composed("reproduce", f"preset={preset}") as cfg:
        assert (cfg.corruption.draws, len(cfg.corruption.grid), cfg.attack.pgd.images) == (draws, strengths, attacked)
    with composed("reproduce", f"preset={preset}", "corruption=paper", "corruption.draws=2") as cfg:
        assert (cfg.corruption.draws, len(cfg.corruption.grid)) == (2, 11)


def test_fig2_at_paper_scale_is_the_papers_setting() -> None:
    with composed("reproduce", "artefact=fig2", "preset=paper") as cfg:
        wanted = [w for w in wanted_runs(cfg) if not w.reading]
    assert len(wanted) == 2 * 8 * 10
    spec = wanted[0].job.spec
    assert (spec.optimizer.learning_rate, spec.optimizer.batch_size, spec.max_epochs) == (0.05, 128, 500)
    assert (spec.stop_accuracy, spec.arch.widths, spec.reading.train_fraction) == (0.98, (1024, 1024, 1024), 0.6)


STUDIES = sorted(path.stem for path in CONF.glob("*.yaml") if "\npresets:" in path.read_text())


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_its_presets(name: str) -> None:
    with composed(name, "preset=smoke") as cfg:
        smoke = read_study(cfg)
    assert smoke["preset"] == "smoke" and cfg.preset.suffix == "-smoke"
    with composed(name, "preset=quick") as cfg:
        assert read_study(cfg) != smoke
    with (
        composed(name, "preset=demo") as cfg,
        pytest.raises(SpecError, match=r"preset = demo: must be one of .*quick, smoke"),
    ):
        read_study(cfg)


def test_a_preset_without_the_artefacts_panel_is_named() -> None:
    with (
        composed("reproduce", "artefact=fig2", "preset=demo") as cfg,
        pytest.raises(SpecError, match="panel cnn of fig2"),
    ):
        wanted_runs(cfg)
