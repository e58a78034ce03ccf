"""How inner loops are compiled, and the one comparison that numba does not make fast on its own.

Only a few percent of the products in a tile matter: those above a limit. `exceeding` finds them. Numba compiles a loop
with a conditional body to one test and one jump per pair. Instead, sixteen pairs at a time are compared in vector
registers. This gives a mask of sixteen bits, almost always 0, and the positions of its set bits are read one after the
other. Both steps are written in LLVM IR, as intrinsics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., object])

_LANES = 16


def compiled(function: Function) -> Function:
    """Compile without the GIL, and cache the result across runs.

    The numba cache only detects changes to the function's own file. After changing a compiled function that is used in
    another file, touch that file too.
    """
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def _typed_sixteen_exceed(typingctx: Any, values: Any, limits: Any, first: Any, addend: Any) -> Any:
    """Return a bit mask of values[first + i] + addend > limits[first + i], i < 16, float32 and contiguous."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), _LANES)
        loaded: list[Any] = []
        for array, kind in zip(arguments[:2], signature.args[:2], strict=True):
            data = context.make_array(kind)(context, builder, array).data
            place = builder.bitcast(builder.gep(data, [arguments[2]]), ir.PointerType(vector))
            loaded.append(builder.load(place, align=4))
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[3], ir.Constant(ir.IntType(32), 0))
        every = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        sums = builder.fadd(loaded[0], builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), every))
        bits = builder.bitcast(builder.fcmp_ordered(">", sums, loaded[1]), ir.IntType(_LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(values, limits, first, addend), generate


def _typed_lowest_bit(typingctx: Any, mask: Any) -> Any:
    """Return the position of the lowest set bit in a mask that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


_sixteen_exceed: Any = intrinsic(_typed_sixteen_exceed)
_lowest_bit: Any = intrinsic(_typed_lowest_bit)


@compiled
def exceeding(values: np.ndarray, limits: np.ndarray, addend: np.float32, found: np.ndarray) -> int:
    """Write to `found` the positions where values + addend > limits, in order; return how many there are."""
    num = np.uint64(0)
    width = len(values)
    whole = width // 16 * 16
    for first in range(0, whole, 16):
        mask = _sixteen_exceed(values, limits, first, addend)
        while mask:
            found[num] = np.uint64(first) + _lowest_bit(mask)
            num += np.uint64(1)
            mask &= mask - np.uint64(1)
    for c in range(whole, width):
        if values[c] + addend > limits[c]:
            found[num] = c
            num += np.uint64(1)
    return int(num)
