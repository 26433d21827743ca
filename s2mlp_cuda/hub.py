"""Models that can be saved to, loaded from and pushed to the Hugging Face Hub, or a folder, as safetensors.

Needs huggingface_hub and safetensors (``pip install 's2mlp_cuda[hub]'``)::

    from s2mlp_cuda import hub

    model = hub.create_model("s2mlpv2_small_7", num_classes=10)
    model.save_pretrained("folder")  # or model.push_to_hub("user/name")
    model = hub.S2MLPv2.from_pretrained("folder")  # or "user/name"

A model that can be saved computes the same when it is loaded: config.json has the arguments that it was built with, and the weights
have a checksum. What config.json cannot describe, such as a callable ``norm_layer`` or a replaced layer, is an error.
"""

import inspect
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2mlp_cuda import models
from s2mlp_cuda._extras import MissingExtraError, require
from s2mlp_cuda._files import atomic_file, current, replaced_together
from s2mlp_cuda._messages import one_line
from s2mlp_cuda._model_size import build_on_meta
from s2mlp_cuda._state_dicts import differences, few
from s2mlp_cuda.models._registry import configuration

require("hub", "huggingface_hub", "safetensors")
from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download  # noqa: E402

from s2mlp_cuda import _safetensors  # noqa: E402

_CARD = {"library_name": "s2mlp_cuda", "license": "apache-2.0", "pipeline_tag": "image-classification"}


def _plain(value: Any) -> Any:
    """A value of JSON: None, a boolean, a number, a string or a list of these. Also from NumPy, tensors and any sequence.

    Raises:
        TypeError, ValueError: JSON cannot express the value.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        return float(value)
    return list(map(_plain, value)) if isinstance(value, Sequence) else index(value)


class _Unnamed:
    """Positional arguments that a subclass takes as ``*args``: they cannot be passed by name."""


def _named(signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor by name, with defaults and without ``self``."""
    bound = signature.bind_partial(*args, **kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= value
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            named[name] = value
        elif value:
            named[name] = _Unnamed()
    return named


class _Saved(nn.Module, PyTorchModelHubMixin):
    """What both models have in common: the arguments that they were built with, and how they are saved and loaded."""

    _arguments: dict[str, Any]
    _not_json: dict[str, str]

    def __new__(cls, *args, **kwargs):
        model = super().__new__(cls, *args, **kwargs)
        # Now, since a list or a tensor may be changed later.
        model._arguments, model._not_json = {}, {}
        for name, value in _named(inspect.signature(cls.__init__), (model, *args), kwargs).items():
            try:
                model._arguments[name] = _plain(value)
            except (TypeError, ValueError, RuntimeError, RecursionError):
                model._not_json[name] = type(value).__name__
        return model

    def _config(self) -> dict[str, Any]:
        """The content of config.json: the arguments that build this model, with the present head and pooling.

        Raises:
            TypeError: an argument cannot be expressed in JSON.
            ValueError: the model was changed, so that its arguments build a different one.
        """
        for name, kind in self._not_json.items():
            raise TypeError(
                f"cannot save a model whose {name} is of type {kind}: arguments must be None, finite numbers, strings or sequences "
                "of these, because config.json can hold no others"
            )
        present = {name: _plain(getattr(self, name)) for name in ("num_classes", "global_pool") if name in self._arguments}
        config = self._arguments | present
        with torch.device("meta"):
            rebuilt = type(self)(**config)
        changed = _changes(self, rebuilt)
        if changed:
            raise ValueError(
                f"cannot save a model that was changed after it was built ({few(changed)}), because config.json can only hold the "
                "arguments of the constructor: save its state_dict() instead"
            )
        return config

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **options,
    ) -> str | None:
        """Write config.json, model.safetensors and, if there is none, README.md: all of them, or nothing for a model that cannot be
        saved or on a full disk. A model that was saved in the same folder before is then kept.

        Args:
            save_directory: folder, which is created if necessary.
            config: None, or the same arguments that are written anyway.
            repo_id, push_to_hub, model_card_kwargs, **options: as for
                :meth:`huggingface_hub.PyTorchModelHubMixin.save_pretrained`.

        Raises:
            TypeError, ValueError: config.json cannot describe the model, or ``config`` describes another one.
            OSError: a file cannot be written.
        """
        own = self._config()
        if config not in (None, own):
            raise ValueError(f"config must be None or the arguments of this model, {own}, got {config}")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_together(folder) as files:
            super().save_pretrained(files, config=own, model_card_kwargs=model_card_kwargs)
            if (folder / "README.md").exists():
                (files / "README.md").unlink()
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, config=own, model_card_kwargs=model_card_kwargs, **options)

    def push_to_hub(self, *args, **options) -> str:
        """Upload what :meth:`save_pretrained` writes; arguments as for :meth:`huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Raises:
            TypeError, ValueError: as for :meth:`save_pretrained`, before a repository is created.
        """
        self._config()
        return super().push_to_hub(*args, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        # Clones, because a file cannot have tensors that share memory.
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}
        content = _safetensors.to_bytes(tensors, {}, format="pt")
        with atomic_file(save_directory / constants.SAFETENSORS_SINGLE_FILE) as file:
            file.write(content)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str | torch.device = "cpu",
        strict: bool = True,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **arguments,
    ):
        """Load a model; it is in evaluation mode and has the dtypes of the weights.

        Args:
            pretrained_model_name_or_path: folder, or repository of the Hub.
            map_location: device of the model.
            strict: whether missing and unexpected weights are errors.
            force_download, token, cache_dir, local_files_only, revision: as for :func:`huggingface_hub.hf_hub_download`.
            **arguments: arguments of the constructor that override those in config.json.

        Raises:
            OSError: a file does not exist or cannot be read or downloaded.
            ValueError: config.json is not the configuration of such a model, or of one that is much larger than the weights, which
                is not built; the weights are damaged or of a different model.
        """

        def file(name: str) -> Path:
            if Path(pretrained_model_name_or_path).is_dir():
                return current(Path(pretrained_model_name_or_path), name)
            download: dict[str, Any] = {"force_download": force_download, "token": token, "cache_dir": cache_dir}
            download |= {"local_files_only": local_files_only, "revision": revision}
            return Path(hf_hub_download(str(pretrained_model_name_or_path), name, **download))

        config, path = file(constants.CONFIG_NAME), file(constants.SAFETENSORS_SINGLE_FILE)
        arguments = {**_arguments(cls, config), **arguments}
        tensors, _ = _safetensors.read(path)
        with _errors_of(cls, config):
            expected = build_on_meta(lambda: cls(**arguments), tensors.values()).state_dict()
        different = [name for name in differences(tensors, expected) if strict or name in tensors.keys() & expected.keys()]
        if different:
            raise ValueError(f"{path} has weights of a different model: {few(different)}")
        with _errors_of(cls, config):
            model = cls(**arguments)
        # Clones, because tensors that were read may be views of the file.
        model.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, strict=strict, assign=True)
        return model.to(map_location).eval()


