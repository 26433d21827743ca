// Division by a divisor that is constant for a launch: multiply and shift, with constants computed on the host (Granlund and
// Montgomery 1994, fig. 4.1), because GPUs have no integer divide instruction. Host and device.
#pragma once

#include <cstdint>

#include "../shift_geometry.h"

namespace s2mlp {

struct QuotientRemainder {
  int32_t quotient;
  int32_t remainder;
};

class Divider {
 public:
  Divider() = default;
  explicit Divider(int64_t divisor) : negative_(static_cast<uint32_t>(-divisor)) {
    while (shift_ < 31 && (int64_t{1} << shift_) < divisor) {
      ++shift_;
    }
    const int64_t power = int64_t{1} << shift_;
    multiplier_ = static_cast<uint32_t>((power - divisor) * (uint64_t{1} << 32) / divisor + 1);
  }

  // For 0 <= n < 2^31.
  S2MLP_HOST_DEVICE QuotientRemainder operator()(int32_t n) const {
    const uint32_t unsigned_n = static_cast<uint32_t>(n);
#if defined(__CUDA_ARCH__)
    const uint32_t high = __umulhi(unsigned_n, multiplier_);
#else
    const uint32_t high = static_cast<uint32_t>((uint64_t{unsigned_n} * multiplier_) >> 32);
#endif
    const uint32_t quotient = (high + unsigned_n) >> shift_;
    return {static_cast<int32_t>(quotient), static_cast<int32_t>(quotient * negative_ + unsigned_n)};
  }

 private:
  uint32_t negative_ = ~uint32_t{0};  // the negated divisor saves an instruction
  uint32_t multiplier_ = 1;
  uint32_t shift_ = 0;
};

}  // namespace s2mlp
