"""A student's loss with a teacher's terms: what is trained, what is pruned, and by what."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from experiments.papers.fan2024_scalekd import STUDENTS, TERMS, student
from experiments.settings import train
from experiments.settings.distilling import EARLY, Distil, Taught, stages
from tests.experiments.small_settings import SMALL_TRAINING

IMAGES, LABELS = np.ones((4, 2, 2, 8), np.float32), np.arange(4)


class Blocks(nnx.Module):
    """As many blocks as MobileNet-v1 has, each a matrix."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.blocks = nnx.List([nnx.Linear(8, 8, use_bias=False, rngs=rngs) for _ in range(13)])
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def maps(self, x):
        return [x := block(x) for block in self.blocks]

    def __call__(self, x):
        return stages(self, x)[0]


def small_blocks(image, classes, seed):
    return Blocks(seed)


TRAINING = dataclasses.replace(
    SMALL_TRAINING, net=small_blocks, prunable="student/blocks/.*kernel", sparsity=0.5
)


@pytest.mark.parametrize("term", TERMS)
def test_masks_are_the_student_s_and_gradients_go_through_the_teacher(term):
    setting = Distil(TRAINING, TRAINING, **TERMS[term])
    teacher = train.take_apart(Blocks(1))
    network = nnx.eval_shape(lambda: train.take_apart(setting._taught(teacher, IMAGES, 4, 0)))
    paths = {path.split("/")[0] for path, _ in sj.tree.leaves_with_paths(network.params)}
    assert paths == ({"student"} if term in ("CE", "+ KD") else {"student", "features"})
    plan = TRAINING.plan(network.params)
    assert {leaf.path.split("/")[0] for leaf in plan.leaves} == {"student"}
    wanted = stages(nnx.merge(teacher.graph, teacher.params, teacher.statistics), IMAGES)
    grads = jax.make_jaxpr(jax.grad(setting.make_loss(network), has_aux=True))(
        network.params, network.statistics, IMAGES, (LABELS, wanted)
    )
    through = sum(np.size(c) == 64 for c in grads.consts) >= 13 - EARLY - 1
    assert through == (term == "+ TPP")


def test_a_term_of_strength_0_adds_nothing():
    loss = Distil(TRAINING, TRAINING).make_loss(train.take_apart(Taught(Blocks(), None)))
    network = train.take_apart(Taught(Blocks(), None))
    logits, maps = stages(Blocks(), IMAGES)
    found = loss(network.params, network.statistics, IMAGES, (LABELS, (0 * logits, maps)))[0]
    smooth = 0.9 * np.eye(4) + 0.1 / 4
    expected = -(smooth * np.asarray(jax.nn.log_softmax(logits))).sum(1).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rows_differ_by_one_term():
    assert list(TERMS) == ["CE", "+ KD", "+ spatial", "+ frequency", "+ TPP"]
    for term in TERMS:
        assert [student(name, term).sparsity for name in STUDENTS] == [0.0, 0.8, 0.9]


def test_projectors_learn_at_a_tenth_of_the_student_s_rate():
    assert student("dense", "+ KD").method is not student("dense", "+ TPP").method
    params = {
        "student": {"kernel": np.ones((4, 4), np.float32)},
        "features": {"kernel": np.ones(4)},
    }
    tx = student("dense", "+ TPP").method(optax.sgd(1.0), None)
    updates, _ = tx.update(jax.tree.map(np.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["student"]["kernel"], -1.0)
    np.testing.assert_allclose(updates["features"]["kernel"], -0.1, rtol=1e-6)
