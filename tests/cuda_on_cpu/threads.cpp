// A stand-in for PyTorch's parallel_for, for ThreadSanitizer: PyTorch's OpenMP library is not instrumented, so its synchronization is
// not seen. The range is divided as by PyTorch with eight threads (ATen/ParallelOpenMP.h), and each chunk runs in a new thread.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <thread>
#include <vector>

constexpr int64_t kThreads = 8;

// The sources are compiled with -Dtorch_parallel_for=s2mlp_parallel_for.
AOTITorchError s2mlp_parallel_for(int64_t begin, int64_t end, int64_t grain_size, ParallelFunc function, void* context) {
  if (begin >= end) {
    return 0;
  }
  const int64_t most = (end - begin + grain_size - 1) / grain_size;
  const int64_t count = std::min(kThreads, most);
  const int64_t size = (end - begin + count - 1) / count;
  std::vector<std::thread> threads;
  for (int64_t from = begin; from < end; from += size) {
    const int64_t to = std::min(end, from + size);
    threads.emplace_back([=] { function(from, to, context); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return 0;
}
