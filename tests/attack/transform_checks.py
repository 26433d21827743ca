"""Compares a public function or layer under transforms with the oracle in float64 under the same transforms, on one case."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import numpy_oracle
from public_calls import LINEAR, function_of, oracle_of
from strategies import Layout
from transform_strategies import Argument, Step, TransformCase

Tensors = tuple[torch.Tensor, ...]
Function = Callable[..., Tensors]
#: The allowed error, relative to the largest element: five roundings of 16-bit results. The softmax amplifies rounding errors of
#: logits that are sums over tokens, so float32 has 168. float64 is also for higher derivatives, whose values cancel.
TOLERANCES = {torch.float64: 2e-11, torch.float32: 1e-5, torch.float16: 2.5e-3, torch.bfloat16: 1e-2}


def whole_like(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Small integers that depend on the shape and the seed, made by operators that every transform and tracer takes."""
    numbers = torch.arange(x.numel(), device=x.device)
    return ((numbers * (2 * seed + 3)) % 5 - 2).to(x.dtype).reshape(x.shape)


def make(argument: Argument, seed: int) -> torch.Tensor:
    def values(shape) -> torch.Tensor:
        return argument.scale * torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, tuple(shape))).to(argument.dtype)

    return argument.layout.place(argument.shape, values)


def _as_tuple(function: Callable[..., torch.Tensor], square: bool) -> Function:
    return lambda *tensors: (function(*((x * x if square else x) for x in tensors)),)


def _of_inputs(function: Function, inputs: Sequence[int], tensors: Tensors) -> Function:
    """The function of some of its inputs; the others are constant."""

    def some(*chosen: torch.Tensor) -> Tensors:
        every = dict(enumerate(tensors)) | dict(zip(inputs, chosen))
        return function(*(every[i] for i in range(len(tensors))))

    return some


def _transformed(function: Function, step: Step, seed: int) -> Function:
    """The function under one transform of torch.func. Derivatives are those of the sum of its results times small integers."""
    if step.kind == "vmap":

        def vmapped(*tensors: torch.Tensor) -> Tensors:
            return torch.func.vmap(function, step.in_dims, step.out_dim)(*tensors)

        return vmapped

    def derivative(*tensors: torch.Tensor) -> Tensors:
        some, chosen = _of_inputs(function, step.inputs, tensors), tuple(tensors[i] for i in step.inputs)
        if step.kind == "jvp":
            return torch.func.jvp(some, chosen, tuple(whole_like(x, seed) for x in chosen))[1]
        if step.kind == "vjp":
            out, pull = torch.func.vjp(some, *chosen)
            return pull(tuple(whole_like(y, seed) for y in out))

        def loss(*chosen: torch.Tensor) -> torch.Tensor:
            return sum(((y * whole_like(y, seed)).sum() for y in some(*chosen)), torch.zeros(()))

        return torch.func.grad(loss, tuple(range(len(chosen))))(*chosen)

    return derivative


def composed(function: Callable[..., torch.Tensor], case: TransformCase) -> Function:
    result = _as_tuple(function, case.square)
    for number, step in enumerate(case.steps):
        result = _transformed(result, step, case.seed + number)
    return result


def _backward(function: Function, tensors: Tensors, case: TransformCase, grads: Callable[[Tensors], Tensors]) -> list[torch.Tensor]:
    """The gradients of the inputs that require them; for "double backward" also the gradients of these."""
    inputs = [x.detach().clone(memory_format=torch.preserve_format) if case.change == "inputs" else x.detach() for x in tensors]
    inputs = [x.requires_grad_(a.requires_grad and x.is_floating_point()) for x, a in zip(inputs, case.arguments)]
    required = [x for x in inputs if x.requires_grad]
    out = checkpoint(function, *inputs, use_reentrant=False) if case.checkpoint else function(*inputs)
    incoming = tuple(grad.requires_grad_() for grad in grads(out))
    if case.change == "result":
        for y in out:
            if 0 not in y.stride():  # vmap expands what is the same for all
                y.detach().mul_(3)  # is not what was saved for backward
    twice = case.engine == "double backward"
    if case.change == "inputs" and not twice:
        with torch.no_grad():
            for x in required:
                x.add_(1)
    first = _gradients(out, required, incoming, create_graph=twice)
    second = _gradients(first, [*required, *incoming], [whole_like(g, case.seed + 7) for g in first]) if twice else []
    return [g.detach() for g in (*first, *second)]


