// The namespace of the operators: torch.ops.s2mlp_cuda. Tests build the sources with a different one.
#pragma once

#if !defined(S2MLP_LIBRARY)
#define S2MLP_LIBRARY s2mlp_cuda
#endif
