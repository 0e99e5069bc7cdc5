"""The benchmarks' command line runs what is named and says what failed."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command_line


def test_a_benchmark_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    ran = []

    def run(command):
        ran.append(command[-1])
        return SimpleNamespace(returncode=int(command[-1] == "benchmarks.top_k"))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "top_k", "kernels"])
    with pytest.raises(SystemExit, match=r"^Failed: top_k; what they said stands above\.$"):
        command_line.main()
    assert ran == ["benchmarks.top_k", "benchmarks.kernels"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "kernels"])
    command_line.main()
    assert "kernels: " in capsys.readouterr().out