def _gradients(
    outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], create_graph: bool = False
) -> Tensors:
    """As torch.autograd.grad; zeros where an output is constant."""
    varying = [(y, grad) for y, grad in zip(outputs, grads) if y.requires_grad]
    if not varying:
        return tuple(torch.zeros_like(x) for x in inputs)
    options = {"create_graph": create_graph, "allow_unused": True, "materialize_grads": True}
    return torch.autograd.grad([y for y, _ in varying], inputs, [grad for _, grad in varying], **options)


def _dual(function: Function, tensors: Tensors, case: TransformCase, reverse: bool) -> list[torch.Tensor]:
    """The tangents of the results in forward mode; for ``reverse``, those of their gradients."""
    with forward_ad.dual_level():
        inputs = [
            forward_ad.make_dual(x.detach().requires_grad_(reverse), whole_like(x, case.seed + i))
            if a.requires_grad
            else x.detach()
            for i, (x, a) in enumerate(zip(tensors, case.arguments))
        ]
        out = function(*inputs)
        if reverse:
            required = [x for x, a in zip(inputs, case.arguments) if a.requires_grad]
            out = _gradients(out, required, [whole_like(y, case.seed + 9) for y in out], create_graph=True)
        parts = [forward_ad.unpack_dual(y) for y in out]
        return [torch.zeros_like(y) if t is None else t.detach().clone() for y, t in parts]


def _placed(layouts: Sequence[Layout], seed: int) -> Callable[[Tensors], Tensors]:
    """Incoming gradients with the memory layout of an input where the shape allows."""

    def grads(out: Tensors) -> Tensors:
        values = [whole_like(y.detach(), seed) for y in out]
        return tuple(
            layout.place(tuple(y.shape), lambda shape, y=y: y[tuple(slice(size) for size in shape)])
            if (layout := layouts[0]) and len(layout.order) == y.dim() and not any(layout.expanded)
            else y.clone()
            for y in values
        )

    return grads


def _run(function: Function, tensors: Tensors, case: TransformCase, grads: Callable[[Tensors], Tensors]) -> list[torch.Tensor]:
    if case.engine.endswith("backward") and not case.engine.startswith("dual"):
        return _backward(function, tensors, case, grads)
    if case.engine.startswith("dual"):
        return _dual(function, tensors, case, case.engine == "dual of backward")
    with getattr(torch, case.grad_mode)():
        return [*function(*tensors)]


def check_close(ours: Sequence[torch.Tensor], exact: Sequence[torch.Tensor], map_dtype: torch.dtype) -> None:
    """Results of float64 weights beside a map of lower precision are computed in float32."""
    computed = torch.float64 if map_dtype == torch.float64 else torch.float32
    assert len(ours) == len(exact)
    for found, expected in zip(ours, exact):
        assert found.shape == expected.shape, (found.shape, expected.shape)
        scale = expected.abs().max().clamp(min=1) if expected.numel() else 1
        error = (found.double() - expected).abs().max() / scale if expected.numel() else 0
        assert error <= max(TOLERANCES[found.dtype], TOLERANCES[computed]), f"error {error}"


def facts(tensors: Sequence[torch.Tensor]) -> list[tuple]:
    """Shapes, dtypes and strides, without strides that address nothing: those of ``torch.empty_like`` differ for fake tensors."""
    return [(x.shape, x.dtype, [s for s, size in zip(x.stride(), x.shape) if size > 1 and x.numel()]) for x in tensors]


