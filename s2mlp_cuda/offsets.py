"""Named shift tables: one (dh, dw) pair per channel group.

dh and dw are in tokens. Positive values move content toward higher indices: (1, 0) moves it down by one row and (0, -1) left by
one column. The number of groups is the length of the table. By default, group g of G owns channels floor(g*C/G) ..
floor((g+1)*C/G) - 1. Any sequence of integer pairs is a valid table; this module has those of published networks.

Public PyTorch implementations of S2-MLP apply the code of its Alg. 1, whose first axis is the width, to (B, H, W, C) maps. They
shift along the height first, which is ``SS1``, not ``V1``: use ``SS1`` to replace their shift, or to load their weights.

Shifts of other networks, as arguments of :func:`s2mlp_cuda.spatial_shift` (C is the number of channels):

==================  ========================================================  =================================  ===============
network             offsets                                                   group_sizes                        padding_mode
==================  ========================================================  =================================  ===============
AS-MLP              ``AXIAL_5_HEIGHT`` and ``AXIAL_5_WIDTH``, parallel        ``chunk_sizes(C, 5)``              ``"zeros"``
UNeXt               ``AXIAL_5_HEIGHT``, later ``AXIAL_5_WIDTH``               ``chunk_sizes(C, 5)``              ``"zeros"``
MS-MLP              ``AXIAL_5_HEIGHT`` and ``AXIAL_5_WIDTH``, parallel        ``chunk_sizes(C, 5)``              ``"circular"``
Hire-MLP            ``((s, 0),)`` and ``((0, s),)``, parallel                 ``None``                           ``"circular"``
Swin                ``((-s, -s),)``                                           ``None``                           ``"circular"``
ShiftViT            ``SHIFT_VIT``                                             ``partial_sizes(C, 4, C // 12)``   ``"zeros"``
ELAN                ``SHIFT_VIT``                                             ``partial_sizes(C, 4, C // 5)``    ``"zeros"``
Vision-RWKV         ``V1``                                                    ``None``                           ``"zeros"``
4-connected shift   ``FOUR_CONNECTED``                                        ``None``                           ``"zeros"``
TSM (H is time)     ``TSM``                                                   ``partial_sizes(C, 2, C // 8)``    ``"zeros"``
Wu et al. 2017      ``interleaved(NINE_WAY, C - C % 9) + C % 9 * IDENTITY``   ``None``                           ``"zeros"``
CycleFC, (1, 3)     ``interleaved(CYCLE_3_WIDTH, C)``                         ``None``                           ``"zeros"``
CycleFC, (3, 1)     ``interleaved(CYCLE_3_HEIGHT, C)``                        ``None``                           ``"zeros"``
==================  ========================================================  =================================  ===============

"Parallel" shifts read the same input, each in a branch of its own:

>>> import torch
>>> from s2mlp_cuda import spatial_shift
>>> x = torch.randn(2, 7, 7, 60)  # (B, H, W, C)

AS-MLP, and MS-MLP with ``padding_mode="circular"``. A layer follows each of the two maps; their sum is the result:

>>> sizes = chunk_sizes(60, 5)
>>> height = spatial_shift(x, AXIAL_5_HEIGHT, group_sizes=sizes, padding_mode="zeros")
>>> width = spatial_shift(x, AXIAL_5_WIDTH, group_sizes=sizes, padding_mode="zeros")
>>> torch.equal(height[:, 1:, :, 36:48], x[:, :-1, :, 36:48]) and torch.equal(width[:, :, 1:, 36:48], x[:, :, :-1, 36:48])
True

UNeXt. The second shift reads what layers made of the first; here they are left out:

>>> both = spatial_shift(height, AXIAL_5_WIDTH, group_sizes=sizes, padding_mode="zeros")
>>> torch.equal(both[:, 1:, 1:, 36:48], x[:, :-1, :-1, 36:48])
True

Hire-MLP, with a step of 2. The branches rearrange the shifted map; afterwards the opposite shift moves it back:

>>> height, width = (spatial_shift(x, table, padding_mode="circular") for table in (((2, 0),), ((0, 2),)))
>>> torch.equal(spatial_shift(height, ((-2, 0),), padding_mode="circular"), x)
True

Swin. Windows are cut from the moved map; afterwards the opposite shift moves it back:

>>> moved = spatial_shift(x, ((-3, -3),), padding_mode="circular")
>>> torch.equal(spatial_shift(moved, ((3, 3),), padding_mode="circular"), x)
True

TSM, on a clip (N, T, C, H, W). Time is the height of the map, and pixels are its width:

>>> clip = torch.randn(2, 8, 16, 5, 5)
>>> over_time = clip.flatten(3).transpose(1, 2)  # (N, C, T, H*W)
>>> sizes = partial_sizes(16, 2, 16 // 8)
>>> over_time = spatial_shift(over_time, TSM, group_sizes=sizes, padding_mode="zeros", data_format="channels_first")
>>> out = over_time.transpose(1, 2).unflatten(3, (5, 5))
>>> torch.equal(out[:, :-1, :2], clip[:, 1:, :2]) and torch.equal(out[:, 1:, 2:4], clip[:, :-1, 2:4])
True

CycleMLP, with one group per channel. Each CycleFC is a shift and a linear layer; a third branch has a linear layer only:

>>> fc_1, fc_2, fc_3 = (torch.nn.Linear(60, 60) for _ in range(3))
>>> width = fc_1(spatial_shift(x, interleaved(CYCLE_3_WIDTH, 60), padding_mode="zeros"))
>>> height = fc_2(spatial_shift(x, interleaved(CYCLE_3_HEIGHT, 60), padding_mode="zeros"))
>>> (width + height + fc_3(x)).shape
torch.Size([2, 7, 7, 60])
"""

