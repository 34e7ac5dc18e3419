"""torchvision's real code against a server on this machine: what it downloads, parses, and how it fails.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import bz2
import dataclasses
import gc
import gzip
import hashlib
import io
import json
import pickle
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import datasets  # type: ignore[import-untyped]

from noise_reg.data import DataError, Dataset, load, vision

Arrays = dict[str, NDArray[Any]]
NAMES = ("fmnist", "mnist", "usps", "cifar10")
COUNTS = (10, 4)

# torchvision leaves the answer of a 404 open until it is collected, which the fixture does before the next test
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes), keeps the paths asked for, and holds the patches that lead to it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.patch = patch
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.delay = 0.01  # seconds before an answer
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        self.server.asked.append(path)
        content = self.server.files.get(path)
        time.sleep(self.server.delay)
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server(monkeypatch)
    yield running
    running.stop()
    if set(running.asked) - set(running.files):
        gc.collect()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(array: NDArray[Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def random_arrays(shape: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(1)
    arrays: Arrays = {}
    for part, count in zip(("train", "test"), COUNTS, strict=True):
        arrays[f"{part}_images"] = rng.choice(np.array([0, 127, 255], np.uint8), (count, *shape))
        arrays[f"{part}_labels"] = rng.integers(0, 10, count)
    return arrays


def serve_idx(server: Server, dataset: Any, arrays: Arrays) -> None:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    files = {f"{n}-ubyte.gz": gzip.compress(idx(arrays[k]), mtime=0) for n, k in zip(names, keys, strict=True)}
    server.files |= files
    server.patch.setattr(dataset, "mirrors", [server.url])
    server.patch.setattr(dataset, "resources", [(name, md5(content)) for name, content in files.items()])


def serve_usps(server: Server, arrays: Arrays) -> None:
    """LIBSVM text: label 1..10 and 256 values in [-1, 1]."""
    split_list = {}
    for part, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        rows = []
        for image, label in zip(arrays[f"{part}_images"], arrays[f"{part}_labels"], strict=True):
            values = {0: -1, 127: 0, 255: 1}
            rows.append(f"{label + 1} " + " ".join(f"{i}:{values[v]}" for i, v in enumerate(image.ravel().tolist(), 1)))
        server.files[file] = bz2.compress(("\n".join(rows) + "\n").encode())
        split_list[part] = [server.url + file, file, md5(server.files[file])]
    server.patch.setattr(datasets.USPS, "split_list", split_list)


def serve_cifar10(server: Server, arrays: Arrays) -> None:
    """A tar of pickles, five training batches, one of test, one of class names; images as rows (3 * 32 * 32)."""
    rows = {k: a.transpose(0, 3, 1, 2).reshape(len(a), -1) if "images" in k else a for k, a in arrays.items()}
    train = zip(np.split(rows["train_images"], 5), np.split(rows["train_labels"], 5), strict=True)
    batches = {f"data_batch_{i}": {"data": x, "labels": y.tolist()} for i, (x, y) in enumerate(train, 1)}
    batches["test_batch"] = {"data": rows["test_images"], "labels": rows["test_labels"].tolist()}
    files = {name: pickle.dumps(batch, protocol=2) for name, batch in batches.items()}
    # the true batches name numpy's old module
    files = {n: content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray") for n, content in files.items()}
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    server.files["cifar-10-python.tar.gz"] = buffer.getvalue()
    known = {name: md5(content) for name, content in files.items()}
    server.patch.setattr(datasets.CIFAR10, "url", server.url + "cifar-10-python.tar.gz")
    server.patch.setattr(datasets.CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    server.patch.setattr(datasets.CIFAR10, "train_list", [[n, known[n]] for n in known if n.startswith("data")])
    server.patch.setattr(datasets.CIFAR10, "test_list", [["test_batch", known["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": known["batches.meta"]}
    server.patch.setattr(datasets.CIFAR10, "meta", meta)


def serve(name: str, server: Server, **changes: NDArray[Any]) -> Arrays:
    """Makes torchvision's class fetch small random files from the server; returns what they hold."""
    arrays = random_arrays({"usps": (16, 16), "cifar10": (32, 32, 3)}.get(name, (28, 28))) | changes
    if name == "usps":
        serve_usps(server, arrays)
    elif name == "cifar10":
        serve_cifar10(server, arrays)
    else:
        serve_idx(server, vision.SOURCES[name].dataset, arrays)
    source = vision.SOURCES[name]
    level_sum = int(arrays["train_images"].sum()) if source.level_sum else None
    server.patch.setitem(vision.SOURCES, name, dataclasses.replace(source, counts=COUNTS, level_sum=level_sum))
    return arrays


