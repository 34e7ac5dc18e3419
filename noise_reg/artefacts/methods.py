"""How methods, architectures and data sets are named, ordered and drawn in every artefact.

Colours are Okabe and Ito's, distinguishable with the common colour-vision deficiencies; dash, marker and filling carry
the same information without colour. A family shares colour hue and marker (in-NINR: blue circles, full-NINR: orange
squares); the decay phase is dashed and hollow, the catapult phase solid and filled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from noise_reg.artefacts.markdown import counted


@dataclass(frozen=True)
class Style:
    """`dash` is matplotlib's (offset, on-off sequence), or '-' for a solid line."""

    colour: str
    dash: str | tuple[float, tuple[float, ...]]
    marker: str
    filled: bool


SOLID = "-"
DASHED = (0, (5, 2))
DOTTED = (0, (1, 1.4))
DASH_DOT = (0, (6, 1.6, 1, 1.6))

METHODS: dict[str, tuple[str, Style]] = {
    "none": ("no regulariser", Style("#000000", SOLID, "x", True)),
    "l2": ("L2", Style("#6e6e6e", DOTTED, "v", False)),
    "dropout": ("Dropout", Style("#CC79A7", DASH_DOT, "P", True)),
    "in_ninr_decay": ("in-NINR (decay)", Style("#56B4E9", DASHED, "o", False)),
    "in_ninr_catapult": ("in-NINR (catapult)", Style("#0072B2", SOLID, "o", True)),
    "full_ninr_decay": ("full-NINR (decay)", Style("#E69F00", DASHED, "s", False)),
    "full_ninr_catapult": ("full-NINR (catapult)", Style("#D55E00", SOLID, "s", True)),
    "cdt_0.2": ("CDT 0.2", Style("#009E73", DOTTED, "^", False)),
    "cdt": ("CDT 0.4", Style("#009E73", DASH_DOT, "^", True)),
    "input_noise": ("N", Style("#009E73", DOTTED, "d", False)),
    "jacobian": ("J", Style("#E69F00", DASHED, "<", False)),
    "nj": ("N+J", Style("#D55E00", SOLID, "D", True)),
    "weight_noise": ("weight noise", Style("#0072B2", SOLID, "o", True)),
    "weight_penalty": ("weight-gradient penalty", Style("#56B4E9", DASHED, "o", False)),
    "label_smoothing": ("label smoothing", Style("#CC79A7", SOLID, "p", True)),
}
SPARE = (
    Style("#8C6D31", SOLID, "D", False),
    Style("#5A4FCF", DASHED, "*", True),
    Style("#B0B000", DASH_DOT, "h", False),
    Style("#7B3F61", DOTTED, "<", True),
)
ARCHS = {"fc": "FC", "cnn": "CNN", "vgg": "VGG", "tanh_mlp": "tanh MLP", "linear": "linear"}
OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam"}
DATASETS = {
    "fmnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "mnist_binary": "MNIST-Binary",
    "usps": "USPS",
    "cifar10": "CIFAR-10",
    "digits": "digits (8×8, scikit-learn)",
}


def label(method: str, reading: str = "") -> str:
    """The method's name for people; a reading other than the default is added: 'in-NINR (catapult), exact loss'."""
    name = METHODS[method][0] if method in METHODS else method
    return f"{name}, {reading}" if reading else name


def arch_name(arch: str) -> str:
    return ARCHS.get(arch, arch)


def training(runs: pd.DataFrame) -> str:
    """'FC 784-1024-10, η = 0.01, B = 1000, d_in = 785, at most 60 epochs': what the rows say of network and training, all of them
    where they differ; what they do not say is left out. d_in counts the constant input."""

    def of(column: str) -> list[str]:
        if column not in runs:
            return []
        found = {str(value) for value in runs[column]} - {"", "nan"}
        return [f"{value:g}" for value in sorted(map(float, found))]

    inputs, classes = of("inputs"), of("classes")
    networks = sorted({str(name) for name in runs.get("network", ())} - {"", "nan"})
    layers = ["-".join([*inputs[:1], name, *classes[:1]]) for name in networks]
    names = " and ".join(sorted({arch_name(str(arch)) for arch in runs["arch"]}))
    words = [f"{names} {' and '.join(layers)}".strip()]
    for sign, values in (("η", of("learning_rate")), ("B", of("batch_size"))):
        words += [f"{sign} = {' and '.join(values)}"] if values else []
    words += [f"d_in = {' and '.join(str(int(value) + 1) for value in inputs)}"] if inputs else []
    words += [f"at most {counted(' and '.join(caps), 'epoch')}" for caps in [of("max_epochs")] if caps]
    return ", ".join(words)


def dataset_name(dataset: str) -> str:
    return DATASETS.get(dataset, dataset)


def rank(name: str, known: Iterable[str]) -> tuple[int, str]:
    """Sorts by the table's order, then unknown names by the alphabet."""
    order = list(known)
    return (order.index(name) if name in order else len(order), name)


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """A style for each method; unknown ones take the spare styles in alphabetical order."""
    wanted = set(methods)
    unknown = sorted(wanted - METHODS.keys())
    spare = {name: SPARE[i % len(SPARE)] for i, name in enumerate(unknown)}
    return spare | {name: METHODS[name][1] for name in METHODS if name in wanted}


def layer(style: Style) -> dict[str, Any]:
    """Line width and place from the back, of lines that may lie on each other: broken ones are thin and above broad solid ones."""
    return {"lw": 3.2, "zorder": 2} if style.dash == SOLID else {"lw": 1.5, "zorder": 3}
