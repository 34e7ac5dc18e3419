"""Documents (JSON) and tensor files (safetensors) that show any later change to them: checksums written, checked on reading.

JSON is strict. A number that is not finite is written as null; `nan_for_null` undoes that for documents of numbers, and
`tagged` keeps it exact where a computation continues from the document.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from noise_reg.atomic import Chunks, StoreError

Tensors = Mapping[str, np.ndarray]

DTYPES = {
    **{np.dtype(f"f{size}"): f"F{8 * size}" for size in (2, 4, 8)},
    **{np.dtype(f"i{size}"): f"I{8 * size}" for size in (1, 2, 4, 8)},
    **{np.dtype(f"u{size}"): f"U{8 * size}" for size in (1, 2, 4, 8)},
    np.dtype(bool): "BOOL",
    np.dtype("c8"): "C64",
}


class Missing(Exception):
    """The file is not there (any more)."""


class Damaged(Exception):
    """The bytes are not those once written; the message says what is wrong with them."""


@contextmanager
def sorted_errors(path: Path) -> Iterator[None]:
    """What opening `path` may raise, as Missing, Damaged, or StoreError for what the system refuses."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(str(path)) from error
    except OSError as error:
        if os.path.isdir(path):  # which, unlike Path.is_dir, raises nothing where the folder above may not be entered
            raise Damaged(f"{path.name} is a folder") from error
        raise StoreError(f"{path}: cannot be read: {error}. Remedy: make it readable.") from error


def read_bytes(path: Path) -> bytes:
    """Raises Missing, Damaged, StoreError."""
    with sorted_errors(path):
        return path.read_bytes()


def content_of_files(paths: Iterable[Path]) -> str:
    """64 hexadecimal digits that change with any of the files, their names included. Raises Missing, Damaged, StoreError."""
    digest = hashlib.sha256()
    for path in paths:
        data = read_bytes(path)
        digest.update(f"{path.name} {len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()


def plain(value: Any, not_finite: Callable[[float], Any] = lambda number: None) -> Any:
    """`value` in JSON's own types (tuples become lists, numpy's numbers Python's). Raises TypeError for anything else."""
    if isinstance(value, Mapping):
        return {str(name): plain(item, not_finite) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, not_finite) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist(), not_finite)
    if isinstance(value, float) and not math.isfinite(value):
        return not_finite(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{value!r} cannot be stored as JSON")


def nan_for_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: nan_for_null(item) for name, item in value.items()}
    if isinstance(value, list):
        return [nan_for_null(item) for item in value]
    return math.nan if value is None else value


def tagged(value: Any) -> Any:
    """`plain`, with NaN and infinities told apart from null; `untagged` is its inverse."""
    return plain(value, lambda number: {"$float": repr(number)})


def untagged(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$float"}:
            return float(value["$float"])
        return {name: untagged(item) for name, item in value.items()}
    return [untagged(item) for item in value] if isinstance(value, list) else value


def encode(document: Any) -> bytes:
    return (json.dumps(plain(document), indent=1, allow_nan=False) + "\n").encode()


def checksum_of(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def seal(document: Mapping[str, Any]) -> bytes:
    """The document with a last field `sha256` over the canonical JSON of the others."""
    content = plain(document)
    return encode({**content, "sha256": checksum_of(content)})


def unseal(data: bytes) -> dict[str, Any]:
    """The document that `seal` wrote, without its checksum. Raises Damaged."""
    try:
        sealed: dict[str, Any] = json.loads(data)
        # equal bytes also rule out a change that leaves the meaning, which nobody who writes here would make
        intact = isinstance(sealed, dict) and encode(sealed) == data
    except (ValueError, TypeError) as error:
        raise Damaged("not readable as JSON") from error
    if not intact or sealed.pop("sha256", None) != checksum_of(sealed):
        raise Damaged("its own checksum is wrong")
    return sealed


def dtype_code(name: str, array: np.ndarray) -> str:
    """Safetensors' name of a dtype, byte order aside. Raises ValueError naming the tensor."""
    code = DTYPES.get(array.dtype.newbyteorder("="))
    if code is None or name == "__metadata__":
        raise ValueError(f"tensor {name!r} of {array.dtype} cannot be stored as safetensors")
    return code


def raw(array: np.ndarray) -> memoryview:
    """An array's elements, little-endian in C order, copied only where they do not lie so already."""
    little_endian = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
    return little_endian.reshape(-1).view(np.uint8).data


def tensor_chunks(tensors: Tensors, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """A safetensors file, piece by piece. Raises ValueError for a dtype it does not know.

    Not `safetensors.numpy.save`: that stores an array that is not contiguous wrongly, and needs a second copy of a whole
    stack in memory; `save_file` gives no OSError on a full disk.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # keeps each tensor aligned
    end = 0
    for name in names:
        array, start = tensors[name], end
        end += array.nbytes
        header[name] = {"dtype": dtype_code(name, array), "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield raw(tensors[name])


def layout_of(tensors: Tensors) -> list[list[Any]]:
    return [[name, dtype_code(name, array), list(array.shape)] for name, array in sorted(tensors.items())]


def checksum_of_tensors(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for _, array in sorted(tensors.items()):
        digest.update(raw(array))
    return digest.hexdigest()


def checkpoint_chunks(tensors: Tensors, meta: Mapping[str, Any]) -> Chunks:
    """A safetensors file that also holds `meta` and proves tensors and meta intact. Raises ValueError, TypeError."""
    document = {"meta": tagged(meta), "layout": layout_of(tensors), "tensors": checksum_of_tensors(tensors)}
    return tensor_chunks(tensors, {"checkpoint": seal(document).decode()})


def read_checkpoint(path: Path, *, header_only: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors (none if `header_only`) and meta of a checkpoint. Raises Missing, Damaged, StoreError."""
    try:
        with sorted_errors(path), safe_open(path, framework="np") as file:
            document = unseal((file.metadata() or {}).get("checkpoint", "").encode())
            tensors = {} if header_only else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not header_only and layout_of(tensors) != document["layout"]:
            raise Damaged("its header does not describe the tensors that were written")
        if not header_only and checksum_of_tensors(tensors) != document["tensors"]:
            raise Damaged("the checksum of its tensors is wrong")
        return tensors, dict(untagged(document["meta"]))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise Damaged(f"not readable as safetensors: {error}") from error
