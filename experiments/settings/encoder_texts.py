"""Sentences of CANAO's setting with the teacher's logits: MiniLM with a head on its features."""

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import sentiment
from experiments.models import minilm
from experiments.runs.records import WORK
from experiments.settings.text import Inputs, features, fit_head

TOKENS = 32  # of a sentence; what is longer is cut
TRAIN, JUDGED, TEST = 2_000, 500, 1_000  # sentences


class Texts(NamedTuple):
    """Sentences with the teacher's logits; the first `num_train` are to train with."""

    num_train: int
    params: Any
    inputs: Inputs
    labels: np.ndarray
    logits: np.ndarray
    test_inputs: Inputs
    test_labels: np.ndarray
    test_logits: np.ndarray
    source: str


@functools.cache
def load(folder: Path | None, smoke: bool) -> Texts:
    """The sentences; the teacher is MiniLM with a head that was fitted to its features."""
    data, pretrained = sentiment.movie_sentiment(folder), minilm.load(folder)
    train, judged, test = (32, 32, 32) if smoke else (TRAIN, JUDGED, TEST)
    cut = lambda texts: tuple(array[:, :TOKENS] for array in pretrained.tokenize(list(texts)))
    inputs, labels = cut(data.train_texts[: train + judged]), data.train_labels[: train + judged]
    test_inputs, test_labels = cut(data.test_texts[:test]), data.test_labels[:test]
    params = pretrained.variables["params"]
    both = tuple(np.concatenate(pair) for pair in zip(inputs, test_inputs, strict=True))
    x = _stored_features(params, both, f"{train}-{judged}-{test}")
    head = fit_head(x[:train], labels[:train])
    logits = x @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    known, unseen = logits[: train + judged], logits[train + judged :]
    return Texts(
        train, params, inputs, labels, known, test_inputs, test_labels, unseen, data.source
    )


def _stored_features(params: Any, inputs: Inputs, name: str) -> np.ndarray:
    """MiniLM's features, computed by the first row that needs them."""
    file = WORK / "pretrained" / f"minilm-{TOKENS}-{name}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.part.npy")
        np.save(partial, features(params, inputs))
        partial.replace(file)
    return np.load(file)
