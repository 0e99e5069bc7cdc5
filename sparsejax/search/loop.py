"""The loop of every search: ask, evaluate, tell, and keep each trial so that a kill costs one."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from sparsejax.search.samplers import (
    Sampler,
    Trial,
    distributions,
    frozen_trial,
    imported_optuna,
)
from sparsejax.search.space import Choice

Report = Callable[[int, int, Mapping[str, float]], None]
STUDY = "search"  # its name in a file


def optimize(
    evaluate: Callable[[Choice], Mapping[str, float]],
    sampler: Sampler,
    *,
    num_trials: int,
    file: str | Path | None = None,
    report: Report | None = None,
) -> list[Trial]:
    """All trials of a search for the choice with the highest score, in their order.

    A search that was stopped or killed goes on with the next trial when it is called again with its
    file, and what comes out is what would have come without the interruption.

    Args:
      evaluate: `evaluate(choice) -> numbers`, of which "score" is maximised; whatever else it
        measures (accuracy, multiply_adds, milliseconds) is kept beside it.
      sampler: `random_search(...)`, `tpe(...)` or `ddpg(...)`.
      num_trials: in all, those in the file included.
      file: Optuna's journal, of one process at a time, which its tools read, too; None keeps
        nothing.
      report: called as report(done, num_trials, numbers) with those of the best trial so far; None
        shows a progress bar on a terminal.

    Raises:
      ValueError: the file has a search of another space, or a score is no finite number.
      ImportError: there is a file, and optuna is missing: pip install "sparsejax[search]".

    Example:
      >>> sampler = sj.search.random_search({"x": range(4)}, seed=0)
      >>> square = lambda choice: {"score": -float(choice["x"] - 2) ** 2}
      >>> sj.search.best(sj.search.optimize(square, sampler, num_trials=20)).choice
      {'x': 2}
    """
    stored = _Stored(Path(file), sampler) if file else None
    trials = stored.trials() if stored else []
    state = sampler.init()
    for trial in trials:
        state = sampler.tell(state, trial)
    with _shown(report) as show:
        for number in range(len(trials), num_trials):
            choice = sampler.ask(state, number)
            numbers = {name: float(value) for name, value in evaluate(choice).items()}
            trial = Trial(number, choice, _score(numbers, choice), numbers)
            state = sampler.tell(state, trial)
            trials.append(trial)
            if stored:
                stored.add(trial)
            show(number + 1, num_trials, best(trials).numbers)
    return trials


def best(trials: list[Trial]) -> Trial:
    """The trial of the highest score; the first of several.

    Raises:
      ValueError: there is none.
    """
    if not trials:
        raise ValueError("best needs a trial, got none.")
    return max(trials, key=lambda trial: trial.score)


def _score(numbers: Mapping[str, float], choice: Choice) -> float:
    score = numbers.get("score", math.nan)
    if not math.isfinite(score):
        raise ValueError(
            f"optimize needs a finite score of evaluate, got {numbers} for {choice}; give what "
            "cannot be measured a low one."
        )
    return score


class _Stored:
    """The trials in Optuna's journal, a line each; what a kill left of a line is cut off."""

    def __init__(self, file: Path, sampler: Sampler):
        optuna = imported_optuna()
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.read_bytes() if file.exists() else b""
        if not written.endswith(b"\n"):  # Optuna would write on behind it
            file.write_bytes(written[: written.rfind(b"\n") + 1])
        backend = optuna.storages.journal.JournalFileBackend(str(file))
        self._study = optuna.create_study(
            study_name=STUDY,
            storage=optuna.storages.JournalStorage(backend),
            direction="maximize",
            load_if_exists=True,
        )
        self._own = distributions(sampler.space)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.distributions != self._own:
                raise ValueError(
                    f"{file} has trials of another space, {', '.join(trial.params)}; delete it, or "
                    "name another file."
                )

    def trials(self) -> list[Trial]:
        found = self._study.get_trials(deepcopy=False)
        return [Trial(t.number, t.params, float(t.value), t.user_attrs) for t in found]

    def add(self, trial: Trial) -> None:
        self._study.add_trial(frozen_trial(trial, self._own))


@contextlib.contextmanager
def _shown(report: Report | None) -> Iterator[Report]:
    """The user's function, or one that moves a bar on a terminal."""
    if report is not None:
        yield report
        return
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), "{task.completed}/{task.total}")
    progress: Any = Progress(
        *columns,
        "{task.fields[text]}",
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        bar = progress.add_task("search", text="")

        def show(done: int, total: int, numbers: Mapping[str, float]) -> None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            progress.update(bar, completed=done, total=total, text=f"best: {text}")

        yield show
