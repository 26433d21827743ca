"""The description of a model in its weights file: what it may say, and the model that it names."""

import difflib
import inspect
import reprlib
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
from torch import nn

import s2mlp_cuda.timm  # noqa: F401, registers this package's models with timm
from s2mlp_cuda._messages import one_line
from s2mlp_cuda._model_size import build_on_meta
from s2mlp_cuda.models import list_models
from s2mlp_cuda.models._registry import configuration
from s2mlp_cuda.training import peer_models  # noqa: F401, registers these models with timm
from s2mlp_cuda.training.config import INTERPOLATIONS, MAX_SIDE, tuples_to_lists
from s2mlp_cuda.training.errors import TrainingError

#: Arguments of timm.create_model that select initial weights. They do not belong to the description of a trained model.
_INITIAL_WEIGHTS = {"pretrained", "pretrained_strict", "checkpoint_path", "cache_dir"}
#: Parameters of constructors that are given otherwise, or say where to build the model.
_NOT_ALLOWED = {"self", "num_classes", "device", "dtype"}


@dataclass(frozen=True)
class Description:
    """A model and its input: arguments of ``timm.create_model``, class names by index, and the preprocessing of images."""

    model: str
    model_kwargs: dict[str, Any]
    num_classes: int
    class_names: list[str]
    img_size: int
    mean: list[float]
    std: list[float]
    interpolation: str
    crop_pct: float

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, without the arguments that select initial weights."""
        kwargs = {name: value for name, value in self.model_kwargs.items() if name not in _INITIAL_WEIGHTS}
        return tuples_to_lists({**asdict(self), "model_kwargs": kwargs})


def _is_int(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _are_channels(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


#: What is allowed for each field, and whether a value is.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("a printable string", lambda value: isinstance(value, str) and value.isprintable()),
    "model_kwargs": ("an object", lambda value: isinstance(value, dict)),
    "num_classes": ("a positive integer", _is_int),
    "class_names": ("a list of strings", lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value)),
    "img_size": ("a positive integer", _is_int),
    "mean": ("three numbers", _are_channels),
    "std": ("three positive numbers", lambda value: _are_channels(value) and min(value) > 0),
    "interpolation": (f"one of {', '.join(INTERPOLATIONS)}", lambda value: value in INTERPOLATIONS),
    "crop_pct": ("a number in (0, 1]", lambda value: _is_number(value) and 0 < value <= 1),
}


def from_json(fields: Mapping[str, Any]) -> Description:
    """
    Raises:
        ValueError: a field is missing, unknown or invalid.
    """
    different = sorted(fields.keys() ^ _FIELDS.keys())
    if different:
        raise ValueError(f"missing or unknown: {', '.join(different)}")
    for name, (allowed, is_valid) in _FIELDS.items():
        if not is_valid(fields[name]):
            raise ValueError(f"{name} must be {allowed}, got {reprlib.repr(fields[name])}")
    if len(fields["class_names"]) > fields["num_classes"]:
        raise ValueError(f"{len(fields['class_names'])} class names for {fields['num_classes']} classes")
    if fields["img_size"] > MAX_SIDE * fields["crop_pct"]:
        raise ValueError(f"img_size must be at most {MAX_SIDE} times crop_pct, got {fields['img_size']} and {fields['crop_pct']}")
    return Description(**fields)


def _parameters(cls: type) -> set[str]:
    """The names of a constructor's parameters, and, where it passes on ``**kwargs``, those of its base classes."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
        if all(each.kind is not each.VAR_KEYWORD for each in parameters):
            break
    return names


