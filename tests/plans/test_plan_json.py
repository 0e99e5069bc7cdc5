"""Plans as JSON: whatever is done to a file, it is refused in words or says what the plan says."""

import copy
import dataclasses
import json
import random
from dataclasses import dataclass

import jax.numpy as jnp
import pytest

import sparsejax as sj
from sparsejax.patterns import Unstructured

PARAMS = {
    "conv": jnp.ones((3, 3, 4, 8)),
    "more": jnp.ones((3, 3, 4, 8)),
    "body": {"kernel": jnp.ones((8, 12)), "bias": jnp.ones(12)},
    "head": jnp.ones((12, 4)),
    "gru": jnp.ones((8, 16)),
    "norm": jnp.ones((8, 8)),
}
RULES = {
    "conv": sj.KernelPattern(),
    "more": sj.KernelGroup(2),
    "kernel": sj.Block(4, 2),
    "bias": sj.Unstructured(0),
    "head": (sj.NM(2, 4), 0.5),
    "gru": sj.BlockColumnRow(4, 8, kept_rows=2),
    "norm": (sj.Channel(), 0.25),
}
PLAN = sj.plan(PARAMS, RULES, sparsity=2 / 3)
DOCUMENT = json.loads(PLAN.to_json())
JUNK = (None, True, 0, -1, 3, 2.0, 0.5, 1.5, 1e999, float("nan"), 10**30, "", "NM", [], [2], {})
JUNK += ([4, 8], [-4, 8], [4, "8"], [[4, 8]], {"NM": {"n": 2, "m": 4, "axis": -2}}, {"NM": {}})


def spots(node):
    """Every container in a document with each of its keys or indices."""
    for key in node if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from spots(node[key])


def changed(change):
    """The documents that `change(container, key)` makes, one for each spot."""
    for index in range(len(list(spots(DOCUMENT)))):
        document = copy.deepcopy(DOCUMENT)
        change(*list(spots(document))[index])
        yield json.dumps(document)


def put(junk):
    return lambda node, key: node.__setitem__(key, junk)


def delete(node, key):
    del node[key]


def rename(node, key):
    if isinstance(node, dict):
        node[f"{key}s"] = node.pop(key)


def repeat(node, key):
    if isinstance(node, list):
        node.append(node[key])


def assert_refused_or_taken_at_its_word(source):
    """Whether it was taken."""
    try:
        plan = sj.Plan.from_json(source)
    except ValueError as error:
        assert len(str(error)) > 20, source
        return False
    assert json.loads(plan.to_json()) == {"version": 1} | json.loads(source)
    for leaf in plan.leaves:
        leaf.pattern.validate(leaf.shape)
        assert 0 <= leaf.num_pruned <= leaf.num_weights
    assert sj.Plan.from_json(plan.to_json()) == plan
    return True


@pytest.mark.parametrize("change", [delete, rename, repeat, *map(put, JUNK)])
def test_changed_documents_are_refused_or_say_what_their_plan_says(change):
    taken = [assert_refused_or_taken_at_its_word(source) for source in changed(change)]
    assert not all(taken)


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_are_refused_or_say_what_their_plan_says(seed):
    draw = random.Random(seed)
    for _ in range(300):
        source = bytearray(PLAN.to_json().encode())
        for _ in range(draw.choice((1, 1, 1, 3))):
            at = draw.randrange(len(source))
            edit = draw.choice(("flip", "cut", "double", "end"))
            if edit == "flip":
                source[at] ^= 1 << draw.randrange(8)
            elif edit == "end":
                del source[at:]
            else:
                source[at : at + 1] = source[at : at + 1] * (2 if edit == "double" else 0)
            source = source or bytearray(b" ")
        assert_refused_or_taken_at_its_word(bytes(source))


def leaf(**changes):
    """A document with one good leaf, changed."""
    good = {"path": "a/b", "shape": [4, 8], "pattern": {"Block": {}}, "sparsity": 0.5}
    good["pattern"]["Block"] = {"rows": 4, "cols": 1, "output_axis": -1}
    return {"version": 1, "leaves": [good | changes]}


