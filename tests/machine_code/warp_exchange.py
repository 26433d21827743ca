"""Communication within a warp: shuffles, votes and reductions."""

import numpy as np

from decoding import I32, OTHER, U32, Reader, operation
from lanes import WARP


@operation("SHFL", kind=OTHER)
def shfl(rd: Reader):
    """Like PTX's shfl: ``limits`` holds the segment mask and the clamp value. Inactive lanes send nothing."""
    mode = rd.choice("IDX", "UP", "DOWN", "BFLY")
    write_valid, write = rd.predicate_result(), rd.result()
    value, distance, limits = rd.word(), rd.word(), rd.word()

    def run(m, s):
        lane = (s.numbers % WARP).astype(I32)
        b = (distance(m, s) & U32(31)).view(I32)
        limit = limits(m, s)
        last, segment = (limit & U32(31)).view(I32), (limit >> U32(8) & U32(31)).view(I32)
        greatest = (lane & segment) | (last & ~segment)
        source = {
            "IDX": lambda: (lane & segment) | (b & ~segment),
            "UP": lambda: lane - b,
            "DOWN": lambda: lane + b,
            "BFLY": lambda: lane ^ b,
        }[mode]()
        valid = source >= greatest if mode == "UP" else source <= greatest
        everyone = np.zeros(m.total, U32)
        everyone[s.index] = value(m, s)
        chosen = everyone[s.warp_of * WARP + np.where(valid, source, lane)]
        write(m, s, chosen)
        write_valid(m, s, valid)

    return run


@operation("VOTE", "VOTEU", kind=OTHER)
def vote(rd: Reader):
    """Over the active lanes: a truth value, and a mask of the lanes whose condition is true."""
    mode = rd.choice("ANY", "ALL", "EQ")
    write = None if rd.at_predicate() else rd.result()
    write_truth = rd.predicate_result() if rd.more() > 1 else None
    uniform, rd.uniform = rd.uniform, False  # the source is per lane
    condition = rd.predicate()

    def run(m, s):
        said = np.zeros(m.total, bool)
        said[s.index] = condition(m, s)
        ballots = np.packbits(said, bitorder="little").view("<u4")
        active = s.bits
        truth = {
            "ANY": ballots != 0,
            "ALL": ballots == active,
            "EQ": (ballots == 0) | (ballots == active),
        }[mode]
        where = s.warps if uniform else s.warp_of
        if write is not None:
            write(m, s, ballots[where])
        if write_truth is not None:
            write_truth(m, s, truth[where])

    return run


REDUCTIONS = {
    "SUM": np.add,
    "MIN": np.minimum,
    "MAX": np.maximum,
    "AND": np.bitwise_and,
    "OR": np.bitwise_or,
    "XOR": np.bitwise_xor,
}


@operation("REDUX", kind=OTHER)
def redux(rd: Reader):
    """Reduces over the active lanes of a warp, into a uniform register."""
    reduction = REDUCTIONS[rd.choice(*REDUCTIONS, default="AND")]
    dtype = I32 if rd.flag("S32") else U32
    write, value = rd.result(), rd.word()

    def run(m, s):
        values = np.ascontiguousarray(np.broadcast_to(value(m, s), s.warp_of.shape)).view(dtype)
        write(m, s, reduction.reduceat(values, s.first_of_warp).view(U32))

    return run
