"""DeepPeep's two stages: the family of a network's blocks by its execution, then their setting."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sparsejax import text


class Observations(NamedTuple):
    """Networks that an attacker built, and what their execution showed.

    Attributes:
        features: of each, as `execution_features` gives them.
        families: of their blocks.
        settings: the hyper-parameter of their blocks, such as a number of groups.
        groups: which of them must never be on both sides of a split, such as those of one depth and
            width: a classifier that knows the skeleton of a network from training knows too much.
    """

    features: Sequence[Mapping[str, float]]
    families: Sequence[str]
    settings: Sequence[Any]
    groups: Sequence[Any]


class Score(NamedTuple):
    """How often a guess was right on networks that it was not fitted to, and blind guesses are."""

    accuracy: float
    chance: float


@dataclass(frozen=True)
class Attack:
    """A fitted attack, with what it is worth.

    Attributes:
        names: of the features.
        stage1: the classifier of families, fitted to all networks.
        stage2: of each family that of its setting.
        family: how well families are told.
        settings: of each family how well its setting is.
        confusion: (family, guess) -> how often.
    """

    names: tuple[str, ...]
    stage1: Any
    stage2: Mapping[str, Any]
    family: Score
    settings: Mapping[str, Score]
    confusion: Mapping[tuple[str, str], int]

    def confidence(self, features: Mapping[str, float]) -> dict[str, float]:
        """The probability of each family."""
        (row,) = self.stage1.predict_proba(_matrix([features], self.names))
        return dict(zip(map(str, self.stage1.classes_), row.tolist(), strict=True))

    def setting(self, features: Mapping[str, float], family: str) -> Any:
        """The setting of the blocks, if they are of this family."""
        (place,) = self.stage2[family].predict(_matrix([features], self.names))
        return place

    def __str__(self) -> str:
        """A row for each family: how often it is told, its setting told, and taken for which."""
        rows = []
        for family, score in self.settings.items():
            row = {guess: n for (own, guess), n in self.confusion.items() if own == family}
            told = row.get(family, 0) / sum(row.values())
            others = sorted((n, guess) for guess, n in row.items() if guess != family)
            most = others[-1][1] if others else ""
            rows.append((family, f"{told:.0%}", most, *(f"{value:.0%}" for value in score)))
        caption = f"Family told in {self.family.accuracy:.0%}, by chance {self.family.chance:.0%}."
        columns = ("family", "told", "else", "setting told", "by chance")
        return str(text.table("Attack", columns, rows, caption=caption))


def family_attack(
    seen: Observations, *, estimator: Any = None, folds: int = 5, seed: int = 0
) -> Attack:
    """The attack of an observer who trained on these networks, and how well it does on others.

    Stage 1 tells the family of a network's blocks by its features, stage 2 their setting within a
    family. Accuracies are those of cross-validation that keeps each group on one side; the chance
    level is that of always guessing the most frequent answer.

    Args:
        seen: the attacker's own networks.
        estimator: any scikit-learn classifier, by default a random forest of 100 trees.
        folds: of the cross-validation; no more than there are groups.
        seed: of the default estimator.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: there are fewer than two groups or families, or features differ.

    Example:
        >>> attack = sj.audit.family_attack(seen)                           # doctest: +SKIP
        >>> attack.confidence(sj.audit.execution_features(fn, x))           # doctest: +SKIP

    Reference:
        Jha et al., "DeepPeep", ACM JETC 2020, arXiv:2007.15248. Two stages are in its abstract; the
        classifiers and their features are a reconstruction.
    """
    sklearn = _sklearn()
    names = _names(seen)
    estimator = estimator or _forest(sklearn, seed)
    matrix, families = _matrix(seen.features, names), np.asarray(seen.families)
    guesses = _guesses(sklearn, estimator, matrix, matrix, families, seen.groups, folds)
    stage2, settings = {}, {}
    for family in dict.fromkeys(seen.families):
        own = np.flatnonzero(families == family)
        answers = np.asarray(seen.settings)[own]
        groups = [seen.groups[i] for i in own.tolist()]
        told = _guesses(sklearn, estimator, matrix[own], matrix[own], answers, groups, folds)
        stage2[family] = sklearn.clone(estimator).fit(matrix[own], answers)
        settings[family] = _score(told, answers)
    confusion = Counter(zip(families.tolist(), guesses.tolist(), strict=True))
    stage1 = sklearn.clone(estimator).fit(matrix, families)
    return Attack(names, stage1, stage2, _score(guesses, families), settings, confusion)


def transferred(
    seen: Observations,
    others: Observations,
    *,
    estimator: Any = None,
    folds: int = 5,
    seed: int = 0,
) -> Score:
    """How well families are told in another way to run, by an attacker who knows the first alone.

    Args:
        seen: networks as the attacker ran them.
        others: the same networks in the same order, as they run where they are attacked, such as
            pruned, or by `sj.compile`.
        estimator, folds, seed: as in `family_attack`.
    """
    sklearn = _sklearn()
    names = _names(seen)
    families = np.asarray(seen.families)
    if list(seen.families) != list(others.families):
        raise ValueError(
            "transferred needs the same networks twice, in one order; their families differ."
        )
    fitted, asked = _matrix(seen.features, names), _matrix(others.features, names)
    estimator = estimator or _forest(sklearn, seed)
    guesses = _guesses(sklearn, estimator, fitted, asked, families, seen.groups, folds)
    return _score(guesses, families)


def _guesses(
    sklearn: Any,
    estimator: Any,
    fitted: Float[np.ndarray, "n k"],
    asked: Float[np.ndarray, "n k"],
    answers: np.ndarray,
    groups: Sequence[Any],
    folds: int,
) -> np.ndarray:
    """The answer for each network by an estimator that was fitted to other groups."""
    guesses = np.empty_like(answers)
    folds = min(folds, len(set(groups)))
    splits: Iterator = sklearn.GroupKFold(folds).split(fitted, answers, groups)
    for inside, outside in splits:
        model = sklearn.clone(estimator).fit(fitted[inside], answers[inside])
        guesses[outside] = model.predict(asked[outside])
    return guesses


def _score(guesses: np.ndarray, answers: np.ndarray) -> Score:
    most = max(Counter(answers.tolist()).values())
    return Score(float(np.mean(guesses == answers)), most / len(answers))


def _names(seen: Observations) -> tuple[str, ...]:
    """The features' names, of observations that an attack can be fitted to."""
    if len(set(seen.groups)) < 2 or len(set(seen.families)) < 2:
        raise ValueError(
            f"family_attack needs two or more groups and families, got {len(set(seen.groups))} and "
            f"{len(set(seen.families))}; observe more networks."
        )
    return tuple(seen.features[0])


def _matrix(
    features: Sequence[Mapping[str, float]], names: Sequence[str]
) -> Float[np.ndarray, "n k"]:
    for row in features:
        if set(row) != set(names):
            raise ValueError(
                f"an attack needs the features that it was fitted to, {', '.join(names)}; got "
                f"{', '.join(row)}."
            )
    return np.array([[row[name] for name in names] for row in features])


def _forest(sklearn: Any, seed: int) -> Any:
    return sklearn.RandomForestClassifier(100, min_samples_leaf=2, random_state=seed)


def _sklearn() -> Any:
    """What is used of scikit-learn."""
    try:
        from sparsejax.audit import _sklearn as used
    except ImportError as error:
        raise ImportError(
            "sj.audit needs scikit-learn, which is not installed; pip install 'sparsejax[audit]'."
        ) from error
    return used
