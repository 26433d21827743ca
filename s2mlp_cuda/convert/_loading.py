"""Loads the weights of a public copy into a module of this package."""

import re

import torch
from torch import nn

from s2mlp_cuda._torch_private import has_hooks
from s2mlp_cuda.convert._layouts import Layout, Weights
from s2mlp_cuda.convert._report import Report


def load(module: nn.Module, layout: Layout, weights: Weights, prefix: str, report: Report, new_prefix: str) -> dict[str, str]:
    """Copy weights into a module, which gets their dtype and device, and report all names.

    Args:
        prefix: of the old names in the report.
        new_prefix: of the new names in the report.

    Returns:
        Old name to new name, without these prefixes.

    Raises:
        ValueError: a weight has a different shape, or is not floating-point.
    """
    first = next(iter(weights.values()))
    module.to(device=first.device, dtype=first.dtype if first.is_floating_point() else None)
    report.dtype = first.dtype
    own = module.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    renamed: dict[str, str] = {}
    for old, tensor in weights.items():
        new = layout.new_name(old)
        if new not in own or new in tensors:
            report.unexpected.append(prefix + old)
            continue
        # 1x1 convolutions are linear layers.
        tensors[new] = tensor.detach().flatten(1) if own[new].dim() == 2 else tensor.detach()
        if not tensor.is_floating_point() or tensors[new].shape != own[new].shape:
            raise ValueError(
                f"{prefix}{old} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}, but floating-point numbers of shape "
                f"{tuple(own[new].shape)} are expected from the shapes of the other weights"
            )
        renamed[old] = new
    report.renamed |= {prefix + old: new_prefix + new for old, new in renamed.items()}
    absent = [name for name in own if name not in tensors]
    biases = [name for name in own if re.fullmatch(layout.zero_biases, name)]
    if not any(name in tensors for name in biases):
        tensors |= {name: torch.zeros_like(own[name]) for name in biases}
        report.zeros += [new_prefix + name for name in biases]
        absent = [name for name in absent if name not in biases]
    report.missing += [new_prefix + name for name in absent]
    module.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, strict=False, assign=True)
    return renamed


#: Modules of PyTorch without weights that the copies have, or that do nothing.
_WITHOUT_WEIGHTS = (nn.GELU, nn.Softmax, nn.Identity, nn.Sequential, nn.ModuleList, nn.Flatten, nn.AdaptiveAvgPool2d, nn.Dropout)


def check_module(net: nn.Module, path: str) -> None:
    """Check what a state dict does not tell.

    Args:
        path: of the module in its network, for messages.

    Raises:
        ValueError: a convolution is not a patch embedding, a LayerNorm or GELU differs from those of this package, or there are
            hooks, another forward, other activations or dropout.
    """
    for name, module in net.named_modules(prefix=path):
        allowed = _allowed_instead(module)
        if allowed:
            raise ValueError(f"only {allowed} can be converted, got {f'{name}, ' if name else ''}{module}")


def _allowed_instead(module: nn.Module) -> str:
    """What can be converted instead of this module, if it cannot."""
    if has_hooks(module):
        return "modules without hooks, which would be lost,"
    if "forward" in vars(module):
        return "modules with the forward of their class"
    if isinstance(module, nn.Conv2d) and not _is_patch_embedding(module):
        return "convolutions without overlap, padding, dilation and groups"
    if isinstance(module, nn.LayerNorm) and module.eps != 1e-5:
        return "LayerNorm with eps=1e-05"
    if isinstance(module, nn.GELU) and module.approximate != "none":
        return "exact GELU"
    if isinstance(module, nn.Dropout) and module.p > 0:
        return "Dropout with p=0"
    of_torch = type(module).__module__.startswith("torch.nn.")
    if of_torch and not isinstance(module, _WITHOUT_WEIGHTS) and not module.state_dict():
        return "GELU, softmax and averages, beside layers with weights,"
    return ""


def _is_patch_embedding(convolution: nn.Conv2d) -> bool:
    return (
        convolution.stride == convolution.kernel_size
        and convolution.padding in ((0, 0), "valid")
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )
