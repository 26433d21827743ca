"""Safetensors files with a description and a checksum, because the format has no checksum. Needs safetensors.

Both are in the entry ``s2mlp_cuda`` of the file's metadata: a JSON object, in which ``sha256`` is the checksum of the other fields
and of the names, dtypes, shapes and bytes of all tensors. A file without ``sha256`` is read without verification. The cost is
one SHA-256 over the weights when they are written and one when they are read, about a second per gigabyte.
"""

import ctypes
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

_ENTRY = "s2mlp_cuda"
_CHECKSUM = "sha256"


def _digest(tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]) -> str:
    """
    Args:
        tensors: contiguous tensors on the CPU.
        description: JSON values.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()) if tensor.nbytes else b"")
    return digest.hexdigest()


def to_bytes(tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any], **metadata: str) -> bytes:
    """The content of a file.

    Args:
        tensors: of any device and layout in memory; no two of them may share memory.
        description: JSON values, by name.
        metadata: further entries, which the checksum does not cover.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    description = json.loads(json.dumps(description))  # as it will be read
    entry = json.dumps({**description, _CHECKSUM: _digest(tensors, description)})
    return save(tensors, {**metadata, _ENTRY: entry})


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file, and their description, which is empty if there is none.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is damaged, which includes every change of its tensors or description if it has a checksum.
    """
    try:
        with safe_open(path, "pt") as file:
            described = (file.metadata() or {}).get(_ENTRY, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file or is damaged ({error})") from error
    try:
        description = json.loads(described)
        json.dumps(description)  # fails for what is nested too deep for the checksum
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise ValueError(f"{path} is damaged: the entry {_ENTRY!r} of its metadata must be a JSON object")
    checksum = description.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _digest(tensors, description):
        raise ValueError(f"{path} is damaged: its checksum does not match its weights and their description")
    return tensors, description
