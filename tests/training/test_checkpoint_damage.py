"""Checkpoints that are damaged, of another plan, or cut short by a kill."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests.training.test_checkpoint import assert_same

ROOT = Path(__file__).parents[2]
# What tensorstore still wants to say after a damaged array comes when orbax's loop is closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def small(seed=0, rules=None):
    """A plan, params and a state; the kernel is large enough to be stored outside the index."""
    draw = np.random.default_rng(seed)
    params = {
        "body": {"kernel": jnp.asarray(draw.normal(size=(32, 16)), jnp.float32)},
        "head": {"kernel": jnp.asarray(draw.normal(size=(16, 4)), jnp.float32)},
    }
    rules = {"body": sj.Block(4, 1), "head": sj.NM(2, 4)} if rules is None else rules
    plan = sj.plan(params, rules, sparsity=0.5)
    return (
        plan,
        params,
        sj.sparsify(optax.sgd(0.1), sj.one_shot(), plan, key=jax.random.key(0)).init(params),
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A folder with the steps 1 and 2, what was saved, and the files of step 2."""
    folder = tmp_path_factory.mktemp("two") / "run"
    plan, params, opt_state = small()
    with sj.checkpoint(folder, plan) as ckpt:
        for step in (1, 2):
            ckpt.save(step, params, opt_state, notes={"position": 5})
    files = [file for file in sorted((folder / "2").rglob("*")) if file.is_file()]
    return folder, (params, opt_state), files


def flip(data, draw):
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def cut(data, draw):
    del data[draw.randrange(len(data)) :]


def zero(data, draw):
    data[:] = bytes(len(data))


@pytest.mark.parametrize("damage", [flip, cut, zero])
def test_a_damaged_step_is_refused_by_name_or_comes_back_whole(damage, two_steps):
    folder, saved, files = two_steps
    draw = random.Random(damage.__name__)
    refused = 0
    for file in files:
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damage(damaged, draw)
        file.write_bytes(damaged)
        with sj.checkpoint(folder) as ckpt:
            try:
                step, *found = ckpt.restore(*saved)
            except ValueError as error:
                refused += 1
                assert f"Step 2 in {folder} is damaged: " in str(error)
                assert "; step 1 can be restored: pass step=1 to restore, or" in str(error)
                step, *found = ckpt.restore(*saved, step=1)
            assert_same(tuple(found), saved)
            assert ckpt.notes(step) == {"position": 5}
        file.write_bytes(whole)
    assert refused


def test_a_flipped_bit_in_array_data_is_named(two_steps):
    folder, saved, files = two_steps
    kernel = np.asarray(saved[0]["body"]["kernel"]).nbytes
    messages = set()
    for file in files:
        if file.stat().st_size < kernel // 2:
            continue
        whole = file.read_bytes()
        for at in range(0, len(whole), len(whole) // 12):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            with sj.checkpoint(folder) as ckpt:
                try:
                    assert_same(ckpt.restore(*saved)[1:], saved)
                except ValueError as error:
                    messages.add(str(error).split(": ")[1].split(";")[0])
        file.write_bytes(whole)
    assert "0/body/kernel has another checksum than when it was saved" in messages


def test_without_another_step_a_damaged_one_says_so(tmp_path):
    plan, params, opt_state = small()
    with sj.checkpoint(tmp_path, plan) as ckpt:
        ckpt.save(1, params, opt_state)
        shutil.rmtree(tmp_path / "1" / "manifest")
        with pytest.raises(ValueError, match=r"Step 1 in .* is damaged: .*no other step is kept"):
            ckpt.restore(params, opt_state)


PLANS = {
    "pattern": (
        {"body": sj.Unstructured(), "head": sj.NM(2, 4)},
        r"body/kernel is Block\(rows=4.* in the checkpoint and Unstructured",
    ),
    "sparsity": (
        {"body": (sj.Block(4, 1), 0.75), "head": sj.NM(2, 4)},
        r"body/kernel is .* sparsity 0.5 in the checkpoint and .* sparsity 0.75 in the plan",
    ),
    "one_more": ({"body": sj.Block(4, 1)}, r"head/kernel is NM.* and dense in the plan"),
}


@pytest.mark.parametrize("case", PLANS)
@pytest.mark.parametrize("told", ["by_plan", "by_state"])
def test_another_plan_is_refused_by_leaf(case, told, two_steps, tmp_path):
    folder, saved, _ = two_steps
    rules, message = PLANS[case]
    plan, params, opt_state = small(rules=rules)
    message = rf"restore needs the checkpoint of its own plan: {message}.*ckpt.plan\(2\)"
    with sj.checkpoint(folder, plan if told == "by_plan" else None) as ckpt:
        targets = (params, opt_state) if told == "by_state" else (params,)
        with pytest.raises(ValueError, match=message):
            ckpt.restore(*targets)
    with (
        sj.checkpoint(tmp_path, plan) as ckpt,
        pytest.raises(ValueError, match="checkpoint needs the state of its own plan"),
    ):
        ckpt.save(3, *saved)


def test_masks_that_are_none_of_their_pattern_are_refused(tmp_path):
    plan, params, opt_state = small()
    broken = opt_state.masks["body"]["kernel"].at[0, 1].set(False)
    masks = opt_state.masks | {"body": {"kernel": broken}}
    with sj.checkpoint(tmp_path, plan) as ckpt:
        ckpt.save(1, params, opt_state._replace(masks=masks))
        with pytest.raises(ValueError, match=r"body/kernel: Block\(4, 1\) needs each group"):
            ckpt.restore(params, opt_state)


def test_a_plan_where_there_was_none_is_refused(tmp_path):
    plan, params, _ = small()
    with sj.checkpoint(tmp_path) as ckpt:
        ckpt.save(1, params)
    with (
        sj.checkpoint(tmp_path, plan) as ckpt,
        pytest.raises(ValueError, match="body/kernel is dense in the checkpoint and Block"),
    ):
        ckpt.restore(params)


# Saves as fast as it can and says so; is killed at some moment.
SAVER = """
    import sys
    import jax.numpy as jnp
    import sparsejax as sj

    tree = {name: jnp.arange(20_000.0) for name in "abcdef"}
    with sj.checkpoint(sys.argv[1]) as ckpt:
        start, tree = ckpt.restore(tree)
        print("start", start, flush=True)
        for step in range(start + 1, 10_000):
            tree = {name: leaf + 1 for name, leaf in tree.items()}
            ckpt.save(step, tree)
            print(step, flush=True)
"""


def test_a_process_killed_while_it_saves_leaves_whole_steps(tmp_path):
    tree = {name: jnp.arange(20_000.0) for name in "abcdef"}
    draw = random.Random(0)
    last = 0
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(SAVER), str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as saver:
            assert saver.stdout.readline() == f"start {last}\n"
            for _ in range(3):
                said = int(saver.stdout.readline())
            try:
                saver.wait(timeout=0.2 * draw.random())
            except subprocess.TimeoutExpired:
                saver.send_signal(signal.SIGKILL)
            said = [said, *map(int, saver.stdout.read().split())][-1]
        with sj.checkpoint(tmp_path) as ckpt:
            last, found = ckpt.restore(tree)
            assert said <= last <= said + 1
            # A third one may be there in parts: the kill came while it was deleted.
            assert ckpt.restore(tree, step=ckpt.steps[-2])[0] == last - 1
        for name, leaf in found.items():
            np.testing.assert_array_equal(leaf, tree[name] + last)