def _changes(model: nn.Module, original: nn.Module) -> list[str]:
    """The names of modules and tensors that differ from those of the original model, except for values of tensors."""
    ours, theirs = dict(model.named_modules()), dict(original.named_modules())
    changed = [name or type(model).__name__ for name in ours.keys() | theirs.keys() if _differ(ours.get(name), theirs.get(name))]
    return sorted({*changed, *differences(model.state_dict(), original.state_dict())})


def _differ(module: nn.Module | None, original: nn.Module | None) -> bool:
    """Whether the type of a module or one of the numbers, strings and tuples that it was built with has changed."""
    if module is None or original is None or type(module) is not type(original):
        return True
    now = vars(module)
    return any(
        now.get(name) != value
        for name, value in vars(original).items()
        if isinstance(value, (bool, int, float, str, tuple)) and name not in ("training", "grad_checkpointing")
    )


def _arguments(cls: Any, path: Path) -> dict[str, Any]:
    """The arguments of the constructor in config.json, which may have no others.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is not JSON, or has other names than those of the constructor.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must have a JSON object with the arguments of {cls.__name__}, got {type(config).__name__}")
    parameters = inspect.signature(cls.__init__).parameters
    unknown = sorted(config.keys() - (parameters.keys() - {"self"}))
    if unknown and all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
        raise ValueError(f"{path} is not the configuration of {cls.__name__}, which has no arguments {few(unknown)}")
    return config


@contextmanager
def _errors_of(cls: Any, path: Path) -> Iterator[None]:
    """
    Raises:
        ValueError: the constructor cannot be called with the arguments in config.json.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except Exception as error:  # constructors check their arguments in many ways
        raise ValueError(f"cannot build {cls.__name__} with the arguments in {path} ({one_line(error)})") from error


class S2MLP(models.S2MLP, _Saved, tags=["s2mlp"], paper_url="https://arxiv.org/abs/2106.07477", **_CARD):
    """:class:`s2mlp_cuda.models.S2MLP` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""


class S2MLPv2(models.S2MLPv2, _Saved, tags=["s2mlp"], paper_url="https://arxiv.org/abs/2108.01072", **_CARD):
    """:class:`s2mlp_cuda.models.S2MLPv2` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""


_WITH_HUB = {models.S2MLP: S2MLP, models.S2MLPv2: S2MLPv2}


def create_model(name: str, **kwargs) -> S2MLP | S2MLPv2:
    """:func:`s2mlp_cuda.create_model`, with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Raises:
        ValueError: the name is unknown.
    """
    architecture, arguments = configuration(name)
    return _WITH_HUB[architecture](**{**arguments, **kwargs})
