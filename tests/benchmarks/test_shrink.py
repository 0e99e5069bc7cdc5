"""The table beside Torch-Pruning: the same networks, how widths are rounded, what is published."""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks.shrink import peer
from benchmarks.shrink.networks import NAMES
from sparsejax.structured import ChannelGroup, Place

FOLDER = Path(benchmarks.__file__).parent
PUBLISHED = FOLDER / "results" / "shrink.json"
COUNTS = {"parameters": 2_500_000, "multiply_adds": 30_400_000}
MISSING = {"failed": "Killed"}


def group(*positions, name="kernel"):
    return ChannelGroup(name, len(positions), (Place("kernel", 0, np.array(positions)),))


def in_torch():
    """The names of the torch side, read without PyTorch."""
    tree = ast.parse((FOLDER / "shrink" / "torch_side" / "networks.py").read_text())
    found = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    return [key.value for table in found if isinstance(table, ast.Dict) for key in table.keys]


def test_both_sides_and_the_published_table_have_the_same_networks():
    nets = json.loads(PUBLISHED.read_text())["nets"]
    assert in_torch() == list(nets) == list(NAMES)
    for sides in nets.values():
        ours, theirs = (sides[side] for side in peer.SIDES)
        assert ours["whole"] == theirs["whole"]
        assert ours["analysis_seconds"] < 10
        for fraction in peer.FRACTIONS:
            assert ours[fraction]["parameters"] <= theirs[fraction].get("parameters", np.inf)
    assert PUBLISHED.with_suffix(".md").read_text() == peer.markdown(nets)


def test_what_stays_is_rounded_down_and_a_group_without_any_stays_whole():
    scores = np.arange(40.0)
    stays = peer.kept(scores, 0.3)  # 28, rounded down
    np.testing.assert_array_equal(np.flatnonzero(stays), np.arange(16, 40))
    assert peer.kept(scores[:11], 0.3).all()


def test_heads_are_neighbours_that_a_width_lies_across():
    heads, width = group([0, 1, 2], [3, 4, 5]), group([0, 3], [1, 4], [2, 5])
    pixels, others = group([6, 7], [8, 9]), group([10], [11])
    groups = [heads, width, pixels, others]
    assert [peer.are_heads(own, groups) for own in groups] == [True, False, False, False]
    own_axis = [group([0], [1], name=f"attention/query/kernel{end}") for end in ("", "#1")]
    assert [peer.are_heads(own, own_axis) for own in own_axis] == [True, False]


def test_a_worker_that_ends_early_leaves_the_stages_that_it_told():
    told = '{"whole": {"parameters": 3}}\n{"analysis_seconds": 0.5}\n'
    found = peer.stages(told, "Killed")
    assert found == {
        "whole": {"parameters": 3},
        "analysis_seconds": 0.5,
        "0.3": MISSING,
        "0.5": MISSING,
    }


def test_a_network_that_takes_too_long_says_so(monkeypatch):
    monkeypatch.setattr(peer, "python_of", lambda _: sys.executable)
    monkeypatch.setattr(peer, "TIMEOUT_S", 0)
    assert peer.theirs("decoder")["0.5"] == {"failed": "not over after 0 s"}


def test_networks_that_differ_are_not_compared(monkeypatch):
    monkeypatch.setattr(peer, "ours", lambda name: {"whole": {"parameters": 3}})
    monkeypatch.setattr(peer, "theirs", lambda name: {"whole": {"parameters": 4}})
    with pytest.raises(ValueError, match="decoder: both sides need the same network, got"):
        peer.compared(["decoder"])


def test_the_table_has_a_row_for_each_network_and_each_failure_once():
    ours = {"whole": COUNTS, "analysis_seconds": 0.125, "0.3": COUNTS, "0.5": COUNTS}
    theirs = {"whole": COUNTS, "analysis_seconds": 2.0, "0.3": MISSING, "0.5": MISSING}
    table = peer.markdown({"lstm": dict(zip(peer.SIDES, (ours, theirs), strict=True))})
    _, _, row, _, failure = table.splitlines()
    counts = "2.50, 30"
    cells = ["lstm", counts, counts, "fails", counts, "fails", "0.12 s", "2.00 s"]
    assert row == f"| {' | '.join(cells)} |"
    assert failure == "- lstm, Torch-Pruning: `Killed`"
