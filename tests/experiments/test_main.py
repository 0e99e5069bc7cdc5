"""The command line runs what is named, says how it ended, and hands its options on."""

import sys

import pytest
import tyro

from experiments import __main__ as command_line
from experiments.papers import suite
from experiments.runs import engines, records
from experiments.runs.table import Row
from tests.experiments.counting import Count
from tests.experiments.small_settings import paper_of


@pytest.fixture
def small_suite(monkeypatch, tmp_path):
    """A suite of one paper, with its records and checkpoints below a temporary folder."""

    def install(*rows):
        papers = (paper_of(*rows),)
        monkeypatch.setattr(suite, "PAPERS", papers)
        monkeypatch.setattr(suite, "TABLES", papers)

    place = engines.Place(records.Store(tmp_path / "results"), tmp_path / "work", None, False)
    monkeypatch.setattr(command_line, "place_of", lambda smoke, data: place._replace(smoke=smoke))
    monkeypatch.setattr(command_line, "Store", lambda: place.store)
    return install


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
    command_line.main()


def test_run_and_list_count_the_same(monkeypatch, small_suite, capsys):
    small_suite(Row("a", Count(2), 2), Row("b", Count(3)))
    with pytest.raises(SystemExit) as ending:
        call(monkeypatch, "run", "small2026")
    assert ending.value.code == 0
    assert "count-2 seed 1: total 3.0000" in capsys.readouterr().out
    call(monkeypatch, "list")
    assert "small2026" in (said := capsys.readouterr().out) and "3/3" in said


def test_a_stopped_run_exits_with_130_and_goes_on(monkeypatch, small_suite, capsys):
    small_suite(Row("a", Count(5, stop_at=2)))
    with pytest.raises(SystemExit) as ending:
        call(monkeypatch, "run", "all")
    assert ending.value.code == 130
    assert "the same command goes on from there" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ending:
        call(monkeypatch, "run", "all")
    assert ending.value.code == 0


def test_a_failed_row_shows_in_the_exit_status(monkeypatch, small_suite, capsys):
    small_suite(Row("a", Count(1, fail=True)), Row("b", Count(3)))
    with pytest.raises(SystemExit) as ending:
        call(monkeypatch, "run", "all", "--seeds", "1")
    assert ending.value.code == 1
    said = capsys.readouterr()
    assert "FAILED" in said.out and "told to fail" in said.err and "count-3 seed 0" in said.out


def test_options_survive_being_handed_on(tmp_path):
    run = command_line.Run(
        ("a", "b"), seeds=2, data="cifar10", data_folder=tmp_path, tensorboard=tmp_path
    )
    arguments = run.arguments()
    assert arguments[0] == "run"
    assert tyro.cli(command_line.Run, args=arguments[1:]) == run
