"""Engines: they run tasks, in this process or in several pinned ones."""

import dataclasses
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

import sparsejax as sj
from experiments.runs.cores import bind, usable_cores
from experiments.runs.records import WORK, Store, claim, commit, slug
from experiments.runs.table import Interrupted, Job, Paper, Setting
from sparsejax.memory import give_memory_back

Report = Callable[[int, int, Mapping[str, float]], None]


class Task(NamedTuple):
    """One seed of one setting; `name` is for people."""

    name: str
    setting: Setting
    seed: int


def tasks_of(
    papers: Iterable[Paper], *, seeds: int | None, data: Callable | None = None
) -> list[Task]:
    """All tasks of the papers: seed 0 of every row first; each setting once.

    Args:
        papers: in this order within a seed.
        seeds: as many for each row instead of what the row says.
        data: another data set for the settings that have one.
    """
    tasks: dict[tuple[str, int], Task] = {}
    for paper in papers:
        for row in paper.ROWS:
            setting = row.setting if data is None else with_data(row.setting, data)
            for seed in range(row.seeds if seeds is None else seeds):
                tasks.setdefault((slug(setting), seed), Task(row.name, setting, seed))
    return sorted(tasks.values(), key=lambda task: task.seed)


def with_data(setting: Setting, data: Callable) -> Setting:
    """The setting on another data set, if it has a field for it."""
    fields = {field.name for field in dataclasses.fields(setting)}  # type: ignore[arg-type]
    return dataclasses.replace(setting, data=data) if "data" in fields else setting  # type: ignore[type-var]


class Place(NamedTuple):
    """Where records and checkpoints go; `data` is the folder with the user's own data sets."""

    store: Store
    work: Path
    data: Path | None
    smoke: bool

    def checkpoints(self, task: Task) -> Path:
        """The folder of a task's checkpoints."""
        return self.work / slug(task.setting) / f"seed{task.seed}"


def place_of(*, smoke: bool, data: Path | None) -> Place:
    """The usual place, or for smoke runs an empty one."""
    if not smoke:
        return Place(Store(), WORK, data, smoke)
    folder = WORK / f"smoke-{os.getpid()}"
    return Place(Store(folder / "results"), folder, data, smoke)


def run_task(task: Task, place: Place, report: Report) -> dict:
    """The result of one task, from its checkpoint if there is one."""
    sj.keep_freed_memory()
    # Rows of one net share most programs, and a run that goes on has all of them.
    jax.config.update("jax_compilation_cache_dir", str((WORK / "xla").absolute()))
    folder = place.checkpoints(task)
    job = Job(task.seed, place.smoke, place.data, folder, report)
    try:
        return task.setting.run(job)
    finally:
        # A sweep of many tasks would keep all their programs, and the memory of the largest.
        jax.clear_caches()
        give_memory_back()


def work(
    tasks: Sequence[Task],
    place: Place,
    *,
    start: Callable[[Task], Report],
    done: Callable[[Task, dict | None], None],
) -> int:
    """Run what nobody has run or is running, one task after the other; how many failed.

    Args:
        tasks: in order of urgency.
        place: for records and checkpoints.
        start: called at the start of a task; gives what reports its progress.
        done: called with the result, or None when it failed; what happened is printed.

    Raises:
        Interrupted: Ctrl-C was pressed and the state is saved.
    """
    commit()
    failed: set[Task] = set()
    while True:
        for task in tasks:
            if task in failed or is_settled(task, place, failed):
                continue
            with claim(place.checkpoints(task)) as mine:
                # Another process may have finished it since.
                if mine and not is_settled(task, place, failed):
                    if not _run_and_record(task, place, start, done):
                        failed.add(task)
                    break
        else:
            return len(failed)


def is_settled(task: Task, place: Place, failed: set[Task]) -> bool:
    """Whether nothing is left to run; a damaged record is printed and goes to the failed ones."""
    try:
        return place.store.read(task.setting, task.seed) is not None
    except ValueError as error:
        print(error, file=sys.stderr, flush=True)
        failed.add(task)
        return True


def _run_and_record(task: Task, place: Place, start: Callable, done: Callable) -> bool:
    try:
        result = run_task(task, place, start(task))
    except Interrupted:
        raise
    except Exception:  # one broken row must not end a night's sweep
        traceback.print_exc()
        done(task, None)
        return False
    place.store.write(task.setting, task.seed, result)
    shutil.rmtree(place.checkpoints(task), ignore_errors=True)
    done(task, result)
    return True


def spawn(jobs: int, arguments: Sequence[str]) -> int:
    """Run the command line in `jobs` processes, each with its own share of the cores.

    One network on one core makes better use of it than one network on all of them; locks keep the
    processes apart. Ctrl-C reaches all of them. They share all cores where none can be bound.

    Returns:
        The largest exit status.
    """
    cores = usable_cores()
    flags = os.environ.get("XLA_FLAGS", "")
    if jobs >= len(cores):
        flags += " --xla_cpu_multi_thread_eigen=false"
    processes = []
    for index in range(jobs):
        bind(cores[index % len(cores) :: jobs])  # children inherit it
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "experiments", *arguments],
                env={**os.environ, "XLA_FLAGS": flags.strip()},
            )
        )
    bind(cores)
    try:
        return max(process.wait() for process in processes)
    except KeyboardInterrupt:
        return max(process.wait() for process in processes)
