"""Data sets from prepared and embedded files, and their checks.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from noise_reg.data import DataError, Dataset, Standardizer, load, resolve_data_dir
from noise_reg.data import prepared as prepared_module
from noise_reg.data.catalogue import LOADERS
from noise_reg.data.dataset import build
from noise_reg.data.known import KNOWN_CONTENT, KNOWN_TEST_CONTENT
from noise_reg.errors import UserError
from noise_reg.spec import DATASETS

Arrays = dict[str, NDArray[Any]]
SHARED = Path(__file__).parents[2] / "shared" / "data"


def random_arrays(shape: tuple[int, ...], train: int = 5, test: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for part, count in (("train", train), ("test", test)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 10, count, dtype=np.uint8)
    return arrays


def save(folder: Path, name: str, arrays: Arrays) -> Path:
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.fixture
def real_dir() -> Path:
    folder = Path(os.environ.get("NOISE_REG_DATA_DIR") or SHARED)
    if not (folder / "fmnist.npz").is_file():
        pytest.skip(f"no fmnist.npz in {folder} (set NOISE_REG_DATA_DIR)")
    return folder


def assert_sound(dataset: Dataset, shape_CHW: tuple[int, int, int], counts: tuple[int, int]) -> None:
    images, labels = (dataset.train_images, dataset.test_images), (dataset.train_labels, dataset.test_labels)
    assert [(tuple(x.shape), x.dtype) for x in images] == [((n, *shape_CHW), torch.uint8) for n in counts]
    assert [(tuple(y.shape), y.dtype) for y in labels] == [((n,), torch.int64) for n in counts]
    assert all(x.is_contiguous() for x in images)
    assert dataset.classes == 10
    assert set(dataset.provenance) == {"source", "file", "note"}
    assert "/" not in dataset.provenance["file"]


# sources


def test_the_catalogue_is_the_specification_s_list() -> None:
    assert list(LOADERS) == list(DATASETS)


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'fashion': unknown; known are fmnist, mnist, mnist_binary, usps, cifar10, digits"
    ):
        load("fashion", tmp_path, download=False)


def test_digits_need_no_folder_and_never_change() -> None:
    digits = load("digits", "/nowhere", download=False)
    assert_sound(digits, (1, 8, 8), (1437, 360))
    assert digits.provenance["source"] == "embedded"
    assert "seed 0" in digits.provenance["note"]
    assert digits.sha256 == KNOWN_CONTENT["digits", "sklearn.datasets.load_digits"]


def test_digits_hold_every_image_once_and_every_class_alike() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits, source = load("digits", None, download=False), load_digits()
    both = torch.cat([digits.train_images, digits.test_images]).reshape(-1, 64).numpy()
    expected = np.floor(source["data"] * 255 / 16 + 0.5).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, expected))
    shares = torch.bincount(digits.test_labels) / torch.from_numpy(np.bincount(source["target"]))
    assert shares.min() > 0.19 and shares.max() < 0.21


@pytest.mark.parametrize("name", ["fmnist", "mnist", "usps", "cifar10"])
def test_a_prepared_file_is_read_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_module, "KNOWN_CONTENT", {})
    side, channels = {"usps": (16, 1), "cifar10": (32, 3)}.get(name, (28, 1))
    arrays = random_arrays((side, side, 3) if channels == 3 else (side, side))
    save(tmp_path, name, arrays)
    dataset = load(name, tmp_path, download=False)
    assert_sound(dataset, (channels, side, side), (5, 3))
    assert dataset.name == name
    for part, images in (("train", dataset.train_images), ("test", dataset.test_images)):
        expected = arrays[f"{part}_images"].reshape(-1, side, side, channels)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert dataset.train_labels.tolist() == arrays["train_labels"].tolist()
    assert dataset.test_labels.tolist() == arrays["test_labels"].tolist()
    assert dataset.provenance["source"] == "npz"


def test_mnist_binary_is_mnist_thresholded_at_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_module, "KNOWN_CONTENT", {})
    arrays = random_arrays((28, 28))
    arrays["train_images"][0, 0, :4] = [0, 127, 128, 255]
    save(tmp_path, "mnist", arrays)
    binary = load("mnist_binary", tmp_path, download=False)
    assert_sound(binary, (1, 28, 28), (5, 3))
    assert binary.name == "mnist_binary"
    assert binary.train_images[0, 0, 0, :4].tolist() == [0, 0, 255, 255]
    assert np.array_equal(binary.test_images[:, 0].numpy(), np.where(arrays["test_images"] >= 128, 255, 0))
    assert binary.provenance["file"] == "mnist.npz" and "thresholded" in binary.provenance["note"]


def test_a_prepared_mnist_binary_comes_before_mnist(tmp_path: Path) -> None:
    arrays = random_arrays((28, 28))
    binary = {n: (a >= 128).astype(np.uint8) * 255 if "images" in n else a for n, a in arrays.items()}
    save(tmp_path, "mnist_binary", binary)
    dataset = load("mnist_binary", tmp_path, download=False)
    assert dataset.provenance["file"] == "mnist_binary.npz"
    assert np.array_equal(dataset.train_images[:, 0].numpy(), binary["train_images"])


def test_grey_levels_under_the_name_of_mnist_binary_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, "mnist_binary", random_arrays((28, 28)))
    with pytest.raises(DataError, match=rf"{path}: holds grey levels, expected only 0 and 255"):
        load("mnist_binary", tmp_path, download=False)


def test_the_folder_is_the_argument_then_the_environment_then_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOISE_REG_DATA_DIR", raising=False)
    assert resolve_data_dir(None) == tmp_path / "data"
    monkeypatch.setenv("NOISE_REG_DATA_DIR", str(tmp_path / "env"))
    assert resolve_data_dir(None) == tmp_path / "env"
    assert resolve_data_dir("given") == tmp_path / "given"


# checks of prepared files, with cifar10.npz, for which no checksum is known


def changed(**arrays: NDArray[Any] | None) -> Arrays:
    merged = random_arrays((32, 32, 3)) | arrays
    return {name: array for name, array in merged.items() if array is not None}


BAD_ARRAYS: dict[str, tuple[Arrays, str]] = {
    "missing": (changed(test_labels=None), "test_labels missing, expected train_images, .* found train_images"),
    "image dtype": (changed(train_images=np.zeros((5, 32, 32, 3))), "train_images has dtype float64, expected uint8"),
    "label dtype": (changed(test_labels=np.zeros(3, np.int64)), "test_labels has dtype int64, expected uint8"),
    "grey images": (
        changed(train_images=np.zeros((5, 32, 32), np.uint8)),
        r"train_images has shape \(5, 32, 32\), expected \(N, 32, 32, 3\)",
    ),
    "channels first": (
        changed(test_images=np.zeros((3, 3, 32, 32), np.uint8)),
        r"test_images has shape \(3, 3, 32, 32\), expected \(N, 32, 32, 3\)",
    ),
    "counts": (
        changed(train_labels=np.zeros(4, np.uint8)),
        r"train_labels has shape \(4,\), expected \(5,\), one label an image",
    ),
    "label range": (
        changed(test_labels=np.array([0, 10, 3], np.uint8)),
        "test_labels holds labels 0..10, expected 0..9",
    ),
    "empty": (
        changed(test_images=np.zeros((0, 32, 32, 3), np.uint8), test_labels=np.zeros(0, np.uint8)),
        "test_images is empty, expected at least one image",
    ),
    "objects": (changed(train_labels=np.array([{}] * 5, object)), "plain arrays, .*Object arrays cannot be loaded"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_prepared_file_with_wrong_arrays_is_refused(case: str, tmp_path: Path) -> None:
    arrays, message = BAD_ARRAYS[case]
    path = save(tmp_path, "cifar10", arrays)
    with pytest.raises(DataError, match=rf"{path}: .*{message}.*\. Replace it by the prepared cifar10.npz"):
        load("cifar10", tmp_path, download=True)


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **random_arrays((32, 32, 3)))  # type: ignore[arg-type]
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


BAD_BYTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated": (lambda: npz_bytes()[:5000], "found a truncated one or another kind of file"),
    "flipped": (lambda: npz_bytes()[:2000] + b"????" + npz_bytes()[2004:], "cannot be read: Bad CRC-32"),
    "a web page": (lambda: b"<html>Not found</html>", "found a truncated one or another kind of file"),
    "one array": (npy_bytes, "found a truncated one or another kind of file"),
    "no bytes": (lambda: b"", "found a truncated one or another kind of file"),
}


@pytest.mark.parametrize("case", BAD_BYTES)
def test_a_damaged_or_foreign_file_is_refused(case: str, tmp_path: Path) -> None:
    content, message = BAD_BYTES[case]
    path = tmp_path / "cifar10.npz"
    path.write_bytes(content())
    with pytest.raises(DataError, match=rf"{path}: expected an npz .*{message}.*\. Replace it by the prepared"):
        load("cifar10", tmp_path, download=True)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cifar10.npz", "w") as archive:
        archive.writestr("train_images", "text")
    with pytest.raises(DataError, match="train_labels, test_images, test_labels missing"):
        load("cifar10", tmp_path, download=False)


@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_a_prepared_file_that_cannot_be_opened_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "fmnist.npz"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"{path}: cannot be read: (Is a directory|No such file)"):
        load("fmnist", tmp_path, download=True)


@pytest.mark.parametrize("name", ["fmnist", "mnist", "usps"])
def test_a_known_name_with_other_contents_is_refused(name: str, tmp_path: Path) -> None:
    path = save(tmp_path, name, random_arrays((16, 16) if name == "usps" else (28, 28)))
    known = KNOWN_CONTENT[name, f"{name}.npz"]
    with pytest.raises(
        DataError, match=rf"{path}: SHA-256 of its arrays is [0-9a-f]{{64}}, expected {known}\. Replace it"
    ):
        load(name, tmp_path, download=True)


@pytest.mark.parametrize(("name", "file"), [key for key in KNOWN_CONTENT if key[1].endswith(".npz")])
def test_the_known_contents_are_those_of_the_prepared_files(name: str, file: str, real_dir: Path) -> None:
    dataset = load(name, real_dir, download=False)
    assert (dataset.provenance["file"], dataset.sha256) == (file, KNOWN_CONTENT[name, file])
    assert dataset.test_sha256 == KNOWN_TEST_CONTENT.get(name, dataset.test_sha256)


def test_a_prepared_file_may_be_packed_anew(real_dir: Path, tmp_path: Path) -> None:
    with np.load(real_dir / "usps.npz") as archive:
        np.savez(tmp_path / "usps.npz", **archive)
    assert load("usps", tmp_path, download=False).sha256 == load("usps", real_dir, download=False).sha256


@pytest.mark.parametrize("change", ["train_images", "train_labels", "test_images", "test_labels", "order", "shape"])
def test_any_change_of_the_content_changes_its_name(change: str) -> None:
    """Neither a pixel, nor a label, nor an order, nor a shape may differ unseen."""

    def content(arrays: Arrays) -> tuple[str, str]:
        dataset = build("digits", arrays, "made up", {})
        return dataset.sha256, dataset.test_sha256

    arrays = random_arrays((8, 8))
    before = content(arrays)
    if change == "order":
        arrays["test_images"][:2] = arrays["test_images"][[1, 0]]
    elif change == "shape":  # the same bytes
        arrays = {**arrays, "train_images": arrays["train_images"][:4], "train_labels": arrays["train_labels"][:4]}
    else:
        arrays[change].flat[-1] ^= 1
    after = content(arrays)
    assert after[0] != before[0]
    assert (after[1] == before[1]) == (change in ("train_images", "train_labels", "shape"))
    assert content(random_arrays((8, 8))) == before


def test_fashion_mnist_has_the_known_moments(real_dir: Path) -> None:
    dataset = load("fmnist", real_dir, download=False)
    assert_sound(dataset, (1, 28, 28), (60_000, 10_000))
    assert torch.bincount(dataset.train_labels).tolist() == [6_000] * 10
    assert torch.bincount(dataset.test_labels).tolist() == [1_000] * 10
    standardizer = Standardizer.fit(dataset.train_images, by="std", per="global")
    assert standardizer.mean.item() == pytest.approx(0.28604, abs=5e-6)
    assert standardizer.scale.item() == pytest.approx(0.35302, abs=5e-6)
