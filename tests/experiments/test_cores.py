"""What Linux alone has, such as binding to cores, is left out on other systems, and said."""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.peers import process, rounds
from experiments.runs import cores, engines, records
from sparsejax.compiler.layouts import times


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A system without affinity, /proc and taskset."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(cores, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(Path, "read_text", no_proc)
    monkeypatch.setenv("XLA_FLAGS", "")


READ = Path.read_text


def no_proc(path, **options):
    if path.is_relative_to("/proc"):
        raise FileNotFoundError(path)
    return READ(path, **options)


def test_cores_and_the_processor_have_names_everywhere(elsewhere, capsys):
    assert cores.usable_cores() == list(range(os.cpu_count()))
    assert not cores.bind([0])
    assert cores.cpu_name() == records.machine()["cpu"] != ""
    assert records.machine()["cores"] == os.cpu_count()
    assert "sparsejax" in times.machine.__wrapped__()
    cores.use_one_core()
    assert "binds no process to a core" in capsys.readouterr().err
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


def test_processes_start_without_cores_of_their_own(elsewhere, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: SimpleNamespace(wait=lambda: 0))
    assert engines.spawn(2, ["run", "all"]) == 0
    assert process.bound_to(rounds.cores(1)) == []
    assert "There is no taskset" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_a_process_is_bound_to_its_last_core(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    before = cores.usable_cores()
    try:
        cores.use_one_core()
        assert cores.usable_cores() == before[-1:]
    finally:
        assert cores.bind(before)
