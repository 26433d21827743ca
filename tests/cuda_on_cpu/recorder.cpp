// The recorder's interface for Python.
#include <torch/csrc/stable/tensor.h>

#include "cuda/launch.h"

namespace s2mlp {
namespace recorder {

Callback& callback() {
  static Callback callback = nullptr;
  return callback;
}

DeviceLimits& limits() {
  static DeviceLimits limits = {1, kBlockThreads};
  return limits;
}

}  // namespace recorder
}  // namespace s2mlp

extern "C" void s2mlp_recorder_set(s2mlp::recorder::Callback callback, int multiprocessors, int threads_per_multiprocessor) {
  s2mlp::recorder::callback() = callback;
  s2mlp::recorder::limits() = {multiprocessors, threads_per_multiprocessor};
}
