"""The private names of PyTorch that this package uses: here and nowhere else, with what each is for.

They save time, or serve what PyTorch has no public name for. A future PyTorch may lack any of them; then a public way is taken,
which is as right, but slower.
"""

from contextlib import AbstractContextManager
from pkgutil import resolve_name
from typing import Any

import torch
from torch.autograd import forward_ad


def _find(name: str) -> Any:
    try:
        return resolve_name(name)
    except (ImportError, AttributeError):
        return None


#: Context in which the dispatcher skips a raw operator's own autograd registration.
_below_autograd = _find("torch._C:_AutoDispatchBelowAutograd")
#: Whether a transform of torch.func is active, in 50 ns.
_transforms_are_active = _find("torch._C:_are_functorch_transforms_active")
#: The number of the innermost level of forward mode, which changes; -1 outside of all.
_HAS_LEVEL = _find("torch.autograd.forward_ad:_current_level") is not None
#: Context that turns recording in forward mode on again, inside of a Function's forward.
_set_forward_mode = _find("torch.autograd.forward_ad:_set_fwd_grad_enabled")
#: A Function that records one level of differentiation, as PyTorch's own operators do, and the context that permits one.
_SingleLevelFunction = _find("torch.autograd.function:_SingleLevelFunction")
_permit_single_level = _find("torch._functorch.utils:enable_single_level_autograd_function")

#: Whether an operator can record one level of differentiation and be called again for the levels below.
RECORDS_LEVELS = None not in (_below_autograd, _set_forward_mode, _SingleLevelFunction, _permit_single_level)
SingleLevelFunction: Any = _SingleLevelFunction or torch.autograd.Function


def transforms_are_active() -> bool:
    """Whether a transform of torch.func may be active."""
    return _transforms_are_active is None or _transforms_are_active()


def forward_mode_is_active() -> bool:
    """Whether a level of forward mode may be active."""
    return not _HAS_LEVEL or forward_ad._current_level >= 0


def below_autograd(op: torch._ops.OpOverload, *args):
    """Calls a raw operator past its own autograd registration, which costs 5 microseconds; the caller has its own."""
    if RECORDS_LEVELS:
        with _below_autograd():
            return op(*args)
    with torch.no_grad():
        return op(*args)


def permit_single_level() -> AbstractContextManager:
    return _permit_single_level()


def enable_forward_mode() -> AbstractContextManager:
    return _set_forward_mode(True)
