"""The attack on networks whose features are known: what it can tell, what chance is, what leaks."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import sparsejax as sj
from sparsejax.audit import Candidate, Observations

FAMILIES, SETTINGS, GROUPS = ("fire", "dense", "plain"), (2, 4), range(6)
NEAREST = KNeighborsClassifier(1)


def observations(tell, settle=lambda setting: setting) -> Observations:
    """Networks whose first feature tells the family and whose second the setting."""
    nets = [(f, s, g) for g in GROUPS for f in FAMILIES for s in SETTINGS]
    features = [
        {"a": 10.0 * tell(FAMILIES.index(f), g), "b": 1.0 * settle(s), "c": 0.01 * g}
        for f, s, g in nets
    ]
    families, settings, groups = zip(*nets, strict=True)
    return Observations(features, families, settings, groups)


TOLD = observations(lambda family, group: family)
CONSTANT = observations(lambda family, group: 0, lambda setting: 0)


def test_what_features_tell_is_told():
    attack = sj.audit.family_attack(TOLD, estimator=NEAREST)
    assert attack.family == (1.0, 1 / 3)
    assert attack.settings == dict.fromkeys(FAMILIES, (1.0, 0.5))
    assert attack.confusion == {(family, family): 12 for family in FAMILIES}
    new = {"a": 11.0, "b": 3.9, "c": 0.0}
    assert attack.confidence(new) == {"dense": 1.0, "fire": 0.0, "plain": 0.0}
    assert attack.setting(new, "dense") == 4
    assert "100%" in str(attack) and "by chance 33%" in str(attack)


def test_what_features_do_not_tell_is_chance():
    attack = sj.audit.family_attack(CONSTANT, estimator=DummyClassifier())
    assert attack.family.accuracy == attack.family.chance == 1 / 3


def test_a_group_is_never_on_both_sides():
    """The family is another in each group: a neighbour of the own group would tell it."""
    shuffled = observations(lambda family, group: (family + group) % 3 + 100 * group)
    attack = sj.audit.family_attack(shuffled, estimator=NEAREST, folds=len(GROUPS))
    apart = sj.audit.family_attack(shuffled._replace(groups=range(36)), estimator=NEAREST, folds=36)
    assert attack.family.accuracy < 0.6 and apart.family.accuracy == 1.0


def test_the_default_forest_is_the_same_each_time():
    one, other = (sj.audit.family_attack(TOLD, folds=2, seed=3) for _ in range(2))
    assert one.family == other.family and one.family.accuracy > 0.9
    seen = {"a": 10.0, "b": 2.0, "c": 0.02}
    assert one.confidence(seen) == other.confidence(seen)


def test_an_attack_may_fail_where_networks_run_otherwise():
    hidden = observations(lambda family, group: 0)
    assert sj.audit.transferred(TOLD, TOLD, estimator=NEAREST) == (1.0, 1 / 3)
    assert sj.audit.transferred(TOLD, hidden, estimator=NEAREST) == (1 / 3, 1 / 3)


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="two or more groups and families, got 6 and 1"):
        sj.audit.family_attack(TOLD._replace(families=["fire"] * 36))
    with pytest.raises(ValueError, match="fitted to, a, b, c; got a"):
        sj.audit.family_attack(TOLD, estimator=NEAREST).confidence({"a": 1.0})
    with pytest.raises(ValueError, match="their families differ"):
        sj.audit.transferred(TOLD, TOLD._replace(families=TOLD.families[::-1]))


ATTACK = sj.audit.family_attack(TOLD, estimator=LogisticRegression(max_iter=5000))
ORIGINAL = Candidate({"a": 0.0, "b": 2.0, "c": 0.0}, 100)
near = lambda a, adds: Candidate({"a": a, "b": 3.0, "c": 0.3}, adds)
CANDIDATES = {"far": near(20.0, 200), "half": near(15.0, 120), "close": near(6.0, 110)}


def test_the_candidate_that_tells_least_within_the_budget_is_taken():
    asked = []
    accuracy = lambda name: asked.append(name) or {"half": 0.9, "close": 0.95}[name]
    options = {"accuracy": accuracy, "least_accuracy": 0.9}
    found = sj.audit.harden_blocks(ATTACK, "fire", ORIGINAL, CANDIDATES, **options)
    assert (found.name, found.accuracy, asked) == ("half", 0.9, ["half"])
    assert found.refused == {"far": "2.00 times the multiply-adds"}
    assert found.confidence < found.before == ATTACK.confidence(ORIGINAL.features)["fire"]


def test_an_inaccurate_candidate_is_refused_and_the_original_may_stay():
    options = {"accuracy": lambda name: 0.5, "least_accuracy": 0.9}
    found = sj.audit.harden_blocks(ATTACK, "fire", ORIGINAL, CANDIDATES, **options)
    assert found.name == "" and found.confidence == found.before and np.isnan(found.accuracy)
    assert list(found.refused) == ["far", "half", "close"]
    assert found.refused["close"] == "accuracy 0.5"
    same = sj.audit.harden_blocks(ATTACK, "fire", ORIGINAL, {"same": ORIGINAL}, **options)
    assert same.refused == {"same": "tells no less than the original"}
