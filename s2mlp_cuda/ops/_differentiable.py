"""Makes raw operators differentiable and compatible with all PyTorch transforms.

A raw operator is an operator as registered in C++, with kernels only. :func:`differentiable` registers its fake, autograd and
vmap implementations from one set of :class:`Rules`, and returns the operator to call.

``torch.library.register_autograd`` supports only reverse mode outside of ``torch.func``: what it generates has no forward mode,
and ``torch.func`` rejects it (pytorch/pytorch#168393, #170834). The autograd kernel is therefore registered here. As for
PyTorch's own operators, it records a single level of differentiation and redispatches for the levels below. This needs private
PyTorch APIs. If one is missing, the raw operator uses ``register_autograd``, and the functions of this package apply a public
autograd.Function. It supports all transforms, but binds its Python signature on every call.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.autograd.forward_ad import unpack_dual
from torch.utils.flop_counter import register_flop_formula

from s2mlp_cuda._torch_private import (
    HAS_SINGLE_LEVEL_AUTOGRAD,
    SingleLevelFunction,
    enable_forward_mode,
    enable_single_level,
    forward_mode_is_active,
    outside_transforms,
    transforms_are_active,
)
from s2mlp_cuda.ops._kernels import below_autograd


class Rules:
    """Fake implementation and derivative rules of one raw operator, to be defined by subclasses. Tensor arguments come first."""

    #: The operator: ``torch.ops.s2mlp_cuda.<name>.default``.
    op: torch._ops.OpOverload
    #: The number of tensor arguments, including optional ones.
    num_tensors: int

    @staticmethod
    def fake(*args) -> torch.Tensor:
        """An empty tensor with the shape, strides and dtype of the result."""
        raise NotImplementedError

    @staticmethod
    def save(*args) -> tuple[tuple, tuple]:
        """The arguments that the derivatives need: (saved tensors, non-tensor arguments)."""
        raise NotImplementedError

    @staticmethod
    def backward(saved: tuple, arguments: tuple, needs_grad: tuple, grad: torch.Tensor) -> tuple:
        """The gradient of each tensor argument, None where ``needs_grad`` is False."""
        raise NotImplementedError

    @staticmethod
    def jvp(saved: tuple, arguments: tuple, *tangents: torch.Tensor | None) -> torch.Tensor:
        """The tangent of the result, from the tangents of the tensor arguments; None stands for zero."""
        raise NotImplementedError


#: Raw operators as functions of PyTorch's own operators, for ``torch.onnx.export``; see :mod:`s2mlp_cuda.decompositions`.
ONNX_DECOMPOSITIONS: dict[torch._ops.OpOverload, Callable] = {}


def traced(op: torch._ops.OpOverload, *args) -> torch.Tensor:
    """Calls a raw operator while PyTorch traces: it becomes a node of the graph, or its decomposition does for ONNX."""
    if torch.onnx.is_in_onnx_export():
        return ONNX_DECOMPOSITIONS.get(op, op)(*args)
    return op(*args)


class Operator(NamedTuple):
    """A differentiable operator. It takes the raw operator's arguments, e.g. flat offsets, without defaults."""

    call: Callable[..., torch.Tensor]
    #: The same operator as an autograd.Function, for users who need its ``apply``.
    Function: type[torch.autograd.Function]


def differentiates(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd may record operations on these tensors, in reverse or forward mode."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and (tensor.requires_grad or outside_transforms(tensor).requires_grad):
                return True
    return forward_mode_is_active()


def _batch_first(info, in_dims, args, num_tensors: int) -> list:
    """The arguments with the vmap dimension first in every tensor. All operators accept any leading dimensions."""

    def move(tensor, dim):
        if tensor is None:
            return None
        return tensor.movedim(dim, 0) if dim is not None else tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape)

    return [move(*pair) for pair in zip(args[:num_tensors], in_dims)] + list(args[num_tensors:])


def _no_flops(*args, out_shape=None, **kwargs) -> int:
    """Zero, since PyTorch's counter counts only matrix products, convolutions and attention."""
    return 0


class _Derivatives:
    """The rules as methods of an autograd.Function. ``ctx.arguments`` holds the non-tensor arguments."""

    def __init__(self, rules: type[Rules]):
        num_tensors = rules.num_tensors

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
            return (*grads, *(None,) * (count - num_tensors))

        def jvp(ctx, *tangents) -> torch.Tensor:
            # PyTorch disables forward mode here, and with it that of the outer levels: the derivative of a tangent would be zero.
            with enable_forward_mode():
                saved = tuple(tensor if tensor is None else unpack_dual(tensor).primal for tensor in ctx.saved_tensors)
                return rules.jvp(saved, ctx.arguments, *tangents[:num_tensors])

        self.save, self.setup_context, self.backward, self.jvp = save, setup_context, backward, jvp


