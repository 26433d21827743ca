"""From a raw operator and its derivative rules to an operator that every PyTorch transform takes.

A raw operator is what C++ registered: kernels, nothing else. :func:`differentiable` gives it, from one set of
:class:`Rules`, fake, autograd and vmap registrations of its own, and returns the function to call.

``torch.library.register_autograd`` would do for plain backward passes alone: what it generates knows no forward mode and is
refused by ``torch.func`` (pytorch/pytorch#168393, #170834). So the kernel is registered here, and does what PyTorch does for
its own operators: record one level of differentiation, and call the operator again for the levels below.
"""

from collections.abc import Callable

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula


class Rules:
    """What is known of one raw operator. All arguments that are tensors come first; subclasses fill in the rest."""

    #: The operator: ``torch.ops.s2mlp_cuda.<name>.default``.
    op: torch._ops.OpOverload
    #: How many arguments, from the first, are tensors (or None).
    tensors: int

    @staticmethod
    def fake(*args) -> torch.Tensor:
        """An empty tensor of the result's shape, strides and dtype."""
        raise NotImplementedError

    @staticmethod
    def keep(*args) -> tuple[tuple, tuple]:
        """What the derivatives need of the arguments: (tensors, anything else)."""
        raise NotImplementedError

    @staticmethod
    def backward(kept: tuple, rest: tuple, needs: tuple, grad: torch.Tensor) -> tuple:
        """A gradient for each tensor argument, None where ``needs`` says that it is not wanted."""
        raise NotImplementedError

    @staticmethod
    def jvp(kept: tuple, rest: tuple, *tangents: torch.Tensor | None) -> torch.Tensor:
        """The tangent of the result, from one for each tensor argument; None is zero."""
        raise NotImplementedError


def differentiates(*tensors: torch.Tensor | None) -> bool:
    """Whether PyTorch records what happens to one of these: for the backward pass, or in forward mode."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return forward_ad._current_level >= 0


def below_autograd(op, *args):
    """Calls a raw operator past its own autograd registration, which costs 5 microseconds; the caller has its own."""
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def _batch_first(info, in_dims, args, tensors: int) -> list:
    """The arguments with the batch dimension first in every tensor: all operators take any leading dimensions."""

    def move(tensor, dim):
        if tensor is None:
            return None
        return tensor.movedim(dim, 0) if dim is not None else tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape)

    return [move(*pair) for pair in zip(args[:tensors], in_dims)] + list(args[tensors:])


def _no_flops(*args, out_shape=None, **kwargs) -> int:
    """Like PyTorch's counter, which counts products of matrices and nothing else."""
    return 0


def differentiable(rules: type[Rules], name: str) -> tuple[Callable, type[torch.autograd.Function]]:
    """``(call, Function)``: the operator as a function of its raw arguments, and as an autograd.Function by name.

    The raw operator takes every transform, and is what compilers and ``torch.func`` see. Where eager PyTorch records,
    ``call`` applies a Function at less cost; where it does not, ``call`` is the bare kernel.
    """
    op, tensors = rules.op, rules.tensors
    defaults = [argument.default_value for argument in op._schema.arguments]

    def keep(ctx, inputs):
        kept, ctx.rest = rules.keep(*inputs)
        if kept:
            ctx.save_for_backward(*kept)
        return kept

    def keep_for_both_modes(ctx, inputs, output):
        kept = keep(ctx, inputs)
        if kept:
            ctx.save_for_forward(*kept)

    def gradients(ctx, grad):
        count = len(ctx.needs_input_grad)
        grads = rules.backward(ctx.saved_tensors, ctx.rest, ctx.needs_input_grad, grad)
        return (*grads, *(None,) * (count - tensors))

    def tangent(ctx, *tangents):
        return rules.jvp(ctx.saved_tensors, ctx.rest, *tangents[:tensors])

    class EagerFunction(torch.autograd.Function):
        """What eager PyTorch records. One with ``setup_context`` would bind the Python signature on every call."""

        @staticmethod
        def forward(ctx, *args):
            keep_for_both_modes(ctx, args, None)
            return below_autograd(op, *args)

        backward = staticmethod(gradients)
        jvp = staticmethod(tangent)

    class OneLevel(torch.autograd.function._SingleLevelFunction):
        """What the raw operator records: one level of differentiation. The levels below see the operator again."""

        @staticmethod
        def forward(*args):
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return below_autograd(op, *args)

        setup_context = staticmethod(keep_for_both_modes)
        backward = staticmethod(gradients)
        jvp = staticmethod(tangent)

    def call(*args):
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return op(*args)
        if differentiates(*args[:tensors]):
            return EagerFunction.apply(*args)
        return below_autograd(op, *args)

    class Function(torch.autograd.Function):
        """The compiler goes by ``forward`` and ``backward``: it traces no Function that has a jvp. All else is ``call``."""

        @staticmethod
        def forward(ctx, *args):
            keep(ctx, args)
            return op(*args)

        backward = staticmethod(gradients)
        apply = staticmethod(call)

    Function.__name__ = Function.__qualname__ = name
    EagerFunction.__name__ = EagerFunction.__qualname__ = f"Eager{name}"
    OneLevel.__name__ = OneLevel.__qualname__ = f"OneLevel{name}"

    def autograd_kernel(*args):
        args += tuple(defaults[len(args) :])  # the dispatcher leaves out what is as by default
        if not differentiates(*args[:tensors]):
            return below_autograd(op, *args)
        with enable_single_level_autograd_function():
            return OneLevel.apply(*args)

    def vmap(info, in_dims, *args):
        return op(*_batch_first(info, in_dims, args, tensors)), 0

    full_name = op._schema.name
    torch.library.impl(full_name, "Autograd")(autograd_kernel)
    torch.library.register_fake(full_name, rules.fake)
    torch.library.register_vmap(full_name, vmap)
    register_flop_formula(op.overloadpacket)(_no_flops)
    return call, Function
