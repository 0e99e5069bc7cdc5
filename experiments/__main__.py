"""The experiments' command line: list, run, table. See experiments/papers/suite.py."""

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TimeRemainingColumn

from experiments.data.datasets import DATASETS
from experiments.pages import decided, download, explorer, methods_page, readme, searches
from experiments.papers import suite
from experiments.runs.engines import Task, place_of, spawn, tasks_of, work
from experiments.runs.ray_engine import work_on_ray
from experiments.runs.records import ROOT, Store
from experiments.runs.scalars import also_to_tensorboard
from experiments.runs.table import Interrupted, Paper


@dataclass(frozen=True)
class List:
    """List the papers with how much of each is run."""

    def main(self) -> None:
        """Print them; exits with 1 if there are damaged records, which it names."""
        store, damaged = Store(), {}
        for paper in suite.TABLES:
            wanted = sum(row.seeds for row in paper.ROWS)
            there, unreadable = look(paper, store)
            damaged |= unreadable
            print(f"{suite.name_of(paper):28} {there:3}/{wanted:<3} {paper.TITLE}")
        if damaged:
            sys.exit("\n".join(damaged))


def look(paper: Paper, store: Store) -> tuple[int, dict[str, None]]:
    """How many of a paper's records are there, and what is the matter with those not counted."""
    there, damaged = 0, {}
    for row in paper.ROWS:
        for seed in store.seeds(row.setting):
            try:
                store.read(row.setting, seed)
                there += seed < row.seeds
            except ValueError as error:
                damaged[str(error)] = None
    return there, damaged


@dataclass(frozen=True)
class Run:
    """Run what is left of some papers' rows; Ctrl-C saves, the same command goes on."""

    papers: tyro.conf.Positional[tuple[str, ...]]
    """Names as in `list`, or all."""
    smoke: bool = False
    """A few steps on little data, to see that it works; nothing is kept."""
    seeds: int | None = None
    """Seeds of every row, instead of what the rows say."""
    data: Literal[tuple(loader.__name__ for loader in DATASETS)] | None = None  # type: ignore[valid-type]
    """Another data set for the rows that have one."""
    data_folder: Path | None = None
    """Where your own data sets are."""
    jobs: int = 1
    """Processes, each with its share of the cores."""
    tensorboard: Path | None = None
    """Folder for tensorboard scalars of the local engine."""
    engine: Literal["local", "ray"] = "local"
    """Where: on this machine, or on the ray cluster of $RAY_ADDRESS."""

    def main(self) -> None:
        """Run; exits with 130 after Ctrl-C and with 1 if a row failed."""
        papers, console = suite.find(self.papers), Console()
        if self.jobs > 1 and not self.smoke:
            sys.exit(spawn(self.jobs, replace(self, jobs=1).arguments()))
        loader = next((loader for loader in DATASETS if loader.__name__ == self.data), None)
        tasks = tasks_of(papers, seeds=1 if self.smoke else self.seeds, data=loader)
        place = place_of(smoke=self.smoke, data=self.data_folder)
        show = Show(console, len(tasks))
        try:
            if self.engine == "ray":
                failed = work_on_ray(tasks, place, done=show.done)
            else:
                start = show.start if self.tensorboard is None else self._with_scalars(show.start)
                failed = work(tasks, place, start=start, done=show.done)
        except Interrupted as stop:
            console.print(f"Stopped {stop}. Saved; the same command goes on from there.")
            sys.exit(130)
        finally:
            show.close()
            if self.smoke:
                shutil.rmtree(place.work)
        sys.exit(failed > 0)

    def _with_scalars(self, start):
        return lambda task: also_to_tensorboard(start(task), self.tensorboard, task)

    def arguments(self) -> list[str]:
        """The command line that makes these options."""
        options = ["run", *self.papers, *["--smoke"] * self.smoke]
        for name in ("seeds", "data", "data_folder", "tensorboard"):
            value = getattr(self, name)
            options += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        return options


@dataclass(frozen=True)
class Table:
    """Write the pages of the experiments, their pictures and records.csv from the records."""

    def main(self) -> None:
        """Write them, unless there are damaged records, which it names."""
        if damaged := {error: None for paper in suite.TABLES for error in look(paper, Store())[1]}:
            sys.exit("\n".join([*damaged, "Nothing is written."]))
        begun = [paper for paper in suite.GRIDS if look(paper, Store())[0]]
        papers = [*suite.PAPERS, *begun]
        names = [suite.name_of(paper) for paper in papers]
        readme.write(papers, names, Store())
        methods_page.write(Store())
        for paper, name in zip(papers, names, strict=True):
            searches.write(paper, name, Store())
        decided.write(papers, Store())
        explorer.write(papers, Store())
        download.write(papers, names, Store())
        pages = (readme.README, methods_page.FILE, decided.FILE, explorer.FILE, download.FILE)
        print(f"Written: {', '.join(str(page.relative_to(ROOT)) for page in pages)}")


class Show:
    """A progress bar on a terminal, a line per finished task elsewhere."""

    def __init__(self, console: Console, num_tasks: int):
        columns = ("{task.description}", BarColumn(), "{task.completed}/{task.total}")
        self._console = console
        self._progress = Progress(
            *columns, "{task.fields[text]}", TimeRemainingColumn(), console=console
        )
        self._bar: TaskID | None = None
        self._started = time.monotonic()
        if console.is_terminal:
            self._progress.start()
        console.print(f"{num_tasks} tasks, of which those without a record are run")

    def start(self, task: Task):
        """Show a new task; gives what it reports to."""
        self._started = time.monotonic()
        self._bar = bar = self._progress.add_task(f"{task.name} seed {task.seed}", text="")

        def report(done: int, total: int, numbers: Mapping[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            self._progress.update(bar, completed=done, total=total, text=text)

        return report

    def done(self, task: Task, result: dict | None) -> None:
        """Print how a task ended."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        headline = task.setting.headline
        ending = "FAILED" if result is None else f"{headline} {result[headline]:.4f}"
        seconds = time.monotonic() - self._started
        self._console.print(f"{task.setting.label} seed {task.seed}: {ending} ({seconds:.0f} s)")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._console.is_terminal:
            self._progress.stop()


def main() -> None:
    command = tyro.cli(
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Table, tyro.conf.subcommand("table")],
        description=__doc__,
    )
    command.main()


if __name__ == "__main__":
    main()
