"""What a run is: frozen dataclasses of every config group, their validation, and the key of a run.

A `RunSpec` holds exactly what changes a run's numbers; where it runs, how it is stacked and who watches it are not part
of it. Its key is a hash of these fields, so equal specifications share one stored run. No field has a default here: every
value comes from `conf/` or from the caller.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from noise_reg.errors import SpecError as SpecError  # noqa: PLC0414 - named from here too
from noise_reg.limits import EPOCHS, count

DATASETS = {"fmnist": 10, "mnist": 10, "mnist_binary": 10, "usps": 10, "cifar10": 10, "digits": 10}  # classes of each
CONTENT = re.compile(r"[0-9a-f]{16}")  # what names a user's own data set
OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
ARCHS = ("fc", "tanh_mlp", "linear", "cnn", "vgg")
ACTIVATIONS = {"tanh_mlp": "tanh", "linear": "identity"}  # of hidden dense layers; of all others it is ReLU
CONVOLUTIONAL = ("cnn", "vgg")
OPTIMIZERS = ("sgd", "rmsprop", "adam")
DISTRIBUTIONS = ("gaussian", "uniform", "uniform_matched", "double_gaussian", "laplace", "student_t")
PRECISIONS = ("fp32", "bf16", "tf32", "fp64")  # tf32: on a GPU alone
MAX_SEED = 2**32 - 1
MAX_FLOAT32 = (2 - 2**-23) * 2.0**127
MAX_WHOLE = 2**53  # what a number in JSON and a double hold exactly

# Fields that joined the schema after runs had been stored, with the value those runs had: a run with that value keeps its key.
ADDED_LATER: dict[str, Any] = {
    "dataset.test_images": 0,
    "dataset.content": "",
    "dataset.classes": 10,
    "arch.dropouts": (),
    "arch.conv_decay": 0.0,
    "optimizer.rho": 0.0,
    "optimizer.beta_1": 0.0,
    "optimizer.beta_2": 0.0,
    "optimizer.epsilon": 0.0,
    "distribution.name": "gaussian",
    "distribution.width": 0.0,
    "distribution.weight": 0.5,
    "distribution.df": 0.0,
    "strengths.input_noise": 0.0,
    "strengths.jacobian": 0.0,
    "strengths.jacobian_noise": 0.0,
    "strengths.weight_noise": 0.0,
    "strengths.weight_penalty": 0.0,
    "strengths.label_smoothing": 0.0,
    "reading.jacobian_layer": 0,
    "reading.jacobian_estimator": "exact",
    "reading.jacobian_directions": 1,
    "reading.weight_noise_draw": "batch",
}

Check = Callable[[Any], str | None]


def one_of(*allowed: object) -> Check:
    return lambda value: None if value in allowed else f"one of {', '.join(map(str, allowed))}"


def number(low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False) -> Check:
    """A finite number in an interval; `open_*` excludes the end. Without an upper end it must still be one of float32, in which
    it is computed with, and a whole one must be exact."""

    def check(value: float) -> str | None:
        inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
        if inside and high == math.inf and isinstance(value, int) and value > MAX_WHOLE:
            return f"at most 2^53 = {MAX_WHOLE}"
        if inside and high == math.inf and math.isfinite(value) and value > MAX_FLOAT32:
            return f"at most {MAX_FLOAT32:.4g}, the largest number of float32"
        if inside and math.isfinite(value):
            return None
        if high == math.inf:
            return f"a finite number {'above' if open_low else 'of at least'} {whole(low)}"
        return f"a number in {'(' if open_low else '['}{whole(low)}, {whole(high)}{')' if open_high else ']'}"

    return check


def whole(value: float) -> str:
    """An end of an interval, a whole number with all its digits."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def each(check: Check, *, at_least: int = 0, once: bool = False) -> Check:
    """Every element passes `check`, there are `at_least` so many, and with `once` no two are equal."""

    def check_all(values: tuple[Any, ...]) -> str | None:
        if len(values) < at_least:
            return f"a list of at least {at_least}"
        wrong = [check(value) for value in values if check(value)]
        if wrong:
            return f"a list, each {wrong[0]}"
        twice = [value for value in values if values.count(value) > 1] if once else []
        return f"a list, each once, as {twice[0]} is not" if twice else None

    return check_all


def smoothing(value: float, classes: int) -> str | None:
    """Of label smoothing: below the epsilon at which the true class' target is no larger than the others'."""
    problem = number(0, (classes - 1) / classes, open_high=True)(value)
    return problem and f"{problem}, where the true class keeps the largest target of {classes}"


def checked(check: Check) -> Any:
    return field(metadata={"check": check})


@dataclass(frozen=True)
class DatasetSpec:
    """A data set of ours, named by `name`, or a user's own, named by its `content`; there `name` is but a label.

    content: 16 hexadecimal digits of the SHA-256 of its pixels and labels; '' for ours. classes: how many there are.
    """

    name: str = checked(lambda name: None if OWN_NAME.fullmatch(name) else "a name of letters, digits and . _ + -")
    split_seed: int = checked(number(0, MAX_SEED))  # of the training/validation split
    test_images: int = checked(number(0))  # a run is tested on so many images of each set, the first; 0 means all
    content: str = checked(lambda text: None if not text or CONTENT.fullmatch(text) else "16 hexadecimal digits")
    classes: int = checked(number(2))

    def __post_init__(self) -> None:
        if self.name not in DATASETS and not self.content:
            raise SpecError(f"dataset.name = {self.name}: must be one of {', '.join(DATASETS)}")
        if self.name in DATASETS and self.content:
            raise SpecError(f"dataset.name = {self.name}: is a data set of noise_reg; your own needs another name")
        if self.classes != DATASETS.get(self.name, self.classes):
            raise SpecError(
                f"dataset.classes = {self.classes}: must be {DATASETS[self.name]}, as many as {self.name} has"
            )


@dataclass(frozen=True)
class Convolution:
    """One convolution of an architecture: its filters, what follows it, and its own dropout (0: none) after the pooling."""

    filters: int
    pooled: bool
    dropout: float


@dataclass(frozen=True)
class ArchSpec:
    """fc: `widths` hidden ReLU layers; tanh_mlp and linear: the same with tanh and with no activation at all. cnn: one convolution block for each of `filters`, then dense `widths`. vgg: two convolutions a
    block; `dropouts` are the blocks' own and `conv_decay` the L2 strength on its convolutions, whatever the regulariser."""

    name: str = checked(one_of(*ARCHS))
    widths: tuple[int, ...] = checked(each(number(1)))
    filters: tuple[int, ...] = checked(each(number(1)))
    kernel: int = checked(number(0, 28))
    padding: str = checked(one_of("same", "valid", "none"))
    dropouts: tuple[float, ...] = checked(each(number(0, 1, open_high=True)))
    conv_decay: float = checked(number(0))

    @property
    def activation(self) -> str:
        """Of the hidden dense layers: relu, tanh or identity."""
        return ACTIVATIONS.get(self.name, "relu")

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Every convolution in its order."""
        if self.name != "vgg":
            return tuple(Convolution(filters, True, 0.0) for filters in self.filters)
        pairs = zip(self.filters, self.dropouts, strict=True)
        return tuple(c for f, p in pairs for c in (Convolution(f, False, 0.0), Convolution(f, True, p)))

    def shapes(self, image: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        """(C, H, W) that enters each convolution, then what leaves the last. Raises SpecError where nothing is left of the images."""
        shapes, lost = [image], 0 if self.padding == "same" else self.kernel - 1
        for convolution in self.convolutions:
            down, (_, height, width) = 2 if convolution.pooled else 1, shapes[-1]
            shapes.append((convolution.filters, (height - lost) // down, (width - lost) // down))
            if min(shapes[-1]) < 1:
                raise SpecError(
                    f"arch.filters = {list(self.filters)}: too many blocks for images of {image[1]} x {image[2]} pixels, of which "
                    f"convolution {len(shapes) - 1} leaves nothing (arch.kernel = {self.kernel}, arch.padding = {self.padding})"
                )
        return shapes

    def __post_init__(self) -> None:
        convolutional, vgg = self.name in CONVOLUTIONAL, self.name == "vgg"
        for field_name, value, right, wanted, must, otherwise in (
            ("filters", list(self.filters), bool(self.filters) == convolutional, convolutional, "at least one number", "[]"),
            ("kernel", self.kernel, (self.kernel > 0) == convolutional, convolutional, "at least 1", "0"),
            ("padding", self.padding, (self.padding != "none") == convolutional, convolutional, "same or valid", "none"),
            ("dropouts", list(self.dropouts), len(self.dropouts) == len(self.filters) * vgg, vgg, "one number for each of arch.filters", "[]"),
            ("conv_decay", self.conv_decay, vgg or self.conv_decay == 0, vgg, "at least 0", "0"),
        ):  # fmt: skip
            if not right:
                allowed = must if wanted else otherwise
                raise SpecError(f"arch.{field_name} = {value}: must be {allowed} for arch.name = {self.name}")


@dataclass(frozen=True)
class Strengths:
    """The strength of every regulariser; 0 is off and exactly the identity.

    weight_decay: lambda of L2. dropout: probability p of dropping. cdt: sigma_noise of Eq. 8 on the training inputs.
    nin_input, nin_hidden: standard deviation sigma_epsilon of the noise at the input's node and at the hidden layers' nodes.
    input_noise: standard deviation of the noise added to the standardised training inputs. jacobian: lambda of the penalty on
    the Jacobian's squared norm; jacobian_noise: standard deviation of the noise added to the input of that penalty alone (N+J).
    weight_noise: variance eta of the noise on weights and biases. weight_penalty: eta of the explicit penalty on the squared
    norm of the outputs' gradients by them. label_smoothing: epsilon, shared by the K - 1 other classes.
    """

    weight_decay: float = checked(number(0))
    dropout: float = checked(number(0, 1, open_high=True))
    cdt: float = checked(number(0, 1))
    nin_input: float = checked(number(0))
    nin_hidden: float = checked(number(0))
    input_noise: float = checked(number(0))
    jacobian: float = checked(number(0))
    jacobian_noise: float = checked(number(0))
    weight_noise: float = checked(number(0))
    weight_penalty: float = checked(number(0))
    label_smoothing: float = checked(number(0, 1, open_high=True))


@dataclass(frozen=True)
class OptimizerSpec:
    """rho and epsilon of RMSprop, beta_1, beta_2 and epsilon of Adam (NINR paper, App. C.3); 0 where they play no part."""

    name: str = checked(one_of(*OPTIMIZERS))
    learning_rate: float = checked(number(0, open_low=True))
    batch_size: int = checked(number(1))
    rho: float = checked(number(0, 1, open_high=True))
    beta_1: float = checked(number(0, 1, open_high=True))
    beta_2: float = checked(number(0, 1, open_high=True))
    epsilon: float = checked(number(0))

    def __post_init__(self) -> None:
        used = {"sgd": (), "rmsprop": ("rho", "epsilon"), "adam": ("beta_1", "beta_2", "epsilon")}[self.name]
        for name in ("rho", "beta_1", "beta_2", "epsilon"):
            value = getattr(self, name)
            if (name in used) != (value > 0):
                must = "above 0" if name in used else "0"
                raise SpecError(f"optimizer.{name} = {value}: must be {must} for optimizer.name = {self.name}")


@dataclass(frozen=True)
class ReadingSpec:
    """The open points of the papers that change a training (numbers of PAPERS.md's list in brackets)."""

    # [1] divide by the variance, as printed, or by the deviation; none: pixels in [0, 1] as they are
    standardize: str = checked(one_of("variance", "std", "none"))
    standardize_per: str = checked(one_of("global", "pixel"))  # [1]
    # [2] cross-entropy of Keras' probabilities, clamped to [1e-7, 1 - 1e-7], or exact; squared: the error of the outputs against
    # the one-hot targets, summed over the classes
    loss: str = checked(one_of("clamped", "exact", "squared"))
    batch_norm: str = checked(one_of("keras", "pytorch"))  # [3] momentum .99 and eps 1e-3, or .9 (torch: .1) and 1e-5
    conv_fan_in: str = checked(
        one_of("patch", "channels")
    )  # [4] d of a convolution: kernel area x channels, or channels
    train_fraction: float = checked(number(0, 1, open_low=True))  # [5] of the training images; the rest is validation
    stop_measure: str = checked(
        one_of("running", "clean")
    )  # [8] over the epoch with noise on, or after it with noise off
    l2_on: str = checked(one_of("weights", "weights_niw", "all"))  # [9]
    l2_form: str = checked(one_of("half", "keras"))  # [9] gradient lambda W (weight decay), or 2 lambda W (Keras' l2)
    dropout_input: bool = checked(one_of(True, False))  # [9]
    full_noise: str = checked(one_of("each", "shared"))  # [10] one epsilon a layer, or one for all layers
    output_nin: bool = checked(one_of(True, False))  # [10] full-NINR: the layer into the output has a node too
    noise_redraw: str = checked(one_of("epoch", "once"))  # [11]
    jacobian_layer: int = checked(number(0))  # [17] of the outputs (0) or of so many a hidden layer
    jacobian_estimator: str = checked(
        one_of("exact", "projection", "hutchinson")
    )  # [17] over all outputs, or along random directions
    jacobian_directions: int = checked(count(1))  # [17] a sample (projection) or a mini-batch
    weight_noise_draw: str = checked(one_of("batch", "sample"))  # [18] one draw a mini-batch, or one a sample


@dataclass(frozen=True)
class DistributionSpec:
    """Of the noise at NINR's nodes, in units of sigma_epsilon (NINR paper, App. C.2) [12].

    double_gaussian: peaks at +-1 of standard deviation `width`, the upper one with probability `weight`.
    student_t: `df` degrees of freedom, scaled to variance 1. uniform has variance 1/3, as printed; all others but
    double_gaussian have variance 1. Where a field plays no part it has its neutral value.
    """

    name: str = checked(one_of(*DISTRIBUTIONS))
    width: float = checked(number(0))
    weight: float = checked(number(0, 1))
    df: float = checked(number(0))

    def __post_init__(self) -> None:
        double, student = self.name == "double_gaussian", self.name == "student_t"
        for name, right, must in (
            ("width", double or self.width == 0, "0"),
            ("weight", double or self.weight == 0.5, "0.5"),
            ("df", self.df > 2 if student else self.df == 0, "above 2" if student else "0"),
        ):
            if not right:
                value = getattr(self, name)
                raise SpecError(f"distribution.{name} = {value}: must be {must} for distribution.name = {self.name}")


@dataclass(frozen=True)
class RunSpec:
    dataset: DatasetSpec
    arch: ArchSpec
    strengths: Strengths
    optimizer: OptimizerSpec
    reading: ReadingSpec
    distribution: DistributionSpec
    max_epochs: int = checked(count(1, EPOCHS))
    stop_accuracy: float = checked(
        number(0, 1, open_low=True)
    )  # training accuracy at which a run ends; 1 needs all right
    precision: str = checked(one_of(*PRECISIONS))
    seed: int = checked(number(0, MAX_SEED))

    def __post_init__(self) -> None:
        arch, strengths, reading = self.arch, self.strengths, self.reading
        if problem := smoothing(strengths.label_smoothing, self.dataset.classes):
            raise SpecError(f"regularizer.label_smoothing = {strengths.label_smoothing}: must be {problem}")
        dense = ", ".join(name for name in ARCHS if name not in CONVOLUTIONAL)
        for name in ("jacobian", "weight_penalty"):
            if getattr(strengths, name) > 0 and arch.name in CONVOLUTIONAL:
                raise SpecError(
                    f"regularizer.{name} = {getattr(strengths, name)}: must be 0 for arch.name = {arch.name}, whose batch norm in "
                    f"training makes an output depend on the other samples; architectures without it: {dense}"
                )
        if strengths.jacobian_noise > 0 and strengths.jacobian == 0:
            raise SpecError(
                f"regularizer.jacobian_noise = {strengths.jacobian_noise}: must be 0 where regularizer.jacobian = 0: it "
                "enters that penalty alone"
            )
        if strengths.jacobian > 0 and reading.jacobian_layer > len(arch.widths):
            raise SpecError(
                f"reading.jacobian_layer = {reading.jacobian_layer}: must be 0 (the outputs) or a hidden layer from 1 to "
                f"{len(arch.widths)}, as many as arch.widths = {list(arch.widths)} has"
            )
        if strengths.weight_noise > 0 and reading.weight_noise_draw == "sample" and arch.name in CONVOLUTIONAL:
            raise SpecError(
                f"reading.weight_noise_draw = sample: must be batch for arch.name = {arch.name}; sample is for {dense}"
            )

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this run: a hash of every field that changes its numbers."""
        idle = self.idle()
        if self.dataset.content:
            idle = (*idle, "dataset.name")  # the content says which data these are, whatever they are called
        flat = flatten(dataclasses.asdict(self))
        return digest({n: v for n, v in flat.items() if not is_neutral(n, v) and not n.startswith(idle)})

    def idle(self) -> tuple[str, ...]:
        """The beginnings of those fields' names, of fields added later, that change nothing at these strengths."""
        strengths, reading = self.strengths, self.reading
        noise = (strengths.nin_input, strengths.nin_hidden, strengths.input_noise, strengths.jacobian_noise)
        return tuple(
            name
            for name, plays in (
                ("reading.jacobian_", strengths.jacobian > 0),
                ("reading.jacobian_directions", reading.jacobian_estimator != "exact"),
                ("reading.weight_noise_draw", strengths.weight_noise > 0),
                ("distribution.", any(noise)),
            )
            if not plays
        )

    def stack_key(self) -> str:
        """Runs with equal stack keys have tensors of the same shapes and steps, so they train together."""
        flat = flatten(dataclasses.asdict(self))
        return digest({n: v for n, v in flat.items() if n != "seed" and not n.startswith("strengths.")})

    def replace(self, **changes: Any) -> RunSpec:
        return parse(RunSpec, {**dataclasses.asdict(self), **changes})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def is_neutral(name: str, value: Any) -> bool:
    return (name.startswith("strengths.") and value == 0) or (name in ADDED_LATER and value == ADDED_LATER[name])


def digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


T = TypeVar("T")


def parse(cls: type[T], tree: Mapping[str, Any], where: str = "") -> T:
    """The dataclass `cls` from a plain mapping, checked: unknown, missing, ill-typed and impossible values raise SpecError."""
    if not isinstance(tree, Mapping):
        raise SpecError(f"{where.rstrip('.') or cls.__name__} = {tree!r}: a mapping is needed")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in tree:
        if name not in fields:
            raise SpecError(f"{where}{name}: unknown key; known are {', '.join(fields)}")
    hints = get_type_hints(cls)
    tree = with_defaults(before(cls, where), tree)
    values: dict[str, Any] = {}
    for name, spec_field in fields.items():
        hint = hints[name]
        if tree.get(name) is None:
            if hint != (str | None):
                raise SpecError(f"{where}{name}: must be given")
            values[name] = None
            continue
        value = tree[name]
        if dataclasses.is_dataclass(hint):
            values[name] = parse(hint, value, f"{where}{name}.")  # type: ignore[arg-type]
            continue
        value = convert(value, hint, where + name)
        problem = spec_field.metadata["check"](value)
        if problem:
            if hint in (int, tuple[int, ...]):
                problem = problem.replace("a finite number", "a whole number").replace(
                    "a number in", "a whole number in"
                )
            shown = list(value) if isinstance(value, tuple) else value
            raise SpecError(f"{where}{name} = {shown}: must be {problem}")
        values[name] = value
    return cls(**values)


def before(cls: type, where: str) -> dict[str, Any]:
    """What runs had that were stored before a field joined the schema; it stands where a tree does not name the field."""
    if cls is not RunSpec or where:
        return {}
    known: dict[str, Any] = {}
    for path, value in ADDED_LATER.items():
        *groups, name = path.split(".")
        place = known
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return known


def with_defaults(defaults: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree`, with what only `defaults` has, at any depth."""
    merged = {**defaults, **tree}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(merged[name], Mapping):
            merged[name] = with_defaults(value, merged[name])
    return merged


def shortened(value: int) -> str:
    """A whole number of any length (Python refuses to print very long ones) for a message."""
    return str(value) if abs(value) < 10**30 else f"a number of {value.bit_length()} bits"


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type, refusing what would change it (1.5 as int, 'yes' as bool, 3 as text)."""
    if hint in (tuple[int, ...], tuple[float, ...]):
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise SpecError(f"{where} = {value!r}: must be a list")
        return tuple(convert(item, hint.__args__[0], where) for item in value)
    hint = str if hint == (str | None) else hint
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_FLOAT32:  # float() itself knows none above 1.8e308
            raise SpecError(
                f"{where} = {shortened(value)}: must be at most {MAX_FLOAT32:.4g}, the largest number of float32"
            )
        return float(value)
    if type(value) is not hint:
        noun = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[hint]
        raise SpecError(f"{where} = {value!r}: must be {noun}")
    return value
