// The emulator's interface for Python.
#include <torch/csrc/stable/tensor.h>

#include "cuda/launch.h"

int s2mlp_switch = 0;

extern "C" {

void s2mlp_set_switch(int number) { s2mlp_switch = number; }

void s2mlp_set_order(int order) { s2mlp::emulator::Block::current().order = static_cast<s2mlp::emulator::Order>(order); }

int64_t s2mlp_launches() { return s2mlp::emulator::Block::current().launches; }
}
