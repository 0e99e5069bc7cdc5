"""The penalty on maps makes a small network's maps sparser, and they are counted."""

from experiments.runs.table import Job
from experiments.settings.sparse_maps import BITS, SparseMaps
from tests.experiments.small_settings import SMALL_TRAINING


def test_the_penalty_makes_maps_sparser(tmp_path):
    results = {}
    for strength in (0.0, 1.0):
        setting = SparseMaps(strength, SMALL_TRAINING, steps=24, learning_rate=2e-2)
        folder = tmp_path / "work" / f"{strength}"
        job = Job(seed=0, smoke=False, data=None, folder=folder, report=lambda *_: None)
        results[strength] = setting.run(job)
    base, sparse = results.values()
    assert base["accuracy_before"] == sparse["accuracy_before"]
    assert sparse["density"] < base["density"]
    assert list(base["densities"]) == ["relu/0"]
    for bits in BITS:
        assert base[f"entropy_{bits}_bits"] <= base[f"SEG_{bits}_bits"]
