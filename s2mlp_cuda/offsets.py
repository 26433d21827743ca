"""Named shift tables: one (dh, dw) pair per channel group.

dh and dw are in tokens. Positive values move content toward higher indices: (1, 0) moves it down by one row and (0, -1) left by
one column. The number of groups is the length of the table. By default, group g of G owns channels floor(g*C/G) ..
floor((g+1)*C/G) - 1. Any sequence of integer pairs is a valid table; this module has those of published networks.

Shifts of other networks, as arguments of :func:`s2mlp_cuda.spatial_shift` (C is the number of channels):

=================  ===========================================  ==================================  ==============
network            offsets                                      group_sizes                         padding_mode
=================  ===========================================  ==================================  ==============
AS-MLP, UNeXt      ``AXIAL_5_HEIGHT``, then ``AXIAL_5_WIDTH``   ``chunk_sizes(C, 5)``               ``"zeros"``
ShiftViT           ``SHIFT_VIT``                                ``partial_sizes(C, 4, C // 12)``    ``"zeros"``
TSM (H is time)    ``TSM``                                      ``partial_sizes(C, 2, C // 8)``     ``"zeros"``
4-connected shift  ``FOUR_CONNECTED``                           ``None``                            ``"zeros"``
Wu et al. 2017     ``NINE_WAY``                                 ``None``                            ``"zeros"``
Swin, Hire-MLP     ``((-s, -s),)``                              ``None``                            ``"circular"``
=================  ===========================================  ==================================  ==============
"""

from collections.abc import Sequence

OffsetTable = tuple[tuple[int, int], ...]

#: S2-MLP as printed in its Alg. 1 (arXiv 2106.07477, section 3.2), whose first axis is the width.
V1: OffsetTable = ((0, 1), (0, -1), (1, 0), (-1, 0))
#: S2-MLPv2, eq. 1 (arXiv 2108.01072): rows first.
SS1: OffsetTable = ((1, 0), (-1, 0), (0, 1), (0, -1))
#: S2-MLPv2, eq. 8: columns first.
SS2: OffsetTable = ((0, 1), (0, -1), (1, 0), (-1, 0))
#: One group that does not move.
IDENTITY: OffsetTable = ((0, 0),)

UP: OffsetTable = ((-1, 0),)
DOWN: OffsetTable = ((1, 0),)
LEFT: OffsetTable = ((0, -1),)
RIGHT: OffsetTable = ((0, 1),)
VERTICAL: OffsetTable = DOWN + UP
HORIZONTAL: OffsetTable = RIGHT + LEFT
UP_RIGHT: OffsetTable = UP + RIGHT
LEFT_DOWN: OffsetTable = LEFT + DOWN
#: All eight neighbors. The order of the diagonals is inferred; the paper does not give it.
EIGHT_WAY: OffsetTable = V1 + ((1, 1), (1, -1), (-1, 1), (-1, -1))

#: The shift settings of the ablation in arXiv 2106.07477, keyed by the paper's letters; "none" is its no-shift row.
ABLATION: dict[str, OffsetTable] = {
    "a": V1,
    "b": EIGHT_WAY,
    "c": UP_RIGHT,
    "d": LEFT_DOWN,
    "e": VERTICAL,
    "f": HORIZONTAL,
    "g": UP,
    "h": DOWN,
    "i": LEFT,
    "j": RIGHT,
    "none": IDENTITY,
}

#: AS-MLP (arXiv 2107.08391) and UNeXt (arXiv 2203.04967): five chunks along one axis.
AXIAL_5_HEIGHT: OffsetTable = tuple((d, 0) for d in range(-2, 3))
AXIAL_5_WIDTH: OffsetTable = tuple((0, d) for d in range(-2, 3))
#: ShiftViT (arXiv 2201.10801): left, right, up, down; the remaining channels do not move.
SHIFT_VIT: OffsetTable = LEFT + RIGHT + UP + DOWN + IDENTITY
#: TSM (arXiv 1811.08383) with time as the height of the map: backward, forward; the remaining channels do not move.
TSM: OffsetTable = UP + DOWN + IDENTITY
#: 4-connected shift residual networks (ICCVW 2019): four neighbors and the token itself.
FOUR_CONNECTED: OffsetTable = V1 + IDENTITY
#: Shift (arXiv 1711.08141): a 3x3 neighborhood, including the token itself.
NINE_WAY: OffsetTable = tuple((dh, dw) for dh in (-1, 0, 1) for dw in (-1, 0, 1))

#: All tables of this module, by name.
PRESETS: dict[str, OffsetTable] = {
    "V1": V1,
    "SS1": SS1,
    "SS2": SS2,
    "IDENTITY": IDENTITY,
    "UP": UP,
    "DOWN": DOWN,
    "LEFT": LEFT,
    "RIGHT": RIGHT,
    "VERTICAL": VERTICAL,
    "HORIZONTAL": HORIZONTAL,
    "UP_RIGHT": UP_RIGHT,
    "LEFT_DOWN": LEFT_DOWN,
    "EIGHT_WAY": EIGHT_WAY,
    "AXIAL_5_HEIGHT": AXIAL_5_HEIGHT,
    "AXIAL_5_WIDTH": AXIAL_5_WIDTH,
    "SHIFT_VIT": SHIFT_VIT,
    "TSM": TSM,
    "FOUR_CONNECTED": FOUR_CONNECTED,
    "NINE_WAY": NINE_WAY,
}


def name_of(table: Sequence[Sequence[int]]) -> str:
    """The names of the presets that equal a table, e.g. ``"V1/SS2"``, or the table itself as text."""
    pairs = tuple((int(dh), int(dw)) for dh, dw in table)
    return "/".join(name for name, preset in PRESETS.items() if preset == pairs) or str(pairs)


def chunk_sizes(channels: int, chunks: int) -> tuple[int, ...]:
    """Group sizes as in ``torch.chunk``: ceil(channels / chunks) each; the last may be smaller.

    Raises:
        ValueError: ``torch.chunk`` would return fewer than ``chunks`` parts.
    """
    size = -(-channels // chunks)
    last = channels - size * (chunks - 1)
    if last <= 0:
        raise ValueError(f"{channels} channels cannot be split into {chunks} chunks of {size}")
    return (size,) * (chunks - 1) + (last,)


def partial_sizes(channels: int, groups: int, size: int) -> tuple[int, ...]:
    """Group sizes of ``groups`` groups of ``size`` channels, followed by one group with the remaining channels.

    Raises:
        ValueError: ``groups * size`` exceeds ``channels``.
    """
    if size < 0 or groups * size > channels:
        raise ValueError(f"{groups} groups of {size} do not fit into {channels} channels")
    return (size,) * groups + (channels - groups * size,)
