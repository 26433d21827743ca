"""float16 and bfloat16, as the lower 16 bits of a uint32."""

import numpy as np

from decoding import F32, U32

HALF_BITS = U32(16)
BFLOAT16_NAN = U32(0x7FFF)


def to_bfloat16(value):
    """Bits of the nearest bfloat16."""
    value = np.asarray(value).astype(F32)
    bits = value.view(U32)
    rounded = (bits + U32(0x7FFF) + (bits >> HALF_BITS & U32(1))) >> HALF_BITS
    return np.where(np.isnan(value), BFLOAT16_NAN, rounded)


def cut_to_bfloat16(value):
    """Bits of the bfloat16 next to it towards zero."""
    value = np.asarray(value).astype(F32)
    return np.where(np.isnan(value), BFLOAT16_NAN, value.view(U32) >> HALF_BITS)


def to_float16(value):
    return np.asarray(value).astype(np.float16).view(np.uint16).astype(U32)


def from_bfloat16(bits):
    return (bits << HALF_BITS).view(F32)


def from_float16(bits):
    return np.asarray(bits).astype(np.uint16).view(np.float16).astype(F32)


#: Conversions to float32 and back.
HALF_FORMATS = {"BF16": (from_bfloat16, to_bfloat16), "F16": (from_float16, to_float16)}
