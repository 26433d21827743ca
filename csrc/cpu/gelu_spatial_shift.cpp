// gelu_spatial_shift and its backward on a CPU: the walks of spatial_shift, with elements going through GELU, or being
// multiplied by its slope, on their way. Shift and GELU commute.
#include <iterator>

#include "../box.h"
#include "../gelu.h"
#include "../library.h"
#include "../shift_arguments.h"
#include "dtypes.h"
#include "instruction_sets.h"
#include "lanes.h"
#include "shift_map.h"

namespace s2mlp {

namespace {

// to = of(from...) in vectors, all runs being dense.
template <typename V, typename T, typename Of, typename... From>
S2MLP_INLINE inline void map_dense_run(int64_t count, T* to, const Of& of, const From*... from) {
  for_each_step<T, V::kBytes>(0, count, [&](auto lanes, int64_t first, int64_t step_count) S2MLP_INLINE {
    store_step<V::kStores>(lanes, to + first, of(load_step(lanes, from + first, step_count)...), step_count);
  });
}

template <typename T>
constexpr Precision kPrecisionOf =
    std::is_same_v<T, torch::headeronly::BFloat16> ? Precision::kBFloat16 : Precision::kFloat32;

template <bool kTanh>
struct Gelu {
  template <typename T, typename V>
  S2MLP_INLINE void move(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count, V) const {
    if constexpr (!std::is_same_v<T, double>) {
      if (to_stride == 1 && from_stride == 1) {
        map_dense_run<V>(count, to, [](auto x) S2MLP_INLINE {
          for (auto& part : x.parts) {
            part = gelu<kTanh, kPrecisionOf<T>>(part);
          }
          return x;
        }, from);
        return;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      to[i * to_stride] = static_cast<T>(gelu<kTanh, kPrecisionOf<T>>(static_cast<accumulator_t<T>>(from[i * from_stride])));
    }
  }

  template <typename T, typename V>
  S2MLP_INLINE void finish(T* run, int64_t stride, int64_t count, V vectors) const {
    move(run, stride, run, stride, count, vectors);
  }

  template <typename T>
  S2MLP_INLINE void prefetch(const T*, int64_t) const {}
};

// Gradients on their way back are multiplied by GELU' of the input, which lies in memory as the output does.
template <bool kTanh, typename T>
struct TimesGeluSlope {
  const T* x;
  const T* out;  // where the output begins

  template <typename V>
  S2MLP_INLINE void move(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count, V) const {
    const T* at = x + (to - out);
    if constexpr (!std::is_same_v<T, double>) {
      if (to_stride == 1 && from_stride == 1) {
        map_dense_run<V>(count, to, [](auto grad, const auto& x) S2MLP_INLINE {
          for (size_t part = 0; part < std::size(x.parts); ++part) {
            grad.parts[part] *= gelu_slope<kTanh>(x.parts[part]);
          }
          return grad;
        }, from, at);
        return;
      }
    }
    using Wide = accumulator_t<T>;
    for (int64_t i = 0; i < count; ++i) {
      const Wide slope = gelu_slope<kTanh>(static_cast<Wide>(at[i * to_stride]));
      to[i * to_stride] = static_cast<T>(static_cast<Wide>(from[i * from_stride]) * slope);
    }
  }

  template <typename V>
  S2MLP_INLINE void finish(T* run, int64_t stride, int64_t count, V vectors) const {
    move(run, stride, run, stride, count, vectors);
  }

  S2MLP_INLINE void prefetch(const T* run, int64_t count) const { prefetch_run(x + (run - out), count); }
};

struct Forward {
  const ShiftProblem& problem;
  const Tensor& x;
  const Tensor& out;

  template <typename T, bool kTanh>
  void run() const {
    shift_map<false>(problem, data<T>(x), output<T>(out), Gelu<kTanh>{});
  }
};

struct Backward {
  const ShiftProblem& problem;
  const Tensor& grad;
  const Tensor& x;  // strided like out
  const Tensor& out;

  template <typename T, bool kTanh>
  void run() const {
    T* begin = output<T>(out);
    shift_map<true>(problem, data<T>(grad), begin, TimesGeluSlope<kTanh, T>{data<T>(x), begin});
  }
};

template <typename Pass>
void run_pass(const Pass& pass, ScalarType dtype, bool tanh) {
  with_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    tanh ? pass.template run<T, true>() : pass.template run<T, false>();
  });
}

Tensor gelu_spatial_shift(
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view approximate,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_floating_dtype(x, "x");
  const bool tanh = parse_approximate(approximate);
  Tensor out = new_map_like(x);
  const ShiftProblem problem = make_problem(x, out, offsets, group_sizes, padding_mode, data_format);
  if (x.numel() != 0) {
    run_pass(Forward{problem, x, out}, x.scalar_type(), tanh);
  }
  return out;
}

Tensor gelu_spatial_shift_backward(
    const Tensor& grad,
    const Tensor& x,
    IntHeaderOnlyArrayRef offsets,
    std::optional<IntHeaderOnlyArrayRef> group_sizes,
    std::string_view approximate,
    std::string_view padding_mode,
    std::string_view data_format) {
  check_floating_dtype(grad, "grad");
  check_like(x, grad);
  const bool tanh = parse_approximate(approximate);
  Tensor out = new_map_like(x);
  const ShiftProblem problem = make_problem(grad, out, offsets, group_sizes, padding_mode, data_format);
  if (grad.numel() != 0) {
    run_pass(Backward{problem, grad, with_strides_of(x, out), out}, grad.scalar_type(), tanh);
  }
  return out;
}

}  // namespace
}  // namespace s2mlp

STABLE_TORCH_LIBRARY_IMPL(S2MLP_LIBRARY, CPU, m) {
  m.impl("gelu_spatial_shift", S2MLP_BOX(&s2mlp::gelu_spatial_shift));
  m.impl("gelu_spatial_shift_backward", S2MLP_BOX(&s2mlp::gelu_spatial_shift_backward));
}
