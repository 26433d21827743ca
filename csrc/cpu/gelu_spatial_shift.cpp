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

// to = of(from...) in vectors, all runs being dense. Memory is asked for two tokens ahead: the computation is long enough
// to keep the processor from looking that far itself, and the runs too short for its prefetchers.
template <int kBytes, typename T, typename Of, typename... From>
S2MLP_INLINE inline void map_dense_run(int64_t count, T* to, int64_t to_ahead, const Of& of, const From&... from) {
  using L = Lanes<T, kBytes>;
  int64_t i = 0;
  for (; i + L::kStep <= count; i += L::kStep) {
    (__builtin_prefetch(from.run + i + from.ahead), ...);
    __builtin_prefetch(to + i + to_ahead, 1);
    L::store(to + i, of(L::load(from.run + i)...));
  }
  if (i == count) {
    return;
  }
  if constexpr (kBytes > 16) {
    map_dense_run<kBytes / 2>(count - i, to + i, to_ahead, of, Source<T>{from.run + i, 1, from.ahead}...);
  } else {
    L::store_some(to + i, of(L::load_some(from.run + i, count - i)...), count - i);
  }
}

template <bool kTanh>
struct Gelu {
  template <typename T, typename Bytes>
  S2MLP_INLINE void move(T* to, int64_t to_stride, int64_t to_ahead, const Source<T>& in, int64_t count, Bytes) const {
    if constexpr (!std::is_same_v<T, double>) {
      if (to_stride == 1 && in.stride == 1) {
        map_dense_run<Bytes::value>(count, to, to_ahead, [](auto x) S2MLP_INLINE {
          for (auto& part : x.parts) {
            part = gelu<kTanh>(part);
          }
          return x;
        }, in);
        return;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      to[i * to_stride] = static_cast<T>(gelu<kTanh>(static_cast<accumulator_t<T>>(in.run[i * in.stride])));
    }
  }

  template <typename T, typename Bytes>
  S2MLP_INLINE void finish(T* run, int64_t stride, int64_t count, Bytes bytes) const {
    move(run, stride, 0, Source<T>{run, stride, 0}, count, bytes);
  }
};

// Gradients on their way back are multiplied by GELU' of the input, which lies in memory as the output does.
template <bool kTanh, typename T>
struct TimesGeluSlope {
  const T* x;
  const T* out;  // where the output begins

  template <typename Bytes>
  S2MLP_INLINE void move(T* to, int64_t to_stride, int64_t to_ahead, const Source<T>& in, int64_t count, Bytes) const {
    const Source<T> at = {x + (to - out), to_stride, to_ahead};
    if constexpr (!std::is_same_v<T, double>) {
      if (to_stride == 1 && in.stride == 1) {
        map_dense_run<Bytes::value>(count, to, to_ahead, [](auto grad, const auto& x) S2MLP_INLINE {
          for (size_t part = 0; part < std::size(x.parts); ++part) {
            grad.parts[part] *= gelu_slope<kTanh>(x.parts[part]);
          }
          return grad;
        }, in, at);
        return;
      }
    }
    using Wide = accumulator_t<T>;
    for (int64_t i = 0; i < count; ++i) {
      const Wide slope = gelu_slope<kTanh>(static_cast<Wide>(at.run[i * at.stride]));
      to[i * to_stride] = static_cast<T>(static_cast<Wide>(in.run[i * in.stride]) * slope);
    }
  }

  template <typename Bytes>
  S2MLP_INLINE void finish(T* run, int64_t stride, int64_t count, Bytes bytes) const {
    move(run, stride, 0, Source<T>{run, stride, 0}, count, bytes);
  }
};

struct Forward {
  const ShiftProblem& problem;
  const Tensor& x;
  const Tensor& out;

  template <typename T, bool kTanh>
  void run() const {
    shift_forward(problem, data<T>(x), output<T>(out), Gelu<kTanh>{});
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
    shift_adjoint(problem, data<T>(grad), begin, TimesGeluSlope<kTanh, T>{data<T>(x), begin});
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
