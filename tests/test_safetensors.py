"""The checksum of weights files."""

import pytest
import torch

pytest.importorskip("safetensors")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load, save_file  # noqa: E402

from s2mlp_cuda import _safetensors  # noqa: E402

TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16),
    "float8": torch.ones(2).to(torch.float8_e5m2),
    "integer": torch.tensor(7), "boolean": torch.tensor([True, False]), "empty": torch.ones(0, 4), "complex": torch.tensor([1j]),
    "transposed": torch.arange(6.0).reshape(2, 3).T, "slice": torch.arange(9.0)[3:6],
}  # fmt: skip
DESCRIPTION = {"name": "ä", "sizes": [1, 2.5, None, True], "nested": {"10": 1, "9": 2}}


def is_same(tensors):
    return tensors.keys() == TENSORS.keys() and all(
        tensors[name].dtype == tensor.dtype and torch.equal(tensors[name].reshape(-1), tensor.reshape(-1))
        for name, tensor in TENSORS.items()
    )


def test_round_trip(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(_safetensors.to_bytes(TENSORS, DESCRIPTION, format="pt"))
    tensors, description = _safetensors.read(path)
    assert is_same(tensors) and description == DESCRIPTION
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
    assert is_same(load(path.read_bytes()))  # other programs read it, too


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    """Every byte of a file, each with one bit flipped: an error, or, outside the checksum, the same weights and description."""
    path = tmp_path / "x.safetensors"
    content = _safetensors.to_bytes(TENSORS, DESCRIPTION)
    refused = 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])
        try:
            tensors, description = _safetensors.read(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path} is ") and "\n" not in str(error)
        else:
            # The name of the entry, or of the checksum in it, was changed, so that there is nothing to compare with.
            assert is_same(tensors) and (description == {} or description.items() >= DESCRIPTION.items())
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors | {"half": tensors["half"].view(torch.int16)},
        lambda tensors: tensors | {"float": tensors["float"].reshape(3, 2)},
        lambda tensors: tensors | {"empty": torch.ones(4, 0)},
        lambda tensors: tensors | {"float": tensors["float"] + 1},
        lambda tensors: {f"{name}_": tensor for name, tensor in tensors.items()},
        lambda tensors: dict(list(tensors.items())[1:]),
        lambda tensors: tensors | {"more": torch.ones(1)},
    ],
)
def test_names_dtypes_shapes_and_bytes_are_verified(tmp_path, change):
    path = tmp_path / "x.safetensors"
    path.write_bytes(_safetensors.to_bytes(TENSORS, {}))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({name: tensor.contiguous() for name, tensor in change(TENSORS).items()}, path, metadata)
    with pytest.raises(ValueError, match=f"^{path} is damaged: its checksum does not match its weights and their description$"):
        _safetensors.read(path)


def test_files_without_checksum_are_read(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    for metadata, expected in ((None, {}), ({"format": "pt"}, {}), ({"s2mlp_cuda": '{"a": 1}'}, {"a": 1})):
        save_file(tensors, path, metadata)
        read, description = _safetensors.read(path)
        assert is_same(read) and description == expected


@pytest.mark.parametrize("entry", ["", "{", "[]", "1", "null", '"text"', "[" * 100_000])
def test_entry_that_is_no_object(tmp_path, entry):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path, {"s2mlp_cuda": entry})
    with pytest.raises(ValueError, match=f"^{path} is damaged: the entry 's2mlp_cuda' of its metadata must be a JSON object$"):
        _safetensors.read(path)
