"""Sweeps go in order of seeds, go on where they stopped, and survive a broken row."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import types

import pytest

from experiments.data import datasets
from experiments.runs.engines import Place, Task, spawn, tasks_of, work
from experiments.runs.records import ROOT, Store, claim, slug
from experiments.runs.scalars import also_to_tensorboard
from experiments.runs.table import Interrupted, Row
from experiments.settings.classify import Classify
from tests.experiments.counting import Count

WORKER = """
    import sys
    from pathlib import Path
    from experiments.runs.engines import Place, Task, work
    from experiments.runs.records import Store
    from tests.experiments.counting import Count
    folder = Path(sys.argv[1])
    tasks = [Task(str(n), Count(n, seconds=0.05), 0) for n in range(1, 9)]
    done = lambda task, result: print(task.name, result["steps_of_this_process"], flush=True)
    start = lambda task: lambda done, total, numbers: print("step", flush=True)
    work(tasks, Place(Store(folder / "results"), folder, None, False), start=start, done=done)
"""


def place(folder, smoke=False):
    return Place(Store(folder / "results"), folder, None, smoke)


def run(tasks, where):
    """Names of the finished tasks in order, with results, and the number of failed ones."""
    finished = []
    ignore = lambda done, total, numbers: None
    failed = work(
        tasks, where, start=lambda task: ignore, done=lambda t, r: finished.append((t.name, r))
    )
    return finished, failed


def papers(*tables):
    return [types.SimpleNamespace(ROWS=rows) for rows in tables]


def test_seed_zero_of_all_rows_comes_first_and_shared_settings_once():
    rows = Row("a", Count(1), 2), Row("b", Count(2), 3)
    tasks = tasks_of(papers(rows, (Row("again", Count(2), 4),)), seeds=None)
    assert [(t.name, t.seed) for t in tasks] == [
        *(("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2)),
        ("again", 3),
    ]
    assert len(tasks_of(papers(rows), seeds=1)) == 2


def test_another_data_set_makes_another_setting():
    rows = Row("a", Classify()), Row("b", Count())
    (first, second) = tasks_of(papers(rows), seeds=1, data=datasets.mnist_5k)
    assert first.setting == Classify(data=datasets.mnist_5k)
    assert second.setting == Count()


def test_finished_tasks_are_not_run_again(tmp_path):
    tasks = [Task("a", Count(3), 0), Task("a", Count(3), 1)]
    finished, failed = run(tasks, place(tmp_path))
    assert [result["total"] for _, result in finished] == [3, 4] and failed == 0
    assert run(tasks, place(tmp_path)) == ([], 0)
    assert not place(tmp_path).checkpoints(tasks[0]).exists()


def test_an_interrupted_task_goes_on(tmp_path):
    tasks = [Task("a", Count(5, stop_at=3), 0)]
    with pytest.raises(Interrupted):
        run(tasks, place(tmp_path))
    assert place(tmp_path).store.read(*tasks[0][1:]) is None
    ((_, result),), _ = run(tasks, place(tmp_path))
    assert result["steps_of_this_process"] == 2


def test_a_broken_row_does_not_end_the_sweep(tmp_path, capsys):
    tasks = [Task("broken", Count(1, fail=True), 0), Task("good", Count(2), 0)]
    finished, failed = run(tasks, place(tmp_path))
    assert [(name, result is None) for name, result in finished] == [
        ("broken", True),
        ("good", False),
    ]
    assert failed == 1
    assert "told to fail" in capsys.readouterr().err


def test_a_damaged_record_is_named_and_does_not_end_the_sweep(tmp_path, capsys):
    tasks = [Task("damaged", Count(1), 0), Task("good", Count(2), 0)]
    run(tasks[:1], place(tmp_path))
    file = place(tmp_path).store.path(*tasks[0][1:])
    file.write_text(file.read_text()[:-20])
    finished, failed = run(tasks, place(tmp_path))
    assert [name for name, _ in finished] == ["good"] and failed == 1
    said = capsys.readouterr().err
    assert f"{file} is damaged (" in said and "): delete it to run its task again." in said
    file.unlink()
    assert [name for name, _ in run(tasks, place(tmp_path))[0]] == ["damaged"]


def test_what_another_process_has_is_left_to_it(tmp_path):
    tasks = [Task("theirs", Count(1), 0), Task("ours", Count(2), 0)]
    with claim(place(tmp_path).checkpoints(tasks[0])):
        finished, _ = run(tasks, place(tmp_path))
    assert [name for name, _ in finished] == ["ours"]


def test_two_processes_share_the_work_and_a_killed_one_is_made_good(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(tmp_path)]
    start = lambda: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with start() as killed:
        for line in killed.stdout:
            if line.startswith("3 "):
                break
        killed.stdout.readline()  # a step of the fourth
        killed.send_signal(signal.SIGKILL)
    with start() as first, start() as second:
        said = [worker.communicate(timeout=120)[0].split("\n") for worker in (first, second)]
    names = [line.split()[0] for lines in said for line in lines if line and line != "step"]
    assert sorted(names) == ["4", "5", "6", "7", "8"]
    fourth = next(line for lines in said for line in lines if line.startswith("4 "))
    assert int(fourth.split()[1]) < 4, "it began anew"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_spawned_processes_have_their_own_cores(monkeypatch):
    cores = os.sched_getaffinity(0)
    code = "import os; raise SystemExit(len(os.sched_getaffinity(0)))"
    real = subprocess.Popen
    started = []

    def popen(command, **options):
        started.append(command)
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert spawn(len(cores), ["run", "all"]) == 1
    assert started == [[sys.executable, "-m", "experiments", "run", "all"]] * len(cores)
    assert os.sched_getaffinity(0) == cores
    assert time.monotonic() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_go_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    seen = []
    report = also_to_tensorboard(lambda *a: seen.append(a[0]), tmp_path, Task("a", Count(12), 0))
    for step in range(1, 13):
        report(step, 12, {"loss": 1.0 / step})
    assert seen == list(range(1, 13))
    (events,) = (tmp_path / slug(Count(12)) / "seed0").iterdir()
    assert events.read_bytes().count(b"loss") == 2  # steps 10 and 12