def _eager_function(rules: type[Rules], derivatives: _Derivatives) -> type[torch.autograd.Function]:
    """The Function for eager mode. It has no ``setup_context``, which would bind the Python signature on every call."""

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            derivatives.setup_context(ctx, args, None)
            return below_autograd(rules.op, *args)

        backward = staticmethod(derivatives.backward)
        jvp = staticmethod(derivatives.jvp)

    return Eager


def _level_function(rules: type[Rules], derivatives: _Derivatives) -> type[torch.autograd.Function]:
    """The Function of the autograd kernel. It records a single level of differentiation; the levels below see the operator."""

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
    """The Function that supports all transforms without private APIs."""

    class Public(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return below_autograd(rules.op, *args)

        @staticmethod
        def vmap(info, in_dims, *args):
            return Public.apply(*_batch_first(info, in_dims, args, rules.num_tensors)), 0

        setup_context = staticmethod(derivatives.setup_context)
        backward = staticmethod(derivatives.backward)
        jvp = staticmethod(derivatives.jvp)

    return Public


def _compiled_function(rules: type[Rules], derivatives: _Derivatives, call: Callable) -> type[torch.autograd.Function]:
    """The Function for users. The compiler traces ``forward`` and ``backward``; ``apply`` is ``call`` otherwise.

    It has no ``jvp``, because the compiler does not trace a Function that has one.
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            derivatives.save(ctx, args)
            return rules.op(*args)

        backward = staticmethod(derivatives.backward)
        apply = staticmethod(call)

    return Function


def _autograd_kernel(rules: type[Rules], level: type[torch.autograd.Function]) -> Callable:
    """The raw operator's autograd kernel."""
    op, num_tensors = rules.op, rules.num_tensors
    defaults = [argument.default_value for argument in op._schema.arguments]

    def kernel(*args):
        args += tuple(defaults[len(args) :])  # the dispatcher omits trailing arguments that equal their defaults
        args = tuple(outside_transforms(each) if isinstance(each, torch.Tensor) else each for each in args)
        if not differentiates(*args[:num_tensors]):
            return below_autograd(op, *args)
        with enable_single_level():
            return level.apply(*args)

    return kernel


def differentiable(rules: type[Rules]) -> Operator:
    """Registers the rules of a raw operator, and returns the differentiable operator.

    The registered operator supports all transforms; compilers and ``torch.func`` see it. In eager mode, ``call`` applies a
    Function with less overhead if autograd records, and calls the kernel directly otherwise.
    """
    op, num_tensors = rules.op, rules.num_tensors
    name = "".join(word.title() for word in op.name().partition("::")[2].split("_"))
    derivatives = _Derivatives(rules)
    eager_function = (_eager_function if HAS_SINGLE_LEVEL_AUTOGRAD else _public_function)(rules, derivatives)

    def call(*args):
        if torch.compiler.is_compiling():
            return traced(op, *args)
        if transforms_are_active():
            return op(*args) if HAS_SINGLE_LEVEL_AUTOGRAD else eager_function.apply(*args)
        if differentiates(*args[:num_tensors]):
            # torch.jit.trace records an operator, but cannot save a call of a Python Function.
            return op(*args) if torch.jit.is_tracing() else eager_function.apply(*args)
        return below_autograd(op, *args)

    def vmap(info, in_dims, *args):
        return op(*_batch_first(info, in_dims, args, num_tensors)), 0

    if HAS_SINGLE_LEVEL_AUTOGRAD:
        level = _level_function(rules, derivatives)
        level.__name__ = level.__qualname__ = f"{name}Level"
        torch.library.impl(op.name(), "Autograd")(_autograd_kernel(rules, level))
    else:
        torch.library.register_autograd(op.name(), derivatives.backward, setup_context=derivatives.setup_context)
    torch.library.register_fake(op.name(), rules.fake)
    torch.library.register_vmap(op.name(), vmap)
    register_flop_formula(op.overloadpacket)(_no_flops)
    function = _compiled_function(rules, derivatives, call)
    for named in (eager_function, function):
        named.__name__ = named.__qualname__ = name
    return Operator(call, function)
