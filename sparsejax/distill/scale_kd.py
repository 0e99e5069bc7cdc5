"""ScaleKD: the features of a student's last two stages against a transformer teacher's."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sparsejax.distill.losses import dual_view_loss
from sparsejax.distill.projector import CrossAttentionProjector

Maps = Float[Array, "batch height width channels"]
Tail = Callable[[Float[Array, "batch tokens channels"]], Maps]


class FeatureLosses(NamedTuple):
    """The losses of both stages in both views, strengths included."""

    early_spatial: Float[Array, ""]
    early_frequency: Float[Array, ""]
    late_spatial: Float[Array, ""]
    late_frequency: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        """Their sum."""
        return sum(self[1:], self[0])


class ScaleKD(nnx.Module):
    """The feature losses of a student: four projectors, which are trained with it and then dropped.

    In each stage one projector makes the teacher's tokens for the spatial view, and one for the
    frequency view (`dual_view_loss`). With `teacher_tail`, the tokens of the early stage go through
    the teacher's last stage, whose weights stay as they are, so that the student perceives them;
    what comes out is compared with the teacher's late features, and queries the late projectors.
    Without, the early tokens are compared with the teacher's early features, and the late
    projectors learn their queries.

    Keep its parameters beside the student's in the tree that the optimizer sees, out of the plan's
    rules, and deploy the student's alone.

    Args:
      student_channels: of the student's early and late maps.
      teacher_channels: of the teacher's.
      grids: height and width of both stages, those of student and teacher.
      num_heads: of the projectors in both stages.
      teacher_tail: early tokens (batch, tokens, channels) to late maps, the frozen last stage.
      strengths: of the two views, as in `dual_view_loss`; a view of strength 0 is not computed.
      rngs: as for every NNX module.

    Example:
      >>> from flax import nnx
      >>> losses = sj.distill.ScaleKD((4, 6), (8, 8), grids=((4, 4), (2, 2)), rngs=nnx.Rngs(0))
      >>> student = jnp.ones((2, 4, 4, 4)), jnp.ones((2, 2, 2, 6))
      >>> teacher = jnp.ones((2, 4, 4, 8)), jnp.ones((2, 2, 2, 8))
      >>> losses(student, teacher).total.shape
      ()

    Reference: Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers",
    NeurIPS 2024, arXiv 2411.06786, teacher parameter perception; as in the authors' code.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        *,
        grids: Sequence[tuple[int, int]],
        num_heads: Sequence[int] = (8, 8),
        teacher_tail: Tail | None = None,
        strengths: tuple[float, float] = (0.08, 0.06),
        rngs: nnx.Rngs,
    ):
        def projector(stage: int) -> CrossAttentionProjector:
            return CrossAttentionProjector(
                student_channels[stage],
                teacher_channels[stage],
                grid=grids[stage],
                num_heads=num_heads[stage],
                own_query=stage == 0 or teacher_tail is None,
                rngs=rngs,
            )

        self.early_spatial, self.early_frequency = projector(0), projector(0)
        self.late_spatial, self.late_frequency = projector(1), projector(1)
        self.teacher_tail, self.strengths = teacher_tail, strengths

    def __call__(self, student: tuple[Maps, Maps], teacher: tuple[Maps, Maps]) -> FeatureLosses:
        """The losses of the early and the late maps."""
        (early, late), (teacher_early, teacher_late) = student, teacher
        views = (self.early_spatial, self.late_spatial), (self.early_frequency, self.late_frequency)
        losses = []
        for view, (early_projector, late_projector) in enumerate(views):
            if not self.strengths[view]:
                losses += [jnp.zeros(())] * 2
                continue
            query, target = None, teacher_early
            made = early_projector(early)
            if self.teacher_tail is not None:
                made, target = self.teacher_tail(made), teacher_late
                query = made.reshape(len(made), -1, made.shape[-1])
            last = late_projector(late, query)
            losses += [self._loss(view, made, target), self._loss(view, last, teacher_late)]
        return FeatureLosses(losses[0], losses[2], losses[1], losses[3])

    def _loss(self, view: int, made: Array, target: Maps) -> Float[Array, ""]:
        if made.size != target.size:
            raise ValueError(
                f"ScaleKD needs the teacher's maps in the shape of what it makes of the student's, "
                f"got {target.shape} for {made.shape}; check grids and teacher_channels."
            )
        return dual_view_loss(made.reshape(target.shape), target, strengths=self.strengths)[view]