def assert_holds(dataset: Dataset, arrays: Arrays) -> None:
    for part in ("train", "test"):
        images, labels = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
        expected = arrays[f"{part}_images"]
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        images_NHWC = images.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(images_NHWC, expected if expected.ndim == 4 else expected[..., None])
        assert labels.tolist() == arrays[f"{part}_labels"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_it_downloads_once_and_parses(name: str, tmp_path: Path, server: Server) -> None:
    arrays = serve(name, server)
    dataset = load(name, tmp_path / "new", download=True)
    assert dataset.name == name
    assert_holds(dataset, arrays)
    assert dataset.provenance["source"] == "torchvision"
    assert dataset.provenance["file"] == f"torchvision.datasets.{vision.SOURCES[name].dataset.__name__}"
    assert str(tmp_path) not in json.dumps(dataset.provenance)
    server.asked.clear()
    assert_holds(load(name, tmp_path / "new", download=False), arrays)
    assert_holds(load(name, tmp_path / "new", download=True), arrays)
    assert server.asked == []


def test_mnist_binary_is_made_from_the_download(tmp_path: Path, server: Server) -> None:
    arrays = serve("mnist", server)
    binary = load("mnist_binary", tmp_path, download=True)
    expected = {k: np.where(a >= 128, 255, 0) if "images" in k else a for k, a in arrays.items()}
    assert_holds(binary, expected)
    assert binary.name == "mnist_binary" and binary.provenance["source"] == "torchvision"


def test_jobs_that_start_together_download_once(tmp_path: Path, server: Server) -> None:
    serve("fmnist", server)
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: load("fmnist", tmp_path, download=True), range(3)))
    assert all(torch.equal(loaded[0].train_images, other.train_images) for other in loaded)
    assert len(server.asked) == 8, "torchvision asks twice for each of four files: once for redirections"
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", NAMES)
def test_a_corrupt_download_names_file_checksums_and_remedy(name: str, tmp_path: Path, server: Server) -> None:
    serve(name, server)
    file = list(server.files)[-1]
    good, bad = server.files[file], server.files[file][:-10]
    server.files[file] = bad
    message = (
        rf"{tmp_path}.*{file}: damaged or incomplete, MD5 is {md5(bad)}, expected {md5(good)}\. "
        rf"Delete that file and download it again, or put the prepared {name}.npz into {tmp_path}"
    )
    for download in (True, False):
        with pytest.raises(DataError, match=message):
            load(name, tmp_path, download=download)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("failure", ["HTTP Error 404", "Connection refused", "timed out"])
def test_without_a_network_the_error_names_both_remedies(
    failure: str, name: str, tmp_path: Path, server: Server
) -> None:
    serve(name, server)
    if failure == "HTTP Error 404":
        server.files.clear()
    elif failure == "Connection refused":
        server.stop()
    else:
        server.delay = 0.5
        server.patch.setattr(vision, "TIMEOUT", 0.1)
    message = (
        rf"{name}: no {name}.npz in {tmp_path}, .*could not download it .*{failure}.*Either put the prepared "
        rf"{name}.npz into {tmp_path} \(DATA_DIR\), or connect to the network"
    )
    with pytest.raises(DataError, match=message):
        load(name, tmp_path, download=True)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", [*NAMES, "mnist_binary"])
def test_nothing_is_asked_for_when_downloading_is_off(name: str, tmp_path: Path, server: Server) -> None:
    source = name.removesuffix("_binary")
    serve(source, server)
    message = rf"{source}: no {source}.npz in {tmp_path}, .*downloading is off.*put the prepared {source}.npz into .*download=true"
    with pytest.raises(DataError, match=("no mnist_binary.npz in .*" if name != source else "") + message):
        load(name, tmp_path, download=False)
    assert server.asked == [] and list(tmp_path.iterdir()) == []


def test_a_whole_usps_archive_of_other_contents_is_refused(tmp_path: Path, server: Server) -> None:
    serve("usps", server)
    good = server.files["usps.t.bz2"]
    (tmp_path / "usps.bz2").write_bytes(good)  # it parses, and torchvision alone would take it
    with pytest.raises(DataError, match=rf"usps.bz2: .*MD5 is {md5(good)}, expected .*Delete that file"):
        load("usps", tmp_path, download=True)


def test_a_raw_file_cut_short_is_named(tmp_path: Path, server: Server) -> None:
    serve("mnist", server)
    load("mnist", tmp_path, download=True)
    raw = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    raw.write_bytes(raw.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{raw}: damaged or incomplete, not an idx file .*Delete that file"):
        load("mnist", tmp_path, download=True)


def test_mnist_s_files_under_fashion_mnist_s_names_are_refused(tmp_path: Path, server: Server) -> None:
    white = np.full((COUNTS[0], 28, 28), 255, np.uint8)
    serve("fmnist", server, train_images=white)
    serve("mnist", server)
    load("mnist", tmp_path, download=True)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    with pytest.raises(
        DataError, match=rf"not the images of fmnist: .* expected {white.sum()}\. Delete FashionMNIST's"
    ):
        load("fmnist", tmp_path, download=True)


@pytest.mark.parametrize("name", NAMES)
def test_what_torchvision_parsed_is_checked_too(name: str, tmp_path: Path, server: Server) -> None:
    serve(name, server, test_labels=np.array([0, 1, 10, 2]))
    with pytest.raises(DataError, match=r"test_labels holds labels 0\.\.10, expected 0\.\.9\. Delete .* files there"):
        load(name, tmp_path, download=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_the_data_set_is_refused(name: str, tmp_path: Path, server: Server) -> None:
    serve(name, server)
    server.patch.setitem(vision.SOURCES, name, dataclasses.replace(vision.SOURCES[name], counts=(60, 4)))
    with pytest.raises(DataError, match=r"\(10, 4\) training and test images, expected \(60, 4\)\. Delete"):
        load(name, tmp_path, download=True)


def test_a_failed_download_leaves_no_folder_that_was_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST.download", fail)
    for folder, stays in ((tmp_path / "slip", False), (tmp_path, True)):
        with pytest.raises(DataError, match="no network"):
            load("fmnist", folder, True)
        assert folder.exists() == stays
