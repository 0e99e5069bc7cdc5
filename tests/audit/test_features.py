"""What is seen of a function: XLA's program by hand, and times by a slow one."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.audit.programs import bytes_of, read_program

PROGRAM = """HloModule jit_run

%fused (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %sine = f32[4,8]{1,0} sine(%p)
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %weights.1 = f32[8,8]{1,0} constant({...})
  %sin = f32[4,8]{1,0} fusion(%x), kind=kLoop, calls=%fused
  %pair = (bf16[4,8]{1,0}, s32[4,2]{1,0}) custom-call(%sin), custom_call_target="TopK"
  %first = bf16[4,8]{1,0} get-tuple-element(%pair), index=0
  ROOT %dot = f32[4,8]{1,0} dot(%first, %weights.1)
}
"""


def test_a_program_is_told_by_its_entry():
    handed = 4 * 32 + (2 * 32 + 4 * 8)
    assert read_program(PROGRAM) == (3, handed, 4 * 64)


def test_shapes_are_bytes():
    assert bytes_of("f32[]") == 4 and bytes_of("pred[3]") == 3 and bytes_of("s4[3,2]") == 3
    assert bytes_of("(bf16[2,2]{1,0}, f64[0])") == 8 and bytes_of("token[]") == 0


KERNEL, X = np.arange(128, dtype=np.float32).reshape(8, 16), np.ones((4, 8), np.float32)


def test_the_program_tells_operations_and_weights():
    seen = sj.audit.execution_features(lambda x: jnp.sin(x @ KERNEL), X, sees="program")
    assert math.expm1(seen["log operations"]) >= 2 * 4 * 8 * 16
    assert math.expm1(seen["log constant bytes"]) == pytest.approx(KERNEL.nbytes, abs=16)
    assert seen["kernels"] >= 1 and all(map(math.isfinite, seen.values()))


def test_times_are_those_of_the_call():
    def slow(x):
        return jax.pure_callback(
            lambda x: time.sleep(0.002 * x.shape[0]) or x, jax.ShapeDtypeStruct(x.shape, x.dtype), x
        )

    seen = sj.audit.execution_features(slow, X, sees="times", more=3, larger=(X[:1],), repeats=3)
    assert list(seen) == ["log ms", "spread", "ms of 3 times the batch", "ms of larger inputs"]
    assert 8 <= math.exp(seen["log ms"]) < 40
    assert seen["ms of 3 times the batch"] > 0.3 and seen["ms of larger inputs"] < -0.3


def test_an_observer_of_all_sees_both():
    names = [
        set(sj.audit.execution_features(jnp.sin, X, sees=sees, repeats=1))
        for sees in ("all", "times", "program")
    ]
    assert names[0] == names[1] | names[2] and not names[1] & names[2]
    with pytest.raises(ValueError, match='sees="times", "program" or "all", got \'code\''):
        sj.audit.execution_features(jnp.sin, X, sees="code")
