"""What a student is to have in common with its teacher: logits, and features in two views."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

_SMALLEST_NORM = 1e-12


def soft_cross_entropy(
    student: Float[Array, "*batch classes"],
    teacher: Float[Array, "*batch classes"],
    *,
    temperature: float = 1.0,
) -> Float[Array, ""]:
    """The cross-entropy of the student's softened classes to the teacher's, times T^2, as a mean.

    Its gradient for the student is that of the Kullback-Leibler divergence.

    Args:
      student, teacher: logits; the teacher's have no gradient.
      temperature: T, by which both are divided.

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv
    1503.02531, section 2.
    """
    _check_alike("soft_cross_entropy", student, teacher)
    if temperature <= 0:
        raise ValueError(f"soft_cross_entropy needs a temperature above 0, got {temperature}.")
    targets = jax.nn.softmax(jax.lax.stop_gradient(teacher) / temperature)
    losses = optax.softmax_cross_entropy(student / temperature, targets)
    return temperature**2 * jnp.mean(losses)


def distillation_loss(
    student: Float[Array, "*batch classes"],
    teacher: Float[Array, "*batch classes"],
    labels: Int[Array, "*batch"],
    *,
    fraction: float = 0.5,
    temperature: float = 1.0,
    label_smoothing: float = 0.1,
) -> Float[Array, ""]:
    """(1 - fraction) cross-entropy to the labels + fraction of that to the teacher.

    Args:
      student, teacher: logits.
      labels: the right classes.
      fraction: of the loss that is the teacher's.
      temperature: of `soft_cross_entropy`.
      label_smoothing: of the labels, 0 to 1.

    Example:
      >>> logits = jnp.log(jnp.array([[0.5, 0.5]]))
      >>> loss = sj.distill.distillation_loss(logits, logits, jnp.array([0]))
      >>> round(float(loss), 4)
      0.6931

    Reference: Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers",
    NeurIPS 2024, arXiv 2411.06786; the defaults are those of the authors' configurations.
    """
    targets = optax.smooth_labels(
        jax.nn.one_hot(labels, student.shape[-1], dtype=student.dtype), label_smoothing
    )
    hard = jnp.mean(optax.softmax_cross_entropy(student, targets))
    soft = soft_cross_entropy(student, teacher, temperature=temperature)
    return (1.0 - fraction) * hard + fraction * soft


def dual_view_loss(
    student: Float[Array, "batch height width channels"],
    teacher: Float[Array, "batch height width channels"],
    *,
    strengths: tuple[float, float] = (0.08, 0.06),
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The distances of two feature maps as they are, and without their mean over the pixels.

    Each is ||S / |S| - T / |T| ||^2 with the norms over the channels of a pixel, summed over pixels
    and channels, a mean over images, times its strength. To leave out a map's mean is to leave out
    the constant term of its cosine transform, which the teacher's features are dominated by.

    Args:
      student: features in the teacher's shape.
      teacher: features; they have no gradient.
      strengths: of the spatial and of the frequency view. The sums grow with the number of pixels:
        the defaults were chosen for maps of 14 x 14 and 7 x 7.

    Returns:
      The spatial and the frequency loss.

    Reference: Fan et al., "ScaleKD", NeurIPS 2024, arXiv 2411.06786, dual-view feature mimicking;
    formula as in the authors' code.
    """
    _check_alike("dual_view_loss", student, teacher)
    teacher = jax.lax.stop_gradient(teacher)
    centred = lambda maps: maps - maps.mean((-3, -2), keepdims=True)
    spatial, frequency = strengths
    return (
        spatial * _distance(student, teacher),
        frequency * _distance(centred(student), centred(teacher)),
    )


def _distance(student: Array, teacher: Array) -> Float[Array, ""]:
    squares = jnp.square(_unit(student) - _unit(teacher))
    return jnp.mean(squares.sum((-3, -2, -1)))


def _unit(maps: Array) -> Array:
    """Each pixel's channels with norm 1; zeros stay zeros, with a gradient that is finite."""
    squares = jnp.sum(jnp.square(maps), axis=-1, keepdims=True)
    return maps * jax.lax.rsqrt(jnp.maximum(squares, _SMALLEST_NORM**2))


def _check_alike(asker: str, student: Array, teacher: Array) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"{asker} needs student and teacher of one shape, got {student.shape} and "
            f"{teacher.shape}; project the student's features, as CrossAttentionProjector does."
        )
