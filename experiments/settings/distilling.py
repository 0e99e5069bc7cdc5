"""The setting of distillation: a student, masked or not, learns from labels and from a teacher."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

import sparsejax as sj
from experiments.data.dataset import standardize_like
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress

EARLY = 10  # the block of MobileNet-v1 with the early maps; those of the last are the late ones
TEACHER_SEED = 0  # all students have one teacher


class Taught(nnx.Module):
    """A student, and what is trained beside it and then dropped; the logits are the student's."""

    def __init__(self, student: Any, features: sj.distill.ScaleKD | None):
        self.student, self.features = student, features

    def __call__(self, x: Array) -> Array:
        """Logits."""
        return self.student(x)


@dataclass(frozen=True)
class Distil:
    """Train a classifier with the terms of ScaleKD, from a teacher that is trained before.

    Students of one teacher share it: the first to need it keeps it in the working folder.
    """

    headline: ClassVar[str] = "accuracy"

    training: Classify
    """Of the student; its `prunable` paths begin with "student/"."""
    teacher: Classify
    fraction: float = 0.0
    """Of the loss to the labels that is that to the teacher's classes."""
    strengths: tuple[float, float] = (0.0, 0.0)
    """Of the spatial and the frequency view; with neither there are no projectors."""
    through_teacher: bool = False
    """Do the early features go through the teacher's last blocks?"""

    @property
    def label(self) -> str:
        """training-distilled-fraction-strengths."""
        terms = [f"{number:g}" for number in (self.fraction, *self.strengths)]
        through = ["tpp"] if self.through_teacher else []
        return "-".join([self.training.label, "distilled", *terms, *through])

    def run(self, job: Job) -> dict[str, Any]:
        """Train the teacher or take what is there, train the student, test it."""
        teacher, accuracy = Compress(dense, self.teacher).pretrained(
            job._replace(seed=TEACHER_SEED)
        )
        dataset = self.training.data(job.data)
        images = standardize_like(dataset.train_images)(
            dataset.train_images[: self.training.batch_size]
        )
        network = train.built(lambda: self._taught(teacher, images, len(dataset.classes), job.seed))
        gradients = functools.partial(self._gradients, teacher=teacher, images=images)
        return {
            "teacher_accuracy": accuracy,
            **self.training.train_from(network, job, gradients=gradients)[1],
        }

    def _taught(self, teacher: train.Network, images: Any, classes: int, seed: int) -> Taught:
        student: Any = self.training.net(images.shape[1:], classes, seed)
        if not any(self.strengths):
            return Taught(student, None)
        own = jax.eval_shape(lambda: stages(merged(train.take_apart(student)), images)[1])
        wanted = jax.eval_shape(lambda: stages(merged(teacher), images)[1])
        features = sj.distill.ScaleKD(
            [maps.shape[-1] for maps in own],
            [maps.shape[-1] for maps in wanted],
            grids=[maps.shape[1:3] for maps in own],
            teacher_tail=tail_of(teacher, wanted[0].shape) if self.through_teacher else None,
            strengths=self.strengths,
            rngs=nnx.Rngs(seed),
        )
        return Taught(student, features)

    def _gradients(
        self, network: train.Network, *, teacher: train.Network, images: Any
    ) -> Callable:
        """As `train.make_gradients`, of the loss with the teacher's terms."""
        gradients = train.gradients_of(self.make_loss(network))
        judge = sj.compile(
            lambda variables, x: stages(merged(teacher._replace(**variables)), x),
            {"params": teacher.params, "statistics": teacher.statistics},
            images,
            tune=False,
        )

        def taught(params: Any, statistics: Any, images: Array, labels: Array) -> Any:
            return gradients(params, statistics, images, (labels, judge(images)))

        return taught

    def make_loss(self, network: train.Network) -> Callable:
        """As `train.make_loss`, with (labels, the teacher's (logits, maps)) for the labels."""

        def loss_of(params: Any, statistics: Any, images: Array, targets: Any) -> Any:
            labels, (wanted, teacher_maps) = targets
            module = nnx.merge(network.graph, params, statistics, copy=True)
            module.train()
            logits, maps = stages(module.student, images)
            loss = sj.distill.distillation_loss(logits, wanted, labels, fraction=self.fraction)
            if module.features is not None:
                loss += module.features(maps, teacher_maps).total
            accuracy = (logits.argmax(-1) == labels).mean()
            statistics = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))
            return loss, (statistics, train.Metrics(loss, accuracy))

        return loss_of


def merged(network: train.Network) -> Any:
    """The module of a network in inference mode."""
    module = nnx.merge(network.graph, network.params, network.statistics, copy=True)
    module.eval()
    return module


def stages(module: Any, images: Any) -> tuple[Array, tuple[Array, Array]]:
    """Logits, and early and late maps, of a MobileNet-v1."""
    maps = module.maps(jnp.asarray(images))
    return module.head(maps[-1].mean(axis=(1, 2))), (maps[EARLY], maps[-1])


def tail_of(teacher: train.Network, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """A function from tokens to late maps: the teacher's blocks behind the early maps."""

    def tail(tokens: Array) -> Array:
        maps = tokens.reshape(len(tokens), *shape[1:])
        for block in merged(teacher).blocks[EARLY + 1 :]:
            maps = block(maps)
        return maps

    return tail
