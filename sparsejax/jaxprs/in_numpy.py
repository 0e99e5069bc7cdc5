"""Elementwise primitives as NumPy has them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are called


def _select(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.choose(which.astype(np.int32), cases)


def maximum(a: Any, b: Any) -> np.ndarray:
    """The larger; of two zeros the positive one, as XLA has it."""
    return np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))


def minimum(a: Any, b: Any) -> np.ndarray:
    """The smaller; of two zeros the negative one."""
    return -maximum(-a, -b)


# Functions of arrays of equal shape or scalars, without parameters.
ELEMENTWISE: dict[str, Callable] = {
    "abs": np.abs,
    "add": np.add,
    "and": np.logical_and,
    "clamp": lambda low, x, high: minimum(maximum(x, low), high),
    "copy": np.asarray,
    "cos": np.cos,
    "div": np.divide,
    "eq": np.equal,
    "erf": lambda x: scipy.special.erf(x),
    "erfc": lambda x: scipy.special.erfc(x),
    "exp": np.exp,
    "expm1": np.expm1,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": lambda x: scipy.special.expit(x),
    "lt": np.less,
    "max": maximum,
    "min": minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.logical_not,
    "or": np.logical_or,
    "pow": np.power,
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "select_n": _select,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": np.asarray,
    "sub": np.subtract,
    "tanh": np.tanh,
}
