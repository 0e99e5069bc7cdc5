"""What Python hands to the compiled extension is right, or an exception says what is wrong."""

import contextlib
import itertools

import numpy as np
import pytest

from sparsejax.ops import _ffi

# a step from its window to its bias, with nothing that would not be neutral
PLAIN = [1] * 6 + [0] * 5 + [-1] * 2 + [1] + [0] * 8 + [-1] * 2
VALUES = [0x73706A7803, 1, 2, 3, 4]  # one, of 2 x 3 x 4
INPUT, OUTPUT = [0, 0, *PLAIN, 0, 3, 0, 0], [1, -1, *PLAIN, 0, 3, 1, 0, 0]
WORDS = np.array([*VALUES, 2, *INPUT, *OUTPUT])
FLOATS = np.zeros(4, np.float32)
NUMBERS = itertools.count()


def program(words=WORDS, floats=FLOATS, strip_pixels=24, whole_pixels=60, strip_floats=0):
    sizes = strip_pixels, whole_pixels, strip_floats
    return _ffi.Program(f"extension {next(NUMBERS)}", words, floats, *sizes)


def shifted(array):
    """The same numbers at an address that is one byte off."""
    room = np.zeros(array.nbytes + 1, np.uint8)[1:]
    room[:] = np.frombuffer(array.tobytes(), np.uint8)
    return room.view(array.dtype)


def changed(at, word):
    words = WORDS.copy()
    words[at] = word
    return words


# a call, its exception, a word of the message
REFUSED = {
    "no runs": (lambda: program().profile(0), ValueError, "runs of at least 1, got 0"),
    "negative runs": (lambda: program().profile(-(2**63)), ValueError, "runs"),
    "runs beyond int64": (lambda: program().profile(2**63), TypeError, "profile"),
    "half a run": (lambda: program().profile(1.5), TypeError, "profile"),
    "an operand too many": (
        lambda: program().profile(1, [np.zeros(24, np.float32)] * 2),
        ValueError,
        "profile needs 1 operands or none, got 2",
    ),
    "another size": (
        lambda: program().profile(1, [np.zeros(23, np.float32)]),
        ValueError,
        "got 23 floats instead of 24",
    ),
    "no operand": (lambda: program().profile(1, [None]), TypeError, "profile"),
    "no such set": (
        lambda: _ffi.Program("x", WORDS, FLOATS, 1, 0, isa="avx1024"),
        ValueError,
        "instruction set that is usable, got avx1024",
    ),
    "no rows": (lambda: program().with_rows("x", 0), ValueError, "rows of at least 1, got 0"),
    "rows beyond int64": (lambda: program().with_rows("x", 2**63), TypeError, "with_rows"),
    "no threads": (lambda: program().scratch_floats(0), ValueError, "threads of at least 1"),
    "negative threads": (lambda: program().scratch_floats(-4), ValueError, "threads"),
    "threads beyond int64": (lambda: program().scratch_floats(2**64), TypeError, "scratch_floats"),
    "no strips": (lambda: program(strip_pixels=0), ValueError, "strip_pixels of at least 1"),
    "negative strips": (lambda: program(strip_pixels=-(2**63)), ValueError, "strip_pixels"),
    "negative floats": (lambda: program(strip_floats=-1), ValueError, "strip_floats"),
    "negative maps": (lambda: program(whole_pixels=-1), ValueError, "whole_pixels"),
    "words between words": (lambda: program(shifted(WORDS)), ValueError, "words aligned"),
    "floats between floats": (
        lambda: program(floats=shifted(FLOATS)),
        ValueError,
        "floats aligned",
    ),
    "short words": (lambda: program(WORDS.astype(np.int32)), TypeError, "words: .*int64"),
    "unsigned words": (lambda: program(WORDS.astype(np.uint64)), TypeError, "words: .*int64"),
    "float words": (lambda: program(WORDS.astype(float)), TypeError, "words: .*int64"),
    "swapped words": (lambda: program(WORDS.astype(">i8")), TypeError, "words: .*int64"),
    "a list of words": (lambda: program(WORDS.tolist()), TypeError, "words: .*int64"),
    "bytes": (lambda: program(WORDS.tobytes()), TypeError, "words: .*int64"),
    "no array": (lambda: program(None), TypeError, "words: .*int64"),
    "words in two axes": (lambda: program(WORDS[None]), TypeError, "words: .*int64"),
    "a scalar": (lambda: program(np.int64(1)), TypeError, "words: .*int64"),
    "every other word": (lambda: program(np.repeat(WORDS, 2)[::2]), TypeError, "words: .*int64"),
    "double floats": (lambda: program(floats=FLOATS.astype(float)), TypeError, "floats: .*float32"),
    "no words": (lambda: program(WORDS[:0]), ValueError, "ends too early"),
    "a word too many": (lambda: program(np.append(WORDS, 0)), ValueError, "goes on"),
    "another mark": (lambda: program(changed(0, 7)), ValueError, "mark"),
    "values without end": (lambda: program(changed(1, 2**62)), ValueError, "number of values"),
    "sizes that overflow": (lambda: program(changed(slice(2, 5), 2**24)), ValueError, "too large"),
    "a size beyond int32": (
        lambda: program(changed(2, 2**40)),
        ValueError,
        "size is 1099511627776",
    ),
    "steps without end": (lambda: program(changed(5, 2**62)), ValueError, "number of steps"),
    "a list without end": (lambda: program(changed(-1, 2**63 - 1)), ValueError, "list's length"),
    "a name of bytes": (lambda: _ffi.Program(b"x", WORDS, FLOATS, 1, 0), TypeError, "name: str"),
    "a program that was never made": (
        lambda: _ffi.Program.__new__(_ffi.Program).profile(1),
        TypeError,
        "profile",
    ),
    "an instruction set of no name": (lambda: _ffi._xla_ops.use(None), TypeError, "use"),
}


@pytest.mark.filterwarnings("ignore:nanobind:RuntimeWarning")
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_the_extension_cannot_use_is_an_exception(case):
    call, error, said = case
    with pytest.raises(error, match=said):
        call()


def test_programs_cut_short_or_damaged_are_exceptions():
    for length in range(len(WORDS)):
        with pytest.raises(ValueError, match="program: "):
            program(WORDS[:length])
    for at, word in itertools.product(range(len(WORDS)), (-(2**63), -2, 2**31, 2**63 - 1)):
        with contextlib.suppress(ValueError):
            program(changed(at, word))


def test_numbers_at_their_limits_are_taken():
    for pixels in (1, 2**63 - 1):
        assert program(strip_pixels=pixels, whole_pixels=pixels).profile(2)[0] < 1
    made = program()
    assert made.scratch_floats(1) < made.scratch_floats(16) == made.scratch_floats(2**63 - 1)
    assert not _ffi._xla_ops.use("sse2\0")
