"""All private PyTorch APIs that this package uses, and the purpose of each.

They are faster than the public API, or have no public equivalent. A future PyTorch may lack any of them. The package then falls
back to the public API, which gives the same results but is slower.
"""

from contextlib import AbstractContextManager, nullcontext
from pkgutil import resolve_name
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module


def _resolve(name: str) -> Any:
    try:
        return resolve_name(name)
    except (ImportError, AttributeError):
        return None


#: Context in which the dispatcher skips a raw operator's autograd kernel.
_below_autograd = _resolve("torch._C:_AutoDispatchBelowAutograd")
#: Whether a torch.func transform is active; takes 50 ns.
_transforms_are_active = _resolve("torch._C:_are_functorch_transforms_active")
#: `_current_level` is the innermost forward-mode level, -1 if none is active. It changes, so only its presence is checked here.
_HAS_LEVEL = _resolve("torch.autograd.forward_ad:_current_level") is not None
#: Context that re-enables forward mode inside a Function's forward.
_set_forward_mode = _resolve("torch.autograd.forward_ad:_set_fwd_grad_enabled")
#: A Function that records a single level of differentiation, as PyTorch's own operators do, and the context that it requires.
_SingleLevelFunction = _resolve("torch.autograd.function:_SingleLevelFunction")
_enable_single_level = _resolve("torch._functorch.utils:enable_single_level_autograd_function")

#: The tensor that a transform of torch.func wraps, if the transform has ended; otherwise the tensor itself.
_unwrap_if_dead = _resolve("torch._C._functorch:unwrap_if_dead")

#: The class of tensors without data, which tracers put in the place of parameters.
_FakeTensor = _resolve("torch._subclasses.fake_tensor:FakeTensor")

#: The dictionaries of a module's hooks. Those of all modules have the prefix `_global`.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

#: Whether an operator can record a single level of differentiation and redispatch to itself for the levels below.
HAS_SINGLE_LEVEL_AUTOGRAD = None not in (_below_autograd, _set_forward_mode, _SingleLevelFunction, _enable_single_level)
SingleLevelFunction: Any = _SingleLevelFunction or torch.autograd.Function
#: Context in which raw operators do not record. Without the private API, their autograd kernels run, but do not record.
skip_autograd: Any = _below_autograd if HAS_SINGLE_LEVEL_AUTOGRAD else torch.no_grad


def transforms_are_active() -> bool:
    """Whether a torch.func transform may be active."""
    return _transforms_are_active is None or _transforms_are_active()


def outside_transforms(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without the wrappers of transforms that have ended, as PyTorch's own operators see it.

    A function that ``torch.func.vjp`` returns runs its backward pass with such tensors. Their ``requires_grad`` is that of the
    ended transform.
    """
    return tensor.view_as(tensor) if _unwrap_if_dead is None else _unwrap_if_dead(tensor)


def forward_mode_is_active() -> bool:
    """Whether a forward-mode level may be active."""
    return not _HAS_LEVEL or forward_ad._current_level >= 0


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether this is a tensor or parameter of no other subclass than a fake one."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter, _FakeTensor)


def has_hooks(module: torch.nn.Module) -> bool:
    """Whether the module has hooks of its own that run when it is called, if this PyTorch tells."""
    return any(getattr(module, name, None) for name in _HOOKS)


def may_have_hooks(module: torch.nn.Module) -> bool:
    """Whether calling the module may run hooks: its own or those of all modules."""
    own = [getattr(module, name, None) for name in _HOOKS]
    every = [getattr(nn_module, f"_global{name}", None) for name in _HOOKS]
    return any(hooks is None or len(hooks) > 0 for hooks in own + every)


def enable_single_level() -> AbstractContextManager:
    return _enable_single_level()


def enable_forward_mode() -> AbstractContextManager:
    return nullcontext() if _set_forward_mode is None else _set_forward_mode(True)
