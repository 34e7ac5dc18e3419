"""`digits`, the one data set that needs neither file nor network: scikit-learn carries it.

Axes: N images, C = 1 channel, H = W = 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from noise_reg.data.dataset import Dataset, build

SPLIT_SEED = 0
TEST_EVERY = 5
MAX_LEVEL = 16  # of the source's grey levels 0..16
RULE = (
    f"levels 0..{MAX_LEVEL} scaled to 0..255 by rounding level * 255 / {MAX_LEVEL}; split: images shuffled by numpy "
    f"PCG64 of seed {SPLIT_SEED}, stably sorted by class, one in {TEST_EVERY} from the first on is a test image; both "
    "parts keep scikit-learn's order"
)


def load_embedded_digits() -> Dataset:
    """scikit-learn's 1797 digits, 1437 for training and 360 for test: uint8 (N, 1, 8, 8), every class alike in both."""
    # Imported here, for it takes long and no other data set needs it.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    images, labels = np.rint(digits["images"] * 255 / MAX_LEVEL).astype(np.uint8), digits["target"]
    test = is_test(labels)
    arrays = {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }
    provenance = {"source": "embedded", "file": "sklearn.datasets.load_digits", "note": RULE}
    return build("digits", arrays, "sklearn.datasets.load_digits", provenance)


def is_test(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the images (N,) belong to the test part: a fixed, seeded, stratified fifth."""
    shuffled = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    test = np.zeros(len(labels), dtype=np.bool_)
    test[by_class[::TEST_EVERY]] = True
    return test
