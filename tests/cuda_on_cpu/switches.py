"""Run-time switches in the tests' copies of the sources: bugs, and code paths that otherwise only unusual maps take."""

from typing import NamedTuple


class Switch(NamedTuple):
    """An edit. ``new`` is ``old`` with ``{on}`` in it, which is true if the switch is on."""

    file: str
    old: str
    new: str


ELEMENTS = "element by element for every map, not just those that no other kernel takes"
STREAMING = "streaming stores for every map, not just from half of the last-level cache on, on every processor"

CUDA = {
    ELEMENTS: Switch(
        "csrc/cuda/launch_plan.h",
        "  if (p.channels_innermost() && fits_tokens(p, element_size)) {",
        "  if ({on}) {{ return {{ShiftKernel::kElements, 1}}; }}\n  if (p.channels_innermost() && fits_tokens(p, element_size)) {{",
    ),
    "one row too far": Switch(
        "csrc/shift_geometry.h",
        "(source >= size ? size - 1 : source);\n    case PaddingMode::kZeros",
        "(source >= size + {on} ? size - 1 : source);\n    case PaddingMode::kZeros",
    ),
    "a vector at an address that is no multiple of it": Switch(
        "csrc/cuda/launch_plan.h",
        " | misalignment.in / element_size | misalignment.out / element_size",
        " | ({on} ? 0 : misalignment.in / element_size | misalignment.out / element_size)",
    ),
    "channels that the vector does not divide": Switch(
        "csrc/cuda/launch_plan.h", " | p.channel.size;", " | ({on} ? 0 : p.channel.size);"
    ),
    "planes behind the last one": Switch(
        "csrc/cuda/plane_problem.h",
        "left < p.period_planes ? left : p.period_planes",
        "left < p.period_planes && !{on} ? left : p.period_planes",
    ),
    "the last item of a launch left out": Switch(
        "csrc/cuda/token_kernel.h",
        "    for (int32_t g = channels.group + 1; g < channels.group_end; ++g) {\n      const KernelGroup",
        "    for (int u = 0; {on} && u < kItems; ++u) {{\n"
        "      direct[u] = direct[u] && row + u * p.shape.rows_of_block + 1 < p.shape.rows;\n"
        "    }}\n"
        "    for (int32_t g = channels.group + 1; g < channels.group_end; ++g) {{\n      const KernelGroup",
    ),
    "the stride of the channels in planes ignored": Switch(
        "csrc/cuda/plane_problem.h",
        "static_cast<int32_t>(p.channel.in_stride * element_size)",
        "static_cast<int32_t>(({on} ? plane : p.channel.in_stride) * element_size)",
    ),
    "the outer of two leading axes ignored": Switch(
        "csrc/cuda/leading_axes.h",
        "= static_cast<uint32_t>(split.quotient);",
        "= {on} ? 0 : static_cast<uint32_t>(split.quotient);",
    ),
    "all leading axes merged": Switch(
        "csrc/shift_problem.h",
        "outer.in_stride == inner.in_stride * inner.size && outer",
        "({on} || outer.in_stride == inner.in_stride * inner.size) && outer",
    ),
    "a vector that is all of its first channel's group": Switch(
        "csrc/cuda/token_problem.h", "while (group_end < p.group_count &&", "while (!{on} && group_end < p.group_count &&"
    ),
    "a second group that begins one channel late": Switch(
        "csrc/cuda/token_problem.h",
        "(p.groups[g].channel_begin - channels.begin)",
        "(p.groups[g].channel_begin - channels.begin + {on})",
    ),
    "every table of groups from the first channel on": Switch(
        "csrc/cuda/token_problem.h",
        "static_cast<int32_t>(slice.begin / vector)",
        "static_cast<int32_t>({on} ? 0 : slice.begin / vector)",
    ),
    "only the first of two readers in planes": Switch(
        "csrc/cuda/plane_kernel.h", "if (sources.two != 0) {", "if (sources.two != 0 && !{on}) {{"
    ),
    "sources of a group kept for the next": Switch(
        "csrc/cuda/plane_kernel.h", "!is_uniform(p, period, known_group)", "(!{on} && !is_uniform(p, period, known_group))"
    ),
    "no barrier before the sums of other threads are read": Switch(
        "csrc/cuda/shift_split_attention.cu",
        "kVector, sums);\n  __syncthreads();\n",
        "kVector, sums);\n  if (!{on}) {{ __syncthreads(); }}\n",
    ),
    "no barrier before the sums of parts are read": Switch(
        "csrc/cuda/shift_split_attention.cu",
        "= sum;\n  __syncthreads();\n",
        "= sum;\n  if (!{on}) {{ __syncthreads(); }}\n",
    ),
    "the last token of a combined map left out": Switch(
        "csrc/cuda/shift_split_attention.cu",
        "if (place.number < p.tokens) {\n      out",
        "if (place.number + {on} < p.tokens) {{\n      out",
    ),
    "only the first of several readers": Switch(
        "csrc/cuda/shift_split_attention.cu", "w < readers.columns.size(); ++w", "w < ({on} ? 1 : readers.columns.size()); ++w"
    ),
    "an infinite weight times the gradient of a token that nobody reads": Switch(
        "csrc/cuda/shift_split_attention.cu", "if (readers.size() != 0) {", "if (readers.size() != 0 || {on}) {{"
    ),
    "zero padding left out of the gradient of the weights": Switch(
        "csrc/cuda/shift_split_attention.cu",
        "    const Packed<T, kVector> value = source >= 0",
        "    if (source < 0 && {on}) {{ continue; }}\n    const Packed<T, kVector> value = source >= 0",
    ),
    "pieces that end between the tokens that a thread loads together": Switch(
        "csrc/cuda/branch_plan.h",
        "(kBlockThreads / plan.lanes) * kBranchTokens;",
        "(kBlockThreads / plan.lanes) * (kBranchTokens + {on});",
    ),
    "sums of a piece in the place of another's": Switch(
        "csrc/cuda/shift_split_attention.cu", "pieces[piece * count + i]", "pieces[piece * (count - {on}) + i]"
    ),
    "where an image begins in 32 bits": Switch(
        "csrc/cuda/branch_kernel_problem.h", "return i * image; }", "return {on} ? static_cast<int32_t>(i * image) : i * image; }}"
    ),
    "leading axes merged that do not merge": Switch(
        "csrc/branch_arguments.h", "} else if (x.stride(d) != next) {", "}} else if (x.stride(d) != next && !{on}) {{"
    ),
    "float32 weights at an address that is no multiple of 16 bytes": Switch(
        "csrc/cuda/branch_plan.h", "int64_t bits = misalignment == 0 ? 0 : 1;", "int64_t bits = misalignment == 0 || {on} ? 0 : 1;"
    ),
    "the slope of GELU at the shifted place": Switch(
        "csrc/cuda/token_kernel.h",
        "operands[u] = epilogue.load(at_flat_token<false>(p, out, token) + operand_map);",
        "operands[u] = epilogue.load(at_flat_token<false>(p, out, {on} ? row : token) + operand_map);",
    ),
    "infinity times zero in GELU": Switch(
        "csrc/gelu.h",
        "return lesser(constant<F>(end), absolute(x));",
        "return {on} ? absolute(x) : lesser(constant<F>(end), absolute(x));",
    ),
    "one approximation for the other": Switch("csrc/elementwise.h", "if (op.tanh) {", "if (op.tanh != {on}) {{"),
}

CPU = {STREAMING: Switch("csrc/cpu/cache.h", "return cache > 0 ?", "return {on} ? 0 : cache > 0 ?")}

THREADS = {
    "chunks that overlap by one row": Switch("threads.cpp", "std::min(end, from + size);", "std::min(end, from + size + {on});"),
    "sums of all chunks in one place": Switch(
        "csrc/cpu/branch_sums.h", "sums_of_chunks.get() + i * values;", "sums_of_chunks.get() + ({on} ? 0 : i) * values;"
    ),
    "rows of branch maps that two threads write": Switch(
        "csrc/cpu/branch_maps.h",
        "for (int64_t i = begin; i < end; ++i) {",
        "for (int64_t i = {on} && begin > 0 ? begin - 1 : begin; i < end; ++i) {{",
    ),
    "a cache that every caller fills": Switch(
        "csrc/cpu/cache.h",
        "  static const int64_t cache = amd_level_3_bytes();",
        "  static int64_t unguarded = 0;\n  if ({on}) {{ ++unguarded; }}\n  static const int64_t cache = amd_level_3_bytes();",
    ),
}
