"""Where weights come from: files, entries of checkpoints, averaged weights and prefixes of keys."""

import argparse
import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from s2mlp_cuda.convert import convert
from s2mlp_cuda.layers import S2
from s2mlp_cuda.models import S2MLP, S2MLPv2

from public_copies import S2Attention, Staged, VisionMLP, randomized, v2_mixer

pytestmark = pytest.mark.usefixtures("one_thread")


def model():
    return Staged(v2_mixer, [4, 2], [4, 8], [1, 1], [2, 2])


def tiny_v1():
    return S2MLP(patch_size=4, embed_dim=8, depth=1)


def tiny_v2():
    return S2MLPv2(patch_sizes=[4], embed_dims=[8], depths=[1])


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def loaded(source, public, **options):
    """The report; the converted model must have the public one's weights."""
    ours, report = convert(source, **options)
    state = ours.state_dict()
    expected, _ = convert(public.state_dict())
    for key, value in expected.state_dict().items():
        assert torch.equal(state[key], value), key
    assert state.keys() == expected.state_dict().keys() and len(report.renamed) == len(public.state_dict())
    return report


@pytest.mark.parametrize("build", [model, VisionMLP, lambda: S2Attention(8)])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "backbone.", "a.b.c."])
def test_prefixes(build, prefix):
    public = build()
    report = loaded(prefixed(prefix, public.state_dict()), public)
    assert report.source == prefix.removesuffix(".") and report.weights == "model" and not report.untouched


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict", "net", "weights", "anything"])
def test_entries(name):
    public = model()
    optimizer = torch.optim.AdamW(public.parameters())
    public(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    extras = {"optimizer": optimizer.state_dict(), "epoch": 3, "loss": torch.tensor(1.0), "config": {"lr": 0.1}, "ema": None}
    report = loaded({name: prefixed("module.", public.state_dict()), **extras}, public)
    assert report.source == f"{name}.module" and report.weights == "model"
    assert report.siblings == list(extras) and not report.untouched
    assert f"  model weights, float32, from {name}.module" in str(report).splitlines()
    assert loaded({"run": {name: public.state_dict()}, "epoch": 3}, public).source == f"run.{name}"
    assert loaded({name: public, "epoch": 3}, public).source == name  # the module itself, as YOLO saves it


EMA_NAMES = ["model_ema", "ema", "ema_state_dict", "state_dict_ema", "ema_model", "modelEMA", "ModelEma", "averaged_model"]


@pytest.mark.parametrize("name", EMA_NAMES)
def test_ema(name):
    raw, ema = model(), model()
    both = {"model": raw.state_dict(), name: prefixed("module.", ema.state_dict())}
    for weights, public, source in (("auto", ema, f"{name}.module"), ("ema", ema, f"{name}.module"), ("model", raw, "model")):
        report = loaded(both, public, weights=weights)
        assert report.source == source and report.weights == ("model" if public is raw else "ema")
    assert loaded({name: ema.state_dict(), "epoch": 1}, ema).weights == "ema"
    with pytest.raises(ValueError, match=f"weights='model' is not in the checkpoint, which has only {name}$"):
        convert({name: ema.state_dict()}, weights="model")
    with pytest.raises(ValueError, match="weights='ema' is not in the checkpoint, which has only model$"):
        convert({"model": raw.state_dict()}, weights="ema")


@pytest.mark.parametrize("name", ["schema", "thematic", "remainder"])
def test_not_every_ema_is_an_average(name):
    public = model()
    assert loaded({name: public.state_dict()}, public).weights == "model"


def test_averages_beside_the_weights_in_one_state_dict():
    raw, ema = model(), model()
    both = prefixed("model.", raw.state_dict()) | prefixed("model_ema.", ema.state_dict())
    assert loaded(both, ema).source == "model_ema"
    assert loaded(both, raw, weights="model").source == "model"


def test_averaged_model():
    """The state dict of torch.optim.swa_utils.AveragedModel has no word of EMA, but a counter."""
    public = model()
    averaged = AveragedModel(public, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for source in (averaged.state_dict(), averaged):
        report = loaded(source, averaged.module)
        assert report.weights == "ema" and report.siblings == ["n_averaged"]
    assert loaded({"model": public.state_dict(), "average": averaged.state_dict()}, public, weights="model").source == "model"


def test_several_models():
    states = {"best": model().state_dict(), "last": model().state_dict()}
    with pytest.raises(ValueError, match="the checkpoint has several models, best, last; pass one of them"):
        convert(states)
    students = prefixed("student.", model().state_dict()) | prefixed("teacher.", model().state_dict())
    with pytest.raises(ValueError, match="the checkpoint has several models, student, teacher; pass one of them"):
        convert(students)


def test_weights_beside_a_model():
    state = prefixed("model.", model().state_dict()) | {"loss.weight": torch.ones(3)}
    with pytest.raises(ValueError, match="unexpected weights: loss.weight;"):
        convert(state)
    assert convert(state, allow_unexpected=True)[1].unexpected == ["loss.weight"]


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda net: nn.DataParallel(torch.compile(net)), lambda net: nn.Sequential(net)]
)
def test_wrapped_modules(wrap):
    public = randomized(model())
    ours, _ = convert(wrap(public).eval())
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), public(x), rtol=0, atol=1e-10)
    assert not ours.training and convert(wrap(public).train())[0].training


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_files(tmp_path, suffix):
    public, path = model(), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(public.state_dict(), path)
    else:
        torch.save({"model": public.state_dict(), "epoch": 3}, path)
    for source in (path, str(path)):
        loaded(source, public)


