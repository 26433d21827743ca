// The name under which PyTorch knows the operators: torch.ops.s2mlp_cuda. Tests build the sources under another one.
#pragma once

#if !defined(S2MLP_LIBRARY)
#define S2MLP_LIBRARY s2mlp_cuda
#endif
