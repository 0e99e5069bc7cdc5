"""Sweeps on a ray cluster lose nothing when a worker dies."""

import os
import signal
import sys
import threading
import time

import pytest

from experiments.runs import ray_engine
from experiments.runs.engines import Place, Task
from experiments.runs.records import ROOT, Store
from tests.experiments.counting import Count

try:
    import ray
except ImportError:
    ray = None

# ray forks, with jax's threads there since an earlier test.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
needs_ray = pytest.mark.skipif(
    ray is None, reason="needs the extra ray: pip install 'sparsejax[ray]'"
)


def test_without_ray_the_engine_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match="pip install"):
        ray_engine.work_on_ray([], Place(Store(tmp_path), tmp_path, None, False), done=print)


@pytest.fixture(scope="module")
def cluster():
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


def kill_when_there(file, killed):
    """End the process named in a file as soon as it is there."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if file.exists():
            killed.append(int(file.read_text()))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.05)


@needs_ray
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_killed_worker_loses_nothing(tmp_path, cluster):
    settings = [Count(n, seconds=0.02) for n in (2, 3)]
    victim = Count(100, seconds=0.02, pid_file=str(tmp_path / "pid"))
    tasks = [Task("victim", victim, 0), *(Task(s.label, s, n) for n in (0, 1) for s in settings)]
    place = Place(Store(tmp_path / "results"), tmp_path, None, False)
    killed, finished = [], []
    killer = threading.Thread(target=kill_when_there, args=(tmp_path / "pid", killed))
    killer.start()
    failed = ray_engine.work_on_ray(tasks, place, done=lambda task, result: finished.append(task))
    killer.join()
    assert failed == 0 and killed and len(finished) == 5
    results = [place.store.read(task.setting, task.seed)["result"] for task in tasks]
    assert [result["total"] for result in results] == [100, 2, 3, 3, 4]
    assert results[0]["steps_of_this_process"] < 100, "it began anew"
    assert ray_engine.work_on_ray(tasks, place, done=pytest.fail) == 0


@needs_ray
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_broken_row_fails_alone(tmp_path, cluster, capsys):
    tasks = [Task("broken", Count(1, fail=True), 0), Task("good", Count(2), 0)]
    place = Place(Store(tmp_path / "results"), tmp_path, None, False)
    assert ray_engine.work_on_ray(tasks, place, done=lambda task, result: None) == 1
    assert "told to fail" in capsys.readouterr().out
    assert place.store.read(Count(2), 0)["result"]["total"] == 2