def test_files_that_cannot_be_read(tmp_path):
    names = ("args.pth", "half.pth", "empty.pth", "notes.txt", "wrong.safetensors")
    unsafe, damaged, empty, text, wrong = (tmp_path / name for name in names)
    torch.save({"model": model().state_dict(), "args": argparse.Namespace(lr=1)}, unsafe)
    damaged.write_bytes(unsafe.read_bytes()[:1000])
    empty.touch()
    text.write_text("no weights")
    for path in (unsafe, damaged):
        with pytest.raises(ValueError, match=rf"^torch.load\(weights_only=True\) cannot read {path}, .*if you trust it") as error:
            convert(path)
        assert "\n" not in str(error.value)
    for path, message in ((empty, "is empty"), (text, "is not a file that torch.save wrote")):
        with pytest.raises(ValueError, match=f"^{path} {message}$"):
            convert(path)
    pytest.importorskip("safetensors")
    wrong.write_bytes(b"no")
    with pytest.raises(ValueError, match=f"^{wrong} is not a safetensors file or is damaged"):
        convert(wrong)
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none.pth")


def test_arguments():
    state = copy.deepcopy(S2Attention(8).state_dict())
    with pytest.raises(ValueError, match="weights must be one of 'auto', 'model', 'ema', got 'raw'"):
        convert(state, weights="raw")
    with pytest.raises(ValueError, match="data_format must be one of 'auto', .*, got 'NCHW'"):
        convert(state, data_format="NCHW")
    with pytest.raises(TypeError, match="source must be a state dict, a checkpoint, a path or a module, got list"):
        convert([state])
    with pytest.raises(ValueError, match="^the source has no weights, only 'epoch', 'optimizer'$"):
        convert({"epoch": 3, "optimizer": {"state": {}}})
    with pytest.raises(ValueError, match="^the source has no weights, nothing$"):
        convert({})


@pytest.mark.parametrize("build", [lambda: S2(8), lambda: nn.Sequential(S2(8)), tiny_v1, tiny_v2])
def test_what_is_converted_already(build):
    for source in (build(), {"model": build().state_dict()}):
        with pytest.raises(ValueError, match="^these weights have the names of this package already: load them with load_st"):
            convert(source)


def test_checksum_of_a_safetensors_file_is_verified(tmp_path):
    safetensors = pytest.importorskip("s2mlp_cuda._safetensors")
    path = tmp_path / "file.safetensors"
    public = model()
    content = bytearray(safetensors.to_bytes(public.state_dict(), {}))
    path.write_bytes(content)
    loaded(path, public)
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is damaged: its checksum does not match its weights and their description$"):
        convert(path)