def _is_plain(value: Any, levels: int = 10) -> bool:
    """Whether this is None, a boolean, a number, a string, or a list, tuple or dict of these, nested at most ``levels`` deep."""
    if isinstance(value, dict):
        return levels > 0 and all(isinstance(name, str) and _is_plain(item, levels - 1) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    return value is None or isinstance(value, (bool, int, str)) or _is_number(value)


def check_model(name: str, kwargs: Mapping[str, Any]) -> None:
    """Check that a model can be described in a weights file: that it needs neither network nor files to be built.

    Allowed are the registered models of this package and of timm, and plain values for the arguments of their constructors.

    Raises:
        TrainingError: another model, argument or value.
    """
    architecture: type[nn.Module]
    if name in list_models():
        architecture = configuration(name)[0]
    elif timm.is_model(timm.models.split_model_name_tag(name)[0]):
        with torch.device("meta"), _errors_of(name, {}):
            architecture = type(timm.create_model(name))
    else:
        close = difflib.get_close_matches(name, [*list_models(), *timm.list_models()], 1, 0.8)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise TrainingError(
            f"cannot build {name}: it is not a registered model of s2mlp_cuda or timm{hint}; a model of your own is known only to "
            "the program that registers it, see help(s2mlp_cuda.models.register_models)"
        )
    unknown = sorted(kwargs.keys() - (_parameters(architecture) - _NOT_ALLOWED))
    if unknown:
        raise TrainingError(
            f"cannot build {name} with {', '.join(map(repr, unknown))}: only arguments of {architecture.__name__} are allowed"
        )
    for argument, value in kwargs.items():
        if not _is_plain(value):
            raise TrainingError(
                f"cannot build {name}: {argument} must be None, a number, a string, or a list or dict of these, "
                f"got {reprlib.repr(value)}"
            )


def build(name: str, num_classes: int, /, **kwargs) -> nn.Module:
    """``timm.create_model`` for a model that a weights file can describe, with errors as TrainingError. Initial weights may come
    from elsewhere, as with ``pretrained=True``.

    Raises:
        TrainingError: the model is unknown or does not accept the arguments.
    """
    check_model(name, {argument: value for argument, value in kwargs.items() if argument not in _INITIAL_WEIGHTS})
    with _errors_of(name, kwargs):
        return timm.create_model(name, num_classes=num_classes, **kwargs)


def check_arguments_of_model(name: str, kwargs: Mapping[str, Any]) -> None:
    """Builds the model without memory for its tensors, and without initial weights from elsewhere.

    Raises:
        TrainingError: as for :func:`build`.
    """
    kwargs = {argument: value for argument, value in kwargs.items() if argument not in _INITIAL_WEIGHTS}
    check_model(name, kwargs)
    with torch.device("meta"), _errors_of(name, kwargs):
        timm.create_model(name, **kwargs)


@contextmanager
def _errors_of(name: str, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """
    Raises:
        TrainingError: the model does not accept the arguments.
    """
    try:
        yield
    except Exception as error:  # models check their arguments in many ways
        given = textwrap.shorten(str(kwargs), 1000, placeholder=" ...")
        raise TrainingError(f"cannot build {name} with {given}: {one_line(error)}") from error


def build_described(description: Description) -> nn.Module:
    """
    Raises:
        TrainingError: the description names anything but a model and its plain arguments, or they do not fit.
    """
    check_model(description.model, description.model_kwargs)
    return build(description.model, description.num_classes, **description.model_kwargs)


def build_described_on_meta(description: Description, weights: Collection[torch.Tensor]) -> nn.Module:
    """The model without memory for its tensors, to compare it with the weights in the same file.

    Raises:
        TrainingError: as for :func:`build_described`; the model is much larger than the weights.
    """
    name, kwargs = description.model, description.model_kwargs
    check_model(name, kwargs)
    with _errors_of(name, kwargs):
        if name not in list_models():
            _check_integers(kwargs, max((max(tensor.shape, default=1) for tensor in weights if tensor.numel()), default=1))
        return build_on_meta(lambda: timm.create_model(name, num_classes=description.num_classes, **kwargs), weights)


def _check_integers(value: Any, largest_dimension: int) -> None:
    """Bounds the loops in constructors of timm's models. An integer is a size of an image, or a number of blocks or channels.

    Raises:
        ValueError: an integer is larger than the sides of all images and the dimensions of all weights.
    """
    limit = max(MAX_SIDE, largest_dimension)
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_integers(item, largest_dimension)
    elif isinstance(value, int) and value > limit:
        raise ValueError(f"{value} is more than {limit}, the most that the sizes of images and weights allow")
