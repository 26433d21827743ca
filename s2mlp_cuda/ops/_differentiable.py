"""From a raw operator and its derivative rules to an operator that every PyTorch transform takes.

A raw operator is what C++ registered: kernels, nothing else. :func:`differentiable` gives it, from one set of
:class:`Rules`, fake, autograd and vmap registrations of its own, and returns the operator to call.

``torch.library.register_autograd`` would do for plain backward passes alone: what it generates knows no forward mode and is
refused by ``torch.func`` (pytorch/pytorch#168393, #170834). So the kernel is registered here, and does what PyTorch does for
its own operators: record one level of differentiation, and call the operator again for the levels below. That takes private
names of PyTorch. Where one is missing, the raw operator has ``register_autograd``, and functions of this package apply a
public autograd.Function, which takes every transform and binds its Python signature on every call.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import register_flop_formula

from s2mlp_cuda._torch_private import (
    RECORDS_LEVELS,
    SingleLevelFunction,
    below_autograd,
    enable_forward_mode,
    forward_mode_is_active,
    permit_single_level,
    transforms_are_active,
)


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
    def save(*args) -> tuple[tuple, tuple]:
        """What the derivatives need of the arguments: (tensors, non-tensor arguments)."""
        raise NotImplementedError

    @staticmethod
    def backward(saved: tuple, arguments: tuple, needs_grad: tuple, grad: torch.Tensor) -> tuple:
        """A gradient for each tensor argument, None where ``needs_grad`` says that it is not wanted."""
        raise NotImplementedError

    @staticmethod
    def jvp(saved: tuple, arguments: tuple, *tangents: torch.Tensor | None) -> torch.Tensor:
        """The tangent of the result, from one for each tensor argument; None is zero."""
        raise NotImplementedError


class Operator(NamedTuple):
    """A differentiable operator of raw arguments: offsets flat, everything given."""

    call: Callable[..., torch.Tensor]
    #: The same as an autograd.Function, for those who want its ``apply``.
    Function: type[torch.autograd.Function]


def differentiates(*tensors: torch.Tensor | None) -> bool:
    """Whether PyTorch records what happens to one of these: for the backward pass, or in forward mode."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return forward_mode_is_active()


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


class _Derivatives:
    """What follows from the rules, as the functions that an autograd.Function has. ctx.arguments are those that are no tensors."""

    def __init__(self, rules: type[Rules]):
        tensors = rules.tensors

        def save(ctx, inputs) -> tuple:
            saved, ctx.arguments = rules.save(*inputs)
            if saved:
                ctx.save_for_backward(*saved)
            return saved

        def setup_context(ctx, inputs, output) -> None:
            saved = save(ctx, inputs)
            if saved:
                ctx.save_for_forward(*saved)

        def backward(ctx, grad) -> tuple:
            count = len(ctx.needs_input_grad)
            grads = rules.backward(ctx.saved_tensors, ctx.arguments, ctx.needs_input_grad, grad)
            return (*grads, *(None,) * (count - tensors))

        def jvp(ctx, *tangents) -> torch.Tensor:
            return rules.jvp(ctx.saved_tensors, ctx.arguments, *tangents[:tensors])

        self.save, self.setup_context, self.backward, self.jvp = save, setup_context, backward, jvp


def _eager_function(rules: type[Rules], derivatives: _Derivatives) -> type[torch.autograd.Function]:
    """What eager PyTorch records. One with ``setup_context`` would bind the Python signature on every call."""

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            derivatives.setup_context(ctx, args, None)
            return below_autograd(rules.op, *args)

        backward = staticmethod(derivatives.backward)
        jvp = staticmethod(derivatives.jvp)

    return Eager


def _level_function(rules: type[Rules], derivatives: _Derivatives) -> type[torch.autograd.Function]:
    """What the raw operator records: one level of differentiation. The levels below see the operator again."""

    class Level(SingleLevelFunction):
        @staticmethod
        def forward(*args):
            with torch.enable_grad(), enable_forward_mode():
                return below_autograd(rules.op, *args)

        setup_context = staticmethod(derivatives.setup_context)
        backward = staticmethod(derivatives.backward)
        jvp = staticmethod(derivatives.jvp)

    return Level


def _public_function(rules: type[Rules], derivatives: _Derivatives) -> type[torch.autograd.Function]:
    """What takes every transform without a private name."""

    class Public(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return below_autograd(rules.op, *args)

        @staticmethod
        def vmap(info, in_dims, *args):
            return Public.apply(*_batch_first(info, in_dims, args, rules.tensors)), 0

        setup_context = staticmethod(derivatives.setup_context)
        backward = staticmethod(derivatives.backward)
        jvp = staticmethod(derivatives.jvp)

    return Public


def _compiled_function(rules: type[Rules], derivatives: _Derivatives, call: Callable) -> type[torch.autograd.Function]:
    """For users. The compiler goes by ``forward`` and ``backward``: it traces no Function that has a jvp. All else is ``call``."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            derivatives.save(ctx, args)
            return rules.op(*args)

        backward = staticmethod(derivatives.backward)
        apply = staticmethod(call)

    return Function


def _autograd_kernel(rules: type[Rules], level: type[torch.autograd.Function]) -> Callable:
    """The raw operator's own autograd registration."""
    op, tensors = rules.op, rules.tensors
    defaults = [argument.default_value for argument in op._schema.arguments]

    def kernel(*args):
        args += tuple(defaults[len(args) :])  # the dispatcher leaves out what is as by default
        if not differentiates(*args[:tensors]):
            return below_autograd(op, *args)
        with permit_single_level():
            return level.apply(*args)

    return kernel


def differentiable(rules: type[Rules]) -> Operator:
    """Registers what the rules say of a raw operator, and returns it.

    The raw operator takes every transform, and is what compilers and ``torch.func`` see. Where eager PyTorch records,
    ``call`` applies a Function at less cost; where it does not, ``call`` is the bare kernel.
    """
    op, tensors = rules.op, rules.tensors
    name = "".join(word.title() for word in op.name().partition("::")[2].split("_"))
    derivatives = _Derivatives(rules)
    recorded = (_eager_function if RECORDS_LEVELS else _public_function)(rules, derivatives)

    def call(*args):
        if torch.compiler.is_compiling():
            return op(*args)
        if transforms_are_active():
            return op(*args) if RECORDS_LEVELS else recorded.apply(*args)
        if differentiates(*args[:tensors]):
            return recorded.apply(*args)
        return below_autograd(op, *args)

    def vmap(info, in_dims, *args):
        return op(*_batch_first(info, in_dims, args, tensors)), 0

    if RECORDS_LEVELS:
        level = _level_function(rules, derivatives)
        level.__name__ = level.__qualname__ = f"{name}Level"
        torch.library.impl(op.name(), "Autograd")(_autograd_kernel(rules, level))
    else:
        torch.library.register_autograd(op.name(), derivatives.backward, setup_context=derivatives.setup_context)
    torch.library.register_fake(op.name(), rules.fake)
    torch.library.register_vmap(op.name(), vmap)
    register_flop_formula(op.overloadpacket)(_no_flops)
    function = _compiled_function(rules, derivatives, call)
    for named in (recorded, function):
        named.__name__ = named.__qualname__ = name
    return Operator(call, function)
