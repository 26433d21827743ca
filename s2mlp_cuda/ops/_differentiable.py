"""From a raw operator and its derivative rules to an operator that every PyTorch transform takes.

A raw operator is what C++ registered: kernels, nothing else. :func:`differentiable` gives it, from one set of
:class:`Rules`, two ``torch.autograd.Function``s, and fake, autograd and vmap registrations of its own, and returns the
function to call.
"""

from collections.abc import Callable

import torch
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
    """``(call, Function)``: the operator as a function of its raw arguments, and as a full autograd.Function.

    ``call`` takes the cheapest way that will do. Under functorch transforms that is the Function; where autograd records,
    one without ``setup_context``, with which PyTorch binds the Python signature on every call, at more than the cost of
    a small map; otherwise the bare kernel. In a compiled region it is the raw operator: the compiler does not trace a
    Function that has a jvp.
    """
    op, tensors = rules.op, rules.tensors

    def gradients(ctx, grad):
        count = len(ctx.needs_input_grad)
        grads = rules.backward(ctx.saved_tensors, ctx.rest, ctx.needs_input_grad, grad)
        return (*grads, *(None,) * (count - tensors))

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return op(*args)

        @staticmethod
        def setup_context(ctx, inputs, output):
            kept, ctx.rest = rules.keep(*inputs)
            ctx.save_for_backward(*kept)
            ctx.save_for_forward(*kept)

        backward = staticmethod(gradients)

        @staticmethod
        def jvp(ctx, *tangents):
            return rules.jvp(ctx.saved_tensors, ctx.rest, *tangents[:tensors])

        @staticmethod
        def vmap(info, in_dims, *args):
            return Function.apply(*_batch_first(info, in_dims, args, tensors)), 0

    class EagerFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            kept, ctx.rest = rules.keep(*args)
            if kept:
                ctx.save_for_backward(*kept)
                ctx.save_for_forward(*kept)
            return below_autograd(op, *args)

        backward = staticmethod(gradients)
        jvp = Function.jvp

    Function.__name__ = Function.__qualname__ = name
    EagerFunction.__name__ = EagerFunction.__qualname__ = f"Eager{name}"

    def call(*args):
        if torch.compiler.is_compiling():
            return op(*args)
        if torch._C._are_functorch_transforms_active():
            return Function.apply(*args)
        if differentiates(*args[:tensors]):
            return EagerFunction.apply(*args)
        return below_autograd(op, *args)

    def keep_inputs(ctx, inputs, output):
        kept, ctx.rest = rules.keep(*inputs)
        ctx.save_for_backward(*kept)

    def vmap(info, in_dims, *args):
        return op(*_batch_first(info, in_dims, args, tensors)), 0

    full_name = op._schema.name
    torch.library.register_fake(full_name, rules.fake)
    torch.library.register_autograd(full_name, gradients, setup_context=keep_inputs)
    torch.library.register_vmap(full_name, vmap)
    register_flop_formula(op.overloadpacket)(_no_flops)
    return call, Function