ERRORS = {
    "text": ("{", "this is not"),
    "deep": ("[" * 100_000, "this is not"),
    "no_plan": ("[1]", r"the plan must be an object, got \[1\]"),
    "twice_named": ('{"leaves": [], "leaves": []}', "twice in .*leaves"),
    "version": (leaf() | {"version": 2}, "version 1, got version 2"),
    "leaves": ({"leaves": {}}, "a list of leaves, got {}"),
    "missing": ({"leaves": [{"path": "a/b"}]}, r"a/b must have .*missing: \['pattern', 's"),
    "unknown": (leaf(density=0.5), r"a/b must have .*unknown: \['density'\]"),
    "shape": (leaf(shape=[4.0, 8]), "a/b: shape must be of type int, got 4.0"),
    "negative": (leaf(shape=[4, -8]), r"a/b: .*lengths must be in \[0, 2\*\*63\), got \(4, -8\)"),
    "unfit": (leaf(shape=[4, 6]), r"a/b: Block\(4, 1\) needs output .* got shape \(4, 6\)"),
    "too_sparse": (leaf(sparsity=1.5), r"a/b: Block.* a sparsity in \[0, 1\], got 1.5"),
    "nm_too_sparse": (
        leaf(pattern={"NM": {"n": 2, "m": 4, "axis": -2}}, sparsity=0.75),
        r"a/b: NM.* a sparsity in \[0, 0.5\], got 0.75",
    ),
    "no_number": (leaf(sparsity="0.5"), "a/b: sparsity must be of type float, got '0.5'"),
    "pattern": (leaf(pattern={"Blok": {}}), "a/b: no pattern class Blok, only .*Block"),
    "two_patterns": (leaf(pattern={"NM": {}, "Block": {}}), "a/b needs one pattern by its name"),
    "option": (
        leaf(pattern={"Block": {"rows": 4, "cols": 1}}),
        r"a/b: Block must have .*missing: \['output_axis'\]",
    ),
    "option_type": (
        leaf(pattern={"Block": {"rows": "4", "cols": 1, "output_axis": -1}}),
        "a/b: Block.rows must be of type int, got '4'",
    ),
    "option_value": (
        leaf(pattern={"NM": {"n": 5, "m": 4, "axis": -2}}),
        "a/b: NM: .*needs 1 <= n <= m",
    ),
    "twice": ({"leaves": leaf()["leaves"] * 2}, "a/b: a plan needs each leaf once"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_name_the_leaf_and_what_is_wrong(error):
    document, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        sj.Plan.from_json(document if isinstance(document, str) else json.dumps(document))


def test_a_plan_made_by_hand_is_checked_as_well():
    (good,) = sj.plan(PARAMS, {"head": (sj.NM(2, 4), 0.5)}).leaves
    for changes, message in (
        ({"sparsity": 0.75}, r"head: NM.* in \[0, 0.5\], got 0.75"),
        ({"sparsity": float("nan")}, "got nan"),
        ({"shape": (6, 4)}, r"head: NM\(2, 4\) needs axis -2"),
    ):
        with pytest.raises(ValueError, match=message):
            sj.Plan((dataclasses.replace(good, **changes),))
    with pytest.raises(ValueError, match="head: a plan needs each leaf once"):
        sj.Plan((good, good))
    with pytest.raises(ValueError, match=r"head: .* in \[0, 1\], got 1.25"):
        sj.plan(
            PARAMS,
            {"head": sj.Unstructured()},
            sparsity=0.5,
            allocate=lambda leaves, weights, sparsity: {"head": 1.25},
        )


@dataclass(frozen=True)
class Everywhere(Unstructured):
    names: tuple[str, ...] = ("a",)
    share: float = 1.0
    label: str | None = None


def test_json_knows_your_own_pattern_when_you_name_it():
    plan = sj.plan(PARAMS, {"head": Everywhere(names=("b", "c"), share=2)}, sparsity=0.5)
    with pytest.raises(ValueError, match=r"head: no pattern class Everywhere, only .*NM"):
        sj.Plan.from_json(plan.to_json())
    again = sj.Plan.from_json(plan.to_json(), patterns=(Everywhere,))
    assert again == plan and hash(again) == hash(plan)
    wrong = plan.to_json().replace('"label": null', '"label": 3')
    with pytest.raises(ValueError, match=r"Everywhere.label must be of type str | None, got 3"):
        sj.Plan.from_json(wrong, patterns=(Everywhere,))
