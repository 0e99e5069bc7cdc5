"""Kernels of a product with weights, closed under differentiation: any order, either mode.

Of y = W x three maps are linear in each of two arguments: the product itself in the weights and x,
its transpose in the weights and y, and the weights' gradient in x and y. Each is the derivative of
the other two, so that three kernels are all that any derivative needs.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from sparsejax.ops import activations
from sparsejax.ops.kernel import Call, Kernel
from sparsejax.ops.placement import Names

Shape = tuple[int, ...]


class Product(NamedTuple):
    """What an op says of itself; its `options` have a field `activation`.

    Attributes:
        num_lists: how many arrays of integers say where the values belong.
        reference: (options, values, lists, bias, x) -> activation(W x + bias) in plain JAX; a bias
            without elements is none.
        product: (call, values, *lists, bias, x) -> that, by a custom call.
        transposed: (call, values, *lists, grad_y) -> the gradient of x, by a custom call.
        weights: (call, *lists, x, grad_y) -> the gradients of values and bias, by a custom call.
            In custom calls x and y have one axis of images before the `tail` axes of each.
        tail: (options) -> how many axes of x belong to one image.
        axes: (options, rank of x) -> names of the axes of values, each list, bias, x and y; the
            bias has one axis of y.
        supports: (call, operands) -> have the custom calls a kernel for it?
    """

    num_lists: int
    reference: Callable[..., Array]
    product: Callable[..., Sequence[Array]]
    transposed: Callable[..., Sequence[Array]]
    weights: Callable[..., Sequence[Array]]
    tail: Callable[[Any], int]
    axes: Callable[[Any, int], Sequence[tuple[str, ...]]]
    supports: Callable[[Call, Sequence[Any]], bool]


class Kernels:
    """The three kernels of a Product, each with the others as its derivatives."""

    def __init__(self, op: Product):
        self.op = op
        self.product = Kernel(
            partial(self._on_device, op.product, 1),
            self._product_in_plain_jax,
            partial(self._names, lambda values, lists, bias, x, y: ((values, *lists, bias, x), y)),
            self._product_jvp,
            self._product_transpose,
            op.supports,
            free=op.num_lists + 2,
        )
        self.transposed = Kernel(
            partial(self._on_device, op.transposed, 1),
            self._transposed_in_plain_jax,
            partial(self._names, lambda values, lists, bias, x, y: ((values, *lists, y), x)),
            self._transposed_jvp,
            self._transposed_transpose,
            op.supports,
            free=op.num_lists + 1,
        )
        self.weights = Kernel(
            partial(self._on_device, op.weights, 2),
            self._weights_in_plain_jax,
            partial(self._names, lambda values, lists, bias, x, y: ((*lists, x, y), values, bias)),
            self._weights_jvp,
            self._weights_transpose,
            op.supports,
        )

    def _names(self, sides: Callable[..., Any], options: Any, ranks: Sequence[int]) -> Names:
        values, *lists, bias, x, y = self.op.axes(options, ranks[-1])
        operands, *results = sides(values, lists, bias, x, y)
        return Names(operands, tuple(results))

    def _on_device(
        self, custom_call: Callable[..., Any], num_images: int, call: Call, *operands: Array
    ) -> list[Array]:
        """The results of a custom call whose last operands are images, along one axis there."""
        lead, tail = call.lead, self.op.tail(call.options)

        def flat(shape: Shape) -> Shape:
            end = len(shape) - tail
            return (*shape[:lead], math.prod(shape[lead:end]), *shape[end:])

        rest, images = operands[:-num_images], operands[-num_images:]
        flattened = [array.reshape(flat(array.shape)) for array in images]
        results = call.results
        if num_images == 1:
            results = tuple(jax.ShapeDtypeStruct(flat(r.shape), r.dtype) for r in results)
        outputs = custom_call(call._replace(results=results), *rest, *flattened)
        pairs = zip(outputs, call.results, strict=True)
        return [output.reshape(result.shape) for output, result in pairs]

    # What runs elsewhere than on a CPU.

    def _product_in_plain_jax(self, call: Call, values: Array, *operands: Array) -> list[Array]:
        *lists, bias, x = operands
        return [self.op.reference(call.options, values, lists, bias, x)]

    def _transposed_in_plain_jax(self, call: Call, values: Array, *operands: Array) -> list[Array]:
        *lists, grad_y = operands
        forward = partial(self.op.reference, call.options, values, lists, _no_bias(call, grad_y))
        (x,) = call.results
        return list(jax.vjp(forward, jnp.zeros(x.shape, x.dtype))[1](grad_y))

    def _weights_in_plain_jax(self, call: Call, *operands: Array) -> list[Array]:
        *lists, x, grad_y = operands
        forward = lambda values, bias: self.op.reference(call.options, values, lists, bias, x)
        zeros = [jnp.zeros(result.shape, result.dtype) for result in call.results]
        return list(jax.vjp(forward, *zeros)[1](grad_y))

    # The kernels as linear maps: each with the type of its result.

    def _times(self, call: Call, values: Any, lists: Any, bias: Any, x: Any, shape: Shape) -> Array:
        """W x + bias, of a shape but for the axes of vmap."""
        bias = _no_bias(call, x) if bias is None else bias
        operands = (values, *lists, bias, x)
        return self.product(_linear(call, operands, shape), *operands)[0]

    def _times_transposed(
        self, call: Call, values: Any, lists: Any, grad_y: Any, shape: Shape
    ) -> Array:
        operands = (values, *lists, grad_y)
        return self.transposed(_linear(call, operands, shape), *operands)[0]

    def _gradients(self, call: Call, lists: Any, x: Any, grad_y: Any, shape: Shape) -> list[Array]:
        """Those of values of a shape and of the bias."""
        operands = (*lists, x, grad_y)
        size = (grad_y.shape[call.lead + self._bias_axis(call, grad_y)],)
        return self.weights(_linear(call, operands, shape, size), *operands)

    def _bias_axis(self, call: Call, y: Any) -> int:
        """The axis of y, without those of vmap, that the bias goes along."""
        *_, (name,), _, names = self.op.axes(call.options, y.ndim - call.lead)
        return names.index(name)

    def _spread(self, call: Call, bias: Any, like: Array) -> Array:
        """The bias at every pixel."""
        shape = [*bias.shape[:-1], *(1,) * (like.ndim - call.lead)]
        shape[call.lead + self._bias_axis(call, like)] = bias.shape[-1]
        return jnp.zeros_like(like) + bias.reshape(shape)

    # Derivatives.

    def _product_jvp(self, call: Call, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        values, *lists, bias, x = primals
        d_values, *_, d_bias, d_x = map(_nonzero, tangents)
        (y,) = self.product(call, *primals)
        shape = y.shape[call.lead :]
        d_bias = None if bias.shape[-1] == 0 else d_bias
        parts = []
        if d_values is not None:
            parts.append(self._times(call, d_values, lists, d_bias, x, shape))
        elif d_bias is not None:
            parts.append(self._spread(call, d_bias, y))
        if d_x is not None:
            parts.append(self._times(call, values, lists, None, d_x, shape))
        d_y = _sum(parts, y)
        if parts and call.options.activation:
            d_y = activations.grad(call.options.activation, y, d_y)
        return [y], [d_y]

    def _product_transpose(self, call: Call, cotangents: Any, operands: Sequence[Any]) -> Any:
        values, *lists, bias, x = operands
        grad_y = _nonzero(cotangents[0])
        grads: list[Any] = [None] * len(operands)
        if grad_y is None:
            return _zeros(operands)
        if ad.is_undefined_primal(x):
            grad = self._times_transposed(call, values, lists, grad_y, _own_shape(call, x))
            grads[-1] = _like(call, grad, x)
            return grads
        both = self._gradients(call, lists, x, grad_y, _own_shape(call, values))
        if ad.is_undefined_primal(values):
            grads[0] = _like(call, both[0], values)
        if ad.is_undefined_primal(bias):
            grads[-2] = _like(call, both[1], bias) if bias.aval.size else ad.Zero(_ct_type(bias))
        return grads

    def _transposed_jvp(self, call: Call, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        values, *lists, grad_y = primals
        d_values, *_, d_grad = map(_nonzero, tangents)
        (grad_x,) = self.transposed(call, *primals)
        shape = grad_x.shape[call.lead :]
        parts = []
        if d_values is not None:
            parts.append(self._times_transposed(call, d_values, lists, grad_y, shape))
        if d_grad is not None:
            parts.append(self._times_transposed(call, values, lists, d_grad, shape))
        return [grad_x], [_sum(parts, grad_x)]

    def _transposed_transpose(self, call: Call, cotangents: Any, operands: Sequence[Any]) -> Any:
        values, *lists, grad_y = operands
        x = _nonzero(cotangents[0])
        grads: list[Any] = [None] * len(operands)
        if x is None:
            return _zeros(operands)
        if ad.is_undefined_primal(values):
            grad = self._gradients(call, lists, x, grad_y, _own_shape(call, values))[0]
            grads[0] = _like(call, grad, values)
        else:
            grad = self._times(call, values, lists, None, x, _own_shape(call, grad_y))
            grads[-1] = _like(call, grad, grad_y)
        return grads

    def _weights_jvp(self, call: Call, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        *lists, x, grad_y = primals
        *_, d_x, d_grad = map(_nonzero, tangents)
        both = self.weights(call, *primals)
        shape = both[0].shape[call.lead :]
        parts: list[Array] = []
        d_bias: Any = ad.Zero(_tangent_type(both[1]))
        if d_x is not None:
            parts.append(self._gradients(call, lists, d_x, grad_y, shape)[0])
        if d_grad is not None:
            d_values, d_bias = self._gradients(call, lists, x, d_grad, shape)
            parts.append(d_values)
        return both, [_sum(parts, both[0]), d_bias]

    def _weights_transpose(self, call: Call, cotangents: Any, operands: Sequence[Any]) -> Any:
        *lists, x, grad_y = operands
        values, bias = map(_nonzero, cotangents)
        grads: list[Any] = [None] * len(operands)
        if ad.is_undefined_primal(x):
            if values is None:
                return _zeros(operands)
            grad = self._times_transposed(call, values, lists, grad_y, _own_shape(call, x))
            grads[-2] = _like(call, grad, x)
            return grads
        if values is None and bias is None:
            return _zeros(operands)
        if values is None:
            values = jnp.zeros(call.results[0].shape, call.results[0].dtype)
        grad = self._times(call, values, lists, bias, x, _own_shape(call, grad_y))
        grads[-1] = _like(call, grad, grad_y)
        return grads


def _linear(call: Call, operands: Sequence[Array], *shapes: Shape) -> Call:
    """The call without an activation, whose results have these shapes but for axes of vmap."""
    sizes = [{operand.shape[axis] for operand in operands} - {1} for axis in range(call.lead)]
    lead = tuple(max(size, default=1) for size in sizes)
    dtype = operands[-1].dtype
    results = tuple(jax.ShapeDtypeStruct((*lead, *shape), dtype) for shape in shapes)
    return call._replace(options=call.options._replace(activation=0), results=results)


def _no_bias(call: Call, like: Array) -> Array:
    return jnp.zeros((*(1,) * call.lead, 0), like.dtype)


def _nonzero(tangent: Any) -> Any:
    return None if type(tangent) is ad.Zero else tangent


def _sum(parts: Sequence[Array], like: Array) -> Any:
    return reduce(jnp.add, parts) if parts else ad.Zero(_tangent_type(like))


def _tangent_type(array: Array) -> Any:
    return jax.typeof(array).to_tangent_aval()


def _ct_type(operand: Any) -> Any:
    return operand.aval.to_ct_aval()


def _zeros(operands: Sequence[Any]) -> list[Any]:
    return [ad.Zero(_ct_type(o)) if ad.is_undefined_primal(o) else None for o in operands]


def _own_shape(call: Call, operand: Any) -> Shape:
    """The shape without the axes of vmap."""
    shape = operand.aval.shape if ad.is_undefined_primal(operand) else operand.shape
    return tuple(shape[call.lead :])


def _like(call: Call, grad: Array, operand: Any) -> Array:
    """The gradient of an operand that was the same all along some axes of vmap."""
    shape = operand.aval.shape
    same = tuple(axis for axis in range(call.lead) if shape[axis] == 1 != grad.shape[axis])
    return grad.sum(same, keepdims=True) if same else grad