def check_transforms(case: TransformCase) -> None:
    tensors = tuple(make(argument, case.seed + i) for i, argument in enumerate(case.arguments))
    exact_tensors = tuple(x.double() for x in tensors)
    before = [x.clone() for x in tensors]
    function = composed(function_of(case.name, case.options, case.channels, case.hidden), case)
    oracle = composed(oracle_of(case.name, case.options), case)
    plain = replace(case, checkpoint=False, change="nothing")
    grads = _placed([argument.layout for argument in case.arguments], case.seed + 5)
    with torch.autocast("cpu", torch.bfloat16) if case.autocast else contextlib.nullcontext():
        if case.engine == "make_fx":
            graph = make_fx(function, tracing_mode=case.tracing_mode)(*tensors)
            with torch.autocast("cpu", enabled=False):  # the graph has operators below autocast
                ours = [*graph(*tensors)]
        elif case.engine == "fake":
            ours = [*function(*tensors)]
            with FakeTensorMode() as mode:
                assert facts(function(*(mode.from_tensor(x) for x in tensors))) == facts(ours)
        else:
            try:
                ours = _run(function, tensors, case, grads)
            except RuntimeError as error:
                if case.change == "inputs" and "modified by an inplace operation" in str(error):
                    return  # what was changed had been saved for backward
                raise
    for x, y in zip(tensors, before):
        assert torch.equal(x, y), "an input was changed"
    check_close(ours, _run(oracle, exact_tensors, plain, grads), case.arguments[0].dtype)


def check_values(case: TransformCase) -> None:
    """The value and the gradients of a linear function with small integers, compared exactly with the scalar NumPy oracle."""
    assert case.name in LINEAR
    arguments = [replace(argument, layout=argument.layout, scale=1.0) for argument in case.arguments]
    tensors = [make(argument, case.seed + i).requires_grad_(argument.requires_grad) for i, argument in enumerate(arguments)]
    out = function_of(case.name, case.options, case.channels, case.hidden)(*tensors)
    (grad,) = _placed([case.arguments[0].layout], case.seed + 5)((out,))
    required = [x for x in tensors if x.requires_grad]
    found = [out.detach(), *torch.autograd.grad(out, required, grad)]
    arrays = [x.detach().double().numpy() for x in (*tensors, grad)]
    exact = _numpy_results(case, *arrays)
    exact = [exact[0], *(g for g, x in zip(exact[1:], tensors) if x.requires_grad)]
    for ours, expected, like in zip(found, exact, [None, *required], strict=True):
        assert np.array_equal(ours.double().numpy(), expected)
        assert like is None or ours.dtype == like.dtype


def _numpy_results(case: TransformCase, x: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """The value, and the gradient of each input for the last array."""
    options = case.options
    tables = options.tables if "branch" in case.name else options.tables[:1]
    flat, sizes = [], []
    for table in tables:
        pairs = table or ((0, 0),)
        flat += [d for pair in pairs for d in pair]
        given = options.group_sizes
        sizes += given or numpy_oracle.sizes_of(case.channels, len(pairs), None)
    table = flat, sizes, options.mode
    *weights, grad = others
    if case.name == "shift_branch_pool":
        height, width = x.shape[-3:-1]
        ones = np.ones((*grad.shape[:-1], len(tables), grad.shape[-1]))
        tokens = np.broadcast_to(grad[..., None, None, :], (*grad.shape[:-1], height, width, grad.shape[-1]))
        return [numpy_oracle.pool(x, len(tables), *table), numpy_oracle.combine_backward(tokens, ones, None, *table)]
    if case.name == "shift_branch_combine":
        return [
            numpy_oracle.combine(x, weights[0], *table),
            numpy_oracle.combine_backward(grad, weights[0], None, *table),
            numpy_oracle.combine_backward_weights(grad, x, *table),
        ]
    first = options.data_format == "channels_first"
    x, grad = (np.moveaxis(array, -3, -1) if first else array for array in (x, grad))
    results = [numpy_oracle.shift(x, *table), numpy_oracle.adjoint(grad, *table)]
    return [np.moveaxis(array, -1, -3) if first else array for array in results]
