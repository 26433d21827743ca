"""A program with its own models: the example of ``register_models``."""

import inspect
import re
import subprocess
import sys

import numpy
import pytest
import torch

from s2mlp_cuda.models import S2MLP, S2MLPv2, list_models, register_models

OPTIONS = ["--recipe", "digits", "--no-tensorboard", "--epochs", "1", "--device", "cpu", "--model", "s2mlpv2_max"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the example as a program."""
    folder = tmp_path_factory.mktemp("mine")
    example = inspect.getdoc(register_models).partition("::\n")[2]
    (folder / "mine.py").write_text(inspect.cleandoc(example))
    return folder


def run(folder, *words, program="mine.py"):
    return subprocess.run([sys.executable, program, *map(str, words)], cwd=folder, capture_output=True, text=True)


def output(folder, *words) -> str:
    result = run(folder, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_every_command_uses_a_model_of_the_example(folder):
    model = ["--model-kwargs", "embed_dims=[8]", "depths=[1]"]
    said = output(folder, "train", *OPTIONS, "--output", "run", *model)
    assert re.search(r"^s2mlpv2_max with .*: \d\.\dK parameters, 10 classes", said, re.MULTILINE), said
    weights = ["--weights", "run/best.safetensors"]
    image = sorted((folder / "run" / "digits" / "validation" / "4").iterdir())[0]
    assert "360 images" in output(folder, "eval", *weights, "--data", "run/digits", "--workers", "0")
    assert image.name in output(folder, "predict", image, *weights)
    drawn = output(folder, "explain", image, *weights, "--out", "figures")
    assert "no shifted_groups.png: block 1 has a fusion of its own" in drawn
    assert [path.name for path in (folder / "figures").iterdir()] == ["receptive_field.png"]
    assert "differs from the model's by at most" in output(folder, "export", *weights, "--format", "pt2")


def test_the_example_takes_the_arguments_of_its_base_class(folder):
    """Tables and padding mode are those of the fused layer; another fusion is refused."""
    code = (
        "import torch, mine; from s2mlp_cuda import create_model, spatial_shift\n"
        "table = ((1, 0), (0, 3))\n"
        "sizes = dict(num_classes=2, depths=(1,), embed_dims=(8,), patch_sizes=(2,))\n"
        "model = create_model('s2mlpv2_max', branches=(table, None), padding_mode='zeros', **sizes)\n"
        "x = torch.randn(1, 4, 5, 16); shifted = spatial_shift(x[..., :8], table, padding_mode='zeros')\n"
        "assert torch.equal(model.stages[0][1].s2.attention(x), torch.maximum(shifted, x[..., 8:]))\n"
        "create_model('s2mlpv2_max', fusion='sum', **sizes)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].endswith("got multiple values for keyword argument 'fusion'")


def test_help_of_a_program_names_it(folder):
    assert re.match(r"usage: \S*python\S* mine.py \[", output(folder, "--help"))
    assert re.match(r"usage: \S*python\S* mine.py train \[", output(folder, "train", "--help"))


@pytest.mark.parametrize(
    "configurations, sentence",
    [
        ({"typo": {"branch": ()}}, "the registered model typo cannot be built: .* got an unexpected keyword argument 'branch'"),
        ({"resnet18": {}}, "the registered model resnet18 has the name of a model of timm: choose another name"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_sentence(tmp_path, configurations, sentence):
    program = (
        "import sys; from s2mlp_cuda import cli; from s2mlp_cuda.models import S2MLPv2, register_models\n"
        f"register_models(S2MLPv2, {configurations})\nsys.exit(cli.main())\n"
    )
    (tmp_path / "mine.py").write_text(program)
    for words in (["train", "--recipe", "digits"], ["predict", "x.png", "--weights", "x"]):
        result = run(tmp_path, *words)
        assert result.returncode == 1
        assert re.fullmatch(f"s2mlp: {sentence}\n", result.stderr), result.stderr


@pytest.fixture
def no_timm(monkeypatch):
    """As if ``s2mlp_cuda.timm`` was not imported; models that a test registers are forgotten."""
    monkeypatch.setattr("s2mlp_cuda.models._registry._CONFIGURATIONS", {"mine": (S2MLPv2, {"depths": (1, 1)})})
    monkeypatch.delitem(sys.modules, "s2mlp_cuda.timm", raising=False)


@pytest.mark.parametrize(
    "architecture, configurations, error, message",
    [
        (
            S2MLPv2(depths=(0, 0)),
            {},
            TypeError,
            "architecture must be a class of models, such as a subclass of S2MLPv2, got S2MLPv2",
        ),
        (torch.nn.Linear, {}, TypeError, "architecture must be a class of models, .* got <class 'torch.nn.*Linear'>"),
        (S2MLPv2, ["x"], TypeError, r"configurations must be a dict of arguments by model name, got \['x'\]"),
        (S2MLPv2, "x", TypeError, "configurations must be a dict of arguments by model name, got 'x'"),
        (S2MLPv2, {"x": None}, TypeError, "the configuration of x must be a dict of arguments, got None"),
        (S2MLPv2, {"a": {}, "a b": {}}, ValueError, "the name of a model must be ASCII letters, digits and underscores, got 'a b'"),
        (S2MLPv2, {"a.b": {}}, ValueError, "the name of a model must be"),
        (S2MLPv2, {"é": {}}, ValueError, "the name of a model must be"),
        (S2MLPv2, {"": {}}, ValueError, "the name of a model must be"),
        (S2MLPv2, {1: {}}, ValueError, "the name of a model must be"),
        (S2MLPv2, {"mine": {}}, ValueError, "mine is registered already, as S2MLPv2 with {.*}: choose another name"),
        (S2MLP, {"mine": {"depths": (1, 1)}}, ValueError, "mine is registered already, as S2MLPv2 with"),
    ],
)
def test_wrong_models_are_refused(no_timm, architecture, configurations, error, message):
    with pytest.raises(error, match=f"^{message}"):
        register_models(architecture, configurations)
    assert list_models() == ["mine"]


def test_tables_of_numpy_are_not_compared(no_timm):
    branches = (numpy.array([[1, 0]]), None)
    register_models(S2MLPv2, {"array": {"branches": branches}})
    with pytest.raises(ValueError, match="^array is registered already, as S2MLPv2 with {.*}: choose another name$"):
        register_models(S2MLPv2, {"array": {"branches": (numpy.array([[1, 0]]), None)}})


def test_models_are_registered_before_timm_only(no_timm, monkeypatch):
    register_models(S2MLP, {"early": {}})
    monkeypatch.setitem(sys.modules, "s2mlp_cuda.timm", sys)
    register_models(S2MLPv2, {"mine": {"depths": (1, 1)}})  # the same again
    with pytest.raises(
        RuntimeError, match="cannot register late, because s2mlp_cuda.timm was imported before: register models first"
    ):
        register_models(S2MLPv2, {"late": {}})
    assert list_models() == ["early", "mine"]
