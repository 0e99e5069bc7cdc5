"""Federated training of a small classifier: what it reports, and that it goes on where it was."""

import dataclasses

import pytest

from experiments.runs.table import Interrupted, Job
from experiments.settings.federation import Federation
from tests.experiments.small_settings import bright_half, small_net

SMALL = Federation(
    personal=("^head/",),
    classes_per_client=2,
    net=small_net,
    data=bright_half,
    images=120,
    num_clients=3,
    rounds=2,
    batch_size=8,
)
BASE = 4 * (36 * 20 + 20 + 4 * 20)  # hidden layer, batch norm's affine part and statistics


def quiet(*_):
    return None


def test_a_killed_training_goes_on_and_counts_every_byte(tmp_path):
    whole = SMALL.run(Job(0, False, None, tmp_path / "whole", quiet))
    assert whole["bytes_up"] == whole["bytes_down"] == 2 * 3 * BASE
    assert 0 <= whole["accuracy"] <= 1 and len(whole["accuracies"]) == 3
    assert sum(whole["images"]) == 120

    def stop(done, total, numbers):
        raise Interrupted(f"after round {done}")

    with pytest.raises(Interrupted):
        SMALL.run(Job(0, False, None, tmp_path / "parts", stop))
    parts = SMALL.run(Job(0, False, None, tmp_path / "parts", quiet))
    assert parts["accuracies"] == whole["accuracies"]
    assert [entry["round"] for entry in parts["history"]] == [1, 2]
    assert [entry["loss"] for entry in parts["history"]] == [e["loss"] for e in whole["history"]]


def test_messages_of_the_largest_changes_are_shorter(tmp_path):
    some = dataclasses.replace(SMALL, unsent=0.9, rounds=1)
    result = some.run(Job(0, False, None, tmp_path, quiet))
    # 72 of 720 values with a bit for each position; the rest whole.
    assert result["bytes_up"] == 3 * (72 * 4 + 90 + BASE - 4 * 720)