from collections.abc import Sequence

from s2mlp_cuda._arguments import check_count, pairs_of

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

#: AS-MLP (arXiv 2107.08391), UNeXt (arXiv 2203.04967) and MS-MLP (arXiv 2202.06510): five chunks along one axis.
AXIAL_5_HEIGHT: OffsetTable = tuple((d, 0) for d in range(-2, 3))
AXIAL_5_WIDTH: OffsetTable = tuple((0, d) for d in range(-2, 3))
#: ShiftViT (arXiv 2201.10801) and ELAN (arXiv 2203.06697): left, right, up, down; the remaining channels do not move.
SHIFT_VIT: OffsetTable = LEFT + RIGHT + UP + DOWN + IDENTITY
#: TSM (arXiv 1811.08383) with time as the height of the map: backward, forward; the remaining channels do not move.
TSM: OffsetTable = UP + DOWN + IDENTITY
#: 4-connected shift residual networks (ICCVW 2019): four neighbors and the token itself.
FOUR_CONNECTED: OffsetTable = V1 + IDENTITY
#: Shift (arXiv 1711.08141): a 3x3 neighborhood, in the order of the official kernel, where output (h, w) of channel c reads
#: input (h + c // 3 % 3 - 1, w + c % 3 - 1). See :func:`interleaved`.
NINE_WAY: OffsetTable = tuple((dh, dw) for dh in (1, 0, -1) for dw in (1, 0, -1))
#: CycleFC with kernel (3, 1) or (1, 3) (CycleMLP, arXiv 2107.10224). Its deformable convolution reads at (i + 1) % 3 - 1 in channel
#: i, so the content moves the other way. See :func:`interleaved`.
CYCLE_3_HEIGHT: OffsetTable = ((0, 0), (-1, 0), (1, 0))
CYCLE_3_WIDTH: OffsetTable = ((0, 0), (0, -1), (0, 1))

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
    "CYCLE_3_HEIGHT": CYCLE_3_HEIGHT,
    "CYCLE_3_WIDTH": CYCLE_3_WIDTH,
}


def name_of(table: Sequence[Sequence[int]]) -> str:
    """The names of the presets that equal a table, e.g. ``"V1/SS2"``, or the table itself as text.

    Raises:
        TypeError: the table is not a sequence of pairs of integers.
        ValueError: the table is empty.
    """
    pairs = pairs_of(table, "table")
    return "/".join(name for name, preset in PRESETS.items() if preset == pairs) or str(pairs)


def chunk_sizes(channels: int, chunks: int) -> tuple[int, ...]:
    """Group sizes as in ``torch.chunk``: ceil(channels / chunks) each; the last may be smaller.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: ``channels`` is negative, ``chunks`` is not positive, or ``torch.chunk`` would return fewer parts.
    """
    channels, chunks = check_count("channels", channels, least=0), check_count("chunks", chunks)
    size = -(-channels // chunks)
    last = channels - size * (chunks - 1)
    if last < min(1, channels):
        raise ValueError(f"{channels} channels cannot be split into {chunks} chunks of {size}")
    return (size,) * (chunks - 1) + (last,)


def partial_sizes(channels: int, groups: int, size: int) -> tuple[int, ...]:
    """Group sizes of ``groups`` groups of ``size`` channels, followed by one group with the remaining channels.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is negative, or ``groups * size`` exceeds ``channels``.
    """
    channels, groups = check_count("channels", channels, least=0), check_count("groups", groups, least=0)
    size = check_count("size", size, least=0)
    if groups * size > channels:
        raise ValueError(f"{groups} groups of {size} do not fit into {channels} channels")
    return (size,) * groups + (channels - groups * size,)


def interleaved(table: Sequence[Sequence[int]], channels: int) -> OffsetTable:
    """One group per channel, where channel c moves by ``table[c % len(table)]``.

    Args:
        table: at least one (dh, dw) pair.
        channels: the number of channels, and of pairs in the result.

    Raises:
        TypeError: the table is not a sequence of pairs of integers, or ``channels`` is not an integer.
        ValueError: the table is empty, or ``channels`` is negative.
    """
    pairs = pairs_of(table, "table")
    return tuple(pairs[channel % len(pairs)] for channel in range(check_count("channels", channels, least=0)))
