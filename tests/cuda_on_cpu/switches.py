"""What tests switch on at run time in their copies of the sources: bugs, and what only maps beyond the ordinary take."""

from typing import NamedTuple


class Switch(NamedTuple):
    """An edit. ``new`` is ``old`` with ``{on}`` in it, which is true where the switch is on."""

    file: str
    old: str
    new: str


INDEX_64 = "64-bit indices for every map, not just from 2^30 elements on"
STREAMING = "streaming stores for every map, not just from half of the last-level cache on, on every processor"

CUDA = {
    INDEX_64: Switch(
        "csrc/cuda/launch_plan.h",
        "= std::numeric_limits<int32_t>::max() / 2;",
        "= {on} ? 0 : std::numeric_limits<int32_t>::max() / 2;",
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
    "a chunk that ends behind the tensor": Switch(
        "csrc/cuda/kernel_problem.h",
        "end <= p.misalignment + p.in_extent",
        "end <= (1 + {on}) * (p.misalignment + p.in_extent)",
    ),
    "the last item of a launch left out": Switch(
        "csrc/cuda/strided_kernel.h", "      if (item < p.items) {", "      if (item + {on} < p.items) {{"
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
        "csrc/cuda/strided_kernel.h", "epilogue.load(place.out_offset)", "epilogue.load({on} ? place.in_offset : place.out_offset)"
    ),
    "one approximation for the other": Switch("csrc/elementwise.h", "return tanh ? gelu<true,", "return tanh != {on} ? gelu<true,"),
}

CPU = {STREAMING: Switch("csrc/cpu/cache.h", "return cache > 0 ?", "return {on} ? 0 : cache > 0 ?")}
