import pytest
import torch
import yaml

from s2mlp_cuda.training import config
from s2mlp_cuda.training.ablation.rows import SCALES
from s2mlp_cuda.training.description import build
from s2mlp_cuda.training.errors import TrainingError

NAMES = sorted(path.stem for path in config.RECIPES.glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_arguments_override_the_recipe_which_overrides_defaults(recipe):
    file = recipe("lr: 0.25\nepochs: 7\namp: true\nscale: [0.5, 0.75]\nmodel_kwargs: {depth: 3, embed_dim: 8}\n")
    found = config.parse(["--recipe", file, "--epochs", "9", "--no-amp", "--model-kwargs", "depth=5"])
    assert (found.lr, found.epochs, found.amp, found.scale) == (0.25, 9, False, [0.5, 0.75])
    assert found.model_kwargs == {"depth": 5, "embed_dim": 8}
    assert found.opt == config.parse([]).opt == "adamw"


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rate: 1\n", "unknown argument 'learning_rate'"),
        ("amp: 3\n", "amp must be true or false, got 3"),
        ("- lr\n", "a recipe must be a mapping"),
        ("recipe: cifar10\n", "unknown argument 'recipe'"),
    ],
)
def test_invalid_recipe_is_rejected(recipe, text, message):
    with pytest.raises(TrainingError, match=message):
        config.parse(["--recipe", recipe(text)])


@pytest.mark.parametrize("text", ["lr: fast\n", "remode: rainbow\n", "mean: [1, 2]\n"])
def test_invalid_value_is_rejected(recipe, text, capsys):
    with pytest.raises(SystemExit):
        config.parse(["--recipe", recipe(text)])
    assert f"--{text.partition(':')[0]}" in capsys.readouterr().err


def test_error_for_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(TrainingError, match="no recipe 'imagenet': .*cifar10.*s2mlpv2_imagenet"):
        config.parse(["--recipe", "imagenet"])


@pytest.mark.parametrize("name", NAMES)
def test_models_of_recipes_can_be_built(name):
    found = config.parse(["--recipe", name])
    with torch.device("meta"):
        build(found.model, 10, drop_path_rate=found.drop_path, **found.model_kwargs)


def test_required_recipes_exist():
    assert {"s2mlp_imagenet", "s2mlpv2_imagenet", "cifar10", "cifar10_cpu", "digits"} <= set(NAMES)
    assert {scale.recipe for scale in SCALES.values()} <= set(NAMES)


def test_imagenet_recipes_have_the_papers_values():
    v1, v2 = (config.parse(["--recipe", name]) for name in ("s2mlp_imagenet", "s2mlpv2_imagenet"))
    for found in (v1, v2):
        assert (found.opt, found.weight_decay, found.batch_size, found.epochs, found.min_lr) == ("adamw", 0.05, 1024, 300, 1e-5)
        assert found.smoothing == 0.1
    assert (v1.lr, v2.lr) == (1e-3, 2e-3)
    assert v1.aug_repeats == 3
    assert (v2.warmup_epochs, v2.drop_path) == (10, 0.1)
    assert v2.model_ema_decay and v2.mixup and v2.cutmix and v2.reprob and v2.aa.startswith("rand")


@pytest.mark.parametrize("name", ["s2mlp_imagenet", "s2mlpv2_imagenet"])
def test_all_values_of_an_imagenet_recipe_have_a_source(name):
    lines = (config.RECIPES / f"{name}.yaml").read_text().splitlines()
    values = [line for line in lines if line and not line.startswith(("#", "model:", "output:"))]
    assert values
    assert [line for line in values if not any(source in line for source in ("# paper", "# DeiT", "# inferred"))] == []


def test_merged_configuration_is_a_recipe(tmp_path):
    argv = ["--recipe", "cifar10", "--lr", "0.125", "--model-kwargs", "branches=(((1,0),),None)"]
    found = config.parse(argv)
    path = tmp_path / "config.yaml"
    path.write_text(config.as_yaml(found))
    again = config.parse(["--recipe", str(path)])
    assert config.tuples_to_lists(vars(again)) == config.tuples_to_lists(vars(found))
    assert yaml.safe_load(path.read_text())["model_kwargs"]["branches"] == [[[1, 0]], None]


def test_differences_that_prevent_resuming():
    before, now = vars(config.parse([])), vars(config.parse(["--lr", "0.5", "--keep", "7", "--resume", "auto"]))
    assert config.differences(before, now) == ["lr: 0.001, now 0.5"]
    del before["cache"]  # as in a checkpoint of an earlier version
    assert config.differences(before, now) == ["lr: 0.001, now 0.5"]
    assert config.differences(before, now | {"cache": True}) == ["cache: False, now True", "lr: 0.001, now 0.5"]
