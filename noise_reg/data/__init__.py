"""Data sets as uint8 tensors, their split into training and validation, and their standardisation."""

from noise_reg.data.catalogue import load, resolve_data_dir
from noise_reg.data.dataset import DataError, Dataset
from noise_reg.data.own import register
from noise_reg.data.rescale import to_field
from noise_reg.data.splits import split, split_digest
from noise_reg.data.standardizer import Standardizer

__all__ = [
    "DataError",
    "Dataset",
    "Standardizer",
    "load",
    "register",
    "resolve_data_dir",
    "split",
    "split_digest",
    "to_field",
]
