// An allocator for CPU tensors that knows the bounds of each allocation, to check the accesses of kernels.
#undef TORCH_TARGET_VERSION  // the allocator's interface is not part of the stable ABI
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>

int s2mlp_switch = 0;

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSparse = size_t{1} << 26;  // from this size on, pages are mapped when they are first touched

class Allocator final : public c10::Allocator {
 public:
  static Allocator& get() {
    static auto* allocator = new Allocator;  // outlives every tensor
    return *allocator;
  }

  c10::DataPtr allocate(size_t size) override {
    if (size == 0) {
      return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
    }
    void* memory = nullptr;
    if (size >= kSparse) {
      memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      TORCH_CHECK(memory != MAP_FAILED, "no ", size, " bytes");
    } else {
      TORCH_CHECK(posix_memalign(&memory, kAlignment, size) == 0, "no ", size, " bytes");
      std::memset(memory, 0xff, size);  // NaN: shows elements that a kernel does not write
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    sizes_[reinterpret_cast<uint64_t>(memory)] = size;
    return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }

  // The allocation that contains an address; size 0 if there is none.
  void find(uint64_t address, uint64_t& begin, uint64_t& size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto next = sizes_.upper_bound(address);
    size = 0;
    if (next != sizes_.begin()) {
      const auto& [candidate, candidate_size] = *std::prev(next);
      begin = candidate;
      size = address < candidate + candidate_size ? candidate_size : 0;
    }
  }

 private:
  static void release(void* memory) {
    if (memory == nullptr) {
      return;
    }
    size_t size = 0;
    {
      Allocator& allocator = get();
      const std::lock_guard<std::mutex> lock(allocator.mutex_);
      const auto entry = allocator.sizes_.find(reinterpret_cast<uint64_t>(memory));
      size = entry->second;
      allocator.sizes_.erase(entry);
    }
    size >= kSparse ? static_cast<void>(munmap(memory, size)) : free(memory);
  }

  std::mutex mutex_;
  std::map<uint64_t, size_t> sizes_;
};

c10::Allocator* ordinary_allocator = nullptr;

}  // namespace

extern "C" {

void s2mlp_known_memory_begin() {
  ordinary_allocator = c10::GetCPUAllocator();
  c10::SetCPUAllocator(&Allocator::get());
}

void s2mlp_known_memory_end() { c10::SetCPUAllocator(ordinary_allocator); }

void s2mlp_allocation_of(uint64_t address, uint64_t* begin, uint64_t* size) { Allocator::get().find(address, *begin, *size); }
}
