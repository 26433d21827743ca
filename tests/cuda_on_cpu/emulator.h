// Emulates a GPU on the CPU: enough of CUDA C++ to compile this repository's .cu files as C++ and run their kernels.
//
// Each CUDA thread is a fiber (ucontext). Blocks run one after the other; within a block, a fiber runs until it reaches a
// barrier or ends. Python selects the order in which fibers run: ascending, descending or shuffled. A missing barrier shows
// as a result that depends on the order. AddressSanitizer and UBSan check the bounds and alignment of every load and store.
//
// Not emulated faithfully: shuffles under a partial mask, inline PTX, approximate intrinsics, and interaction between blocks.
// A result obtained here is not a result obtained on a GPU.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define S2MLP_DISPATCH_KEY CPU

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time, so one copy is enough

struct uint4 {
  uint32_t x, y, z, w;
} __attribute__((aligned(16)));

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
  dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;

inline int __ffs(int value) { return __builtin_ffs(value); }

inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>(((static_cast<uint64_t>(high) << 32) | low) >> (shift & 31));
}

namespace s2mlp {
namespace emulator {

enum class Order : int { kAscending, kDescending, kShuffled };

// The one block that runs at a time.
class Block {
 public:
  static Block& current() {
    static Block block;
    return block;
  }

  Order order = Order::kAscending;
  int64_t launches = 0;
  dim3 thread_index, block_index, block_size, grid_size;

  void launch(dim3 grid, dim3 block, const std::function<void()>& kernel) {
    if (block.y != 1 || block.z != 1 || grid.y != 1 || grid.z != 1) {
      throw std::runtime_error("the emulator knows one-dimensional blocks and grids only");
    }
    ++launches;
    grid_size = grid;
    block_size = block;
    kernel_ = &kernel;
    for (unsigned int b = 0; b < grid.x; ++b) {
      block_index = {b, 0, 0};
      run_block();
    }
  }

  // __syncthreads(): waits until every fiber of the block that has not ended is waiting, too.
  void barrier() { to_scheduler(current_, /*ended=*/false); }

 private:
  static constexpr size_t kStackBytes = 128 * 1024;

  struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(kStackBytes);
    void* sanitizer_state = nullptr;
    bool ended = false;
  };

  void run_block() {
    const unsigned int count = block_size.x;
    fibers_.resize(std::max<size_t>(fibers_.size(), count));
    std::vector<unsigned int> turns(count);
    std::iota(turns.begin(), turns.end(), 0u);
    if (order == Order::kDescending) {
      std::reverse(turns.begin(), turns.end());
    }
    for (unsigned int t = 0; t < count; ++t) {
      fibers_[t].ended = false;
      getcontext(&fibers_[t].context);
      fibers_[t].context.uc_stack.ss_sp = fibers_[t].stack.data();
      fibers_[t].context.uc_stack.ss_size = kStackBytes;
      fibers_[t].context.uc_link = nullptr;
      makecontext(&fibers_[t].context, &Block::enter, 0);
    }
    for (unsigned int left = count; left > 0;) {
      if (order == Order::kShuffled) {
        std::shuffle(turns.begin(), turns.end(), generator_);
      }
      for (const unsigned int t : turns) {
        if (!fibers_[t].ended) {
          current_ = t;
          thread_index = {t, 0, 0};
          to_fiber(t);
          left -= fibers_[t].ended ? 1 : 0;
        }
      }
    }
  }

  static void enter() {
    Block& block = current();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack_, &block.scheduler_stack_size_);
#endif
    (*block.kernel_)();
    block.to_scheduler(block.current_, /*ended=*/true);
  }

  void to_fiber(unsigned int t) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_state_, fibers_[t].stack.data(), kStackBytes);
#endif
    swapcontext(&scheduler_, &fibers_[t].context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_state_, nullptr, nullptr);
#endif
  }

  void to_scheduler(unsigned int t, bool ended) {
    fibers_[t].ended = ended;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ended ? nullptr : &fibers_[t].sanitizer_state, scheduler_stack_, scheduler_stack_size_);
#endif
    swapcontext(&fibers_[t].context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fibers_[t].sanitizer_state, &scheduler_stack_, &scheduler_stack_size_);
#endif
  }

  std::vector<Fiber> fibers_;
  unsigned int current_ = 0;
  const std::function<void()>* kernel_ = nullptr;
  ucontext_t scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_size_ = 0;
  void* scheduler_state_ = nullptr;
  std::mt19937 generator_{0};
};

}  // namespace emulator

}  // namespace s2mlp

#define threadIdx (s2mlp::emulator::Block::current().thread_index)
#define blockIdx (s2mlp::emulator::Block::current().block_index)
#define blockDim (s2mlp::emulator::Block::current().block_size)
#define gridDim (s2mlp::emulator::Block::current().grid_size)
#define __syncthreads() s2mlp::emulator::Block::current().barrier()
#define __syncwarp(...) s2mlp::emulator::Block::current().barrier()

#if defined(S2MLP_RECORD_LAUNCHES)
#include "recorder.h"
#else

namespace s2mlp {

// The counterpart of launch.h's class. The device is small, so that grids are capped and their loops run more than once.
class LaunchContext {
 public:
  explicit LaunchContext(const torch::stable::Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
  const DeviceLimits& limits() const { return limits_; }

 private:
  DeviceLimits limits_ = {1, kBlockThreads};
};

}  // namespace s2mlp

#define S2MLP_LAUNCH(kernel, grid, block, stream, ...) \
  s2mlp::emulator::Block::current().launch(            \
      dim3(static_cast<unsigned int>(grid)), dim3(static_cast<unsigned int>(block)), [&] { kernel(__VA_ARGS__); })
#endif
