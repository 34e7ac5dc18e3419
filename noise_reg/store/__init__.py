"""The store of runs. Nothing in here imports torch before a model is asked for."""

from noise_reg.atomic import StoreError
from noise_reg.store.store import EVALUATION_COLUMNS, RUN_COLUMNS, Store

__all__ = ["EVALUATION_COLUMNS", "RUN_COLUMNS", "Store", "StoreError"]
