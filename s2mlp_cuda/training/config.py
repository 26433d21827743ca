"""The arguments of ``s2mlp train``, and recipes: YAML files of the same names, which the command line overrides."""

import argparse
import ast
from pathlib import Path
from typing import Any

from s2mlp_cuda.training.errors import TrainingError

RECIPES = Path(__file__).parent.parent / "recipes"
#: What may differ between a run and its continuation.
FREE_ON_RESUME = {"data", "output", "resume", "keep", "log_interval", "tensorboard"}


def _keyword(text: str) -> tuple[str, Any]:
    """``name=value`` with a Python literal, or else a string, as value."""
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


_SWITCH = argparse.BooleanOptionalAction


def _add_data_arguments(group) -> None:
    group.add_argument("--data", metavar="FOLDER", help="image folder with one folder of images per class in each split")
    group.add_argument(
        "--dataset",
        default="",
        metavar="NAME",
        help="where images come from, in timm's notation: empty for a folder, wds/ for WebDataset shards in --data, "
        "hfds/NAME and hfids/NAME for a Hugging Face dataset at rest and as a stream; digits for scikit-learn's digits",
    )
    group.add_argument("--train-split", default="train", help="default: %(default)s")
    group.add_argument("--val-split", default="validation", help="a folder val, valid or eval is found, too; default: %(default)s")
    group.add_argument("--input-key", help="column of the images (WebDataset, Hugging Face)")
    group.add_argument("--target-key", help="column of the labels (WebDataset, Hugging Face)")
    group.add_argument("--num-classes", type=int, help="default: what the data says")
    group.add_argument("--workers", type=int, default=4, help="processes that load images; default: %(default)s")


def _add_model_arguments(group) -> None:
    group.add_argument("--model", default="s2mlpv2_small_7", help="any that timm or this package knows; default: %(default)s")
    group.add_argument(
        "--model-kwargs",
        nargs="*",
        type=_keyword,
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the model, as in patch_sizes=(4,2)",
    )
    group.add_argument("--weights", metavar="FILE", help="safetensors file to begin with; a head of other size is left out")
    group.add_argument("--drop-path", type=float, default=0.0, help="stochastic depth rate; default: %(default)s")


def _add_images_arguments(group) -> None:
    group.add_argument("--img-size", type=int, default=224, help="side in pixels; default: %(default)s")
    group.add_argument("--mean", nargs=3, type=float, default=[0.485, 0.456, 0.406], help="of pixels in [0, 1]; default: ImageNet")
    group.add_argument("--std", nargs=3, type=float, default=[0.229, 0.224, 0.225], help="of pixels in [0, 1]; default: ImageNet")
    group.add_argument("--interpolation", default="bicubic", help="for evaluation; default: %(default)s")
    group.add_argument("--train-interpolation", default="random", help="default: %(default)s")
    group.add_argument("--crop-pct", type=float, default=0.9, help="part of the image that evaluation sees; default: %(default)s")
    group.add_argument("--scale", nargs=2, type=float, default=[0.08, 1.0], help="area of random crops; default: %(default)s")
    group.add_argument("--ratio", nargs=2, type=float, default=[0.75, 4 / 3], help="aspect of random crops; default: 3/4 to 4/3")
    group.add_argument("--hflip", type=float, default=0.5, help="probability of a horizontal flip; default: %(default)s")
    group.add_argument("--color-jitter", type=float, default=0.0, help="default: %(default)s")
    group.add_argument("--aa", metavar="POLICY", help="RandAugment and others in timm's notation: rand-m9-mstd0.5-inc1")
    group.add_argument("--aug-repeats", type=int, default=0, help="repeated augmentation: times that an image is drawn")
    group.add_argument("--reprob", type=float, default=0.0, help="random erasing (CutOut): probability; default: %(default)s")
    group.add_argument("--remode", default="pixel", choices=("const", "rand", "pixel"), help="its filling; default: %(default)s")
    group.add_argument("--recount", type=int, default=1, help="its number of rectangles; default: %(default)s")
    group.add_argument("--mixup", type=float, default=0.0, help="alpha, 0 for none; default: %(default)s")
    group.add_argument("--cutmix", type=float, default=0.0, help="alpha, 0 for none; default: %(default)s")
    group.add_argument("--mixup-prob", type=float, default=1.0, help="of either; default: %(default)s")
    group.add_argument("--mixup-switch-prob", type=float, default=0.5, help="of CutMix where both are on; default: %(default)s")
    group.add_argument("--mixup-off-epoch", type=int, default=0, help="first epoch without either; default: never")
    group.add_argument("--smoothing", type=float, default=0.0, help="label smoothing; default: %(default)s")


def _add_optimization_arguments(group) -> None:
    group.add_argument("--epochs", type=int, default=300, help="default: %(default)s")
    group.add_argument(
        "--batch-size",
        type=int,
        default=1024,
        help="images per update, all processes and accumulation steps together; default: %(default)s",
    )
    group.add_argument("--grad-accum-steps", type=int, default=1, help="parts that a batch is computed in; default: %(default)s")
    group.add_argument("--opt", default="adamw", help="any optimizer of timm; default: %(default)s")
    group.add_argument("--lr", type=float, default=1e-3, help="default: %(default)s")
    group.add_argument("--weight-decay", type=float, default=0.05, help="not for biases and norms; default: %(default)s")
    group.add_argument(
        "--sched", default="cosine", choices=("cosine", "tanh", "wsd", "constant"), help="timm's; default: %(default)s"
    )
    group.add_argument("--min-lr", type=float, default=1e-5, help="default: %(default)s")
    group.add_argument("--warmup-epochs", type=float, default=0, help="linear; default: %(default)s")
    group.add_argument("--warmup-lr", type=float, default=1e-6, help="default: %(default)s")
    group.add_argument("--clip-grad", type=float, default=0.0, help="norm of the gradient at most, 0 for any; default: %(default)s")
    group.add_argument("--model-ema-decay", type=float, default=0.0, help="moving average of weights; default: 0, none")
    group.add_argument("--model-ema-warmup", action=_SWITCH, default=False, help="let the decay rise from 0")


def _add_execution_arguments(group) -> None:
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; default: cuda if there")
    group.add_argument("--amp", action=_SWITCH, default=False, help="autocast to bfloat16")
    group.add_argument("--channels-last", action=_SWITCH, default=False, help="memory format of the images")
    group.add_argument("--torchcompile", action=_SWITCH, default=False, help="torch.compile the model")
    group.add_argument("--grad-checkpointing", action=_SWITCH, default=False, help="compute blocks again in the backward pass")
    group.add_argument("--parallel", default="ddp", choices=("ddp", "fsdp"), help="under torchrun; default: %(default)s")
    group.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def _add_run_arguments(group) -> None:
    group.add_argument("--output", metavar="FOLDER", default="out/train", help="default: %(default)s")
    group.add_argument("--resume", default="", metavar="auto|FILE", help="auto: resume the run in --output")
    group.add_argument("--keep", type=int, default=3, help="checkpoints kept; default: %(default)s")
    group.add_argument("--log-interval", type=int, default=50, help="updates between two looks at the loss; default: %(default)s")
    group.add_argument("--tensorboard", action=_SWITCH, default=True, help="write events for TensorBoard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that a recipe may hold, and ``--recipe``. Names are timm's where timm has the same thing."""
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help="YAML file of these arguments, or the name of a recipe that comes with the package"
    )
    _add_data_arguments(parser.add_argument_group("data"))
    _add_model_arguments(parser.add_argument_group("model"))
    _add_images_arguments(parser.add_argument_group("images"))
    _add_optimization_arguments(parser.add_argument_group("optimization"))
    _add_execution_arguments(parser.add_argument_group("execution"))
    _add_run_arguments(parser.add_argument_group("run"))


def parser() -> argparse.ArgumentParser:
    """A parser of nothing but these arguments."""
    result = argparse.ArgumentParser(prog="s2mlp train", allow_abbrev=False)
    add_arguments(result)
    return result


def recipe_path(name: str) -> Path:
    """
    Raises:
        TrainingError: neither a file nor a recipe of the package.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise TrainingError(f"no recipe {name!r}: neither a file nor one of {known}")


def _as_words(recipe: dict[str, Any], actions: dict[str, argparse.Action], path: Path) -> list[str]:
    """A recipe as the words of a command line, so that argparse checks it like one."""
    words = []
    for key, value in recipe.items():
        if key not in actions:
            raise TrainingError(f"{path}: unknown argument {key!r}; see s2mlp train --help")
        flag = actions[key].option_strings[0]
        if isinstance(actions[key], argparse.BooleanOptionalAction):
            if not isinstance(value, bool):
                raise TrainingError(f"{path}: {key} must be true or false, got {value!r}")
            words.append(actions[key].option_strings[0 if value else 1])
        elif isinstance(value, dict):
            words += [flag, *(f"{name}={item!r}" for name, item in value.items())]
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        elif value is not None:
            words.append(f"{flag}={value}")
    return words


def parse(words: list[str]) -> argparse.Namespace:
    """The effective arguments: defaults, then those of ``--recipe``, then those given. ``model_kwargs`` is a dict.

    Raises:
        TrainingError: a recipe that is not there, or holds what is no argument.
        SystemExit: as argparse ends a program.
    """
    import yaml

    own = parser()
    given = own.parse_args(words)
    arguments = given
    if given.recipe:
        path = recipe_path(given.recipe)
        recipe = yaml.safe_load(path.read_text()) or {}
        if not isinstance(recipe, dict):
            raise TrainingError(f"{path}: a recipe is a mapping from argument to value")
        actions = {action.dest: action for action in own._actions if action.dest not in ("help", "recipe")}
        arguments = own.parse_args(_as_words(recipe, actions, path) + words)
        in_recipe = recipe.get("model_kwargs") or {}
        arguments.model_kwargs = list({**in_recipe, **dict(given.model_kwargs)}.items())
    arguments.model_kwargs = dict(arguments.model_kwargs)
    del arguments.recipe
    return arguments


def as_yaml(arguments: argparse.Namespace) -> str:
    """What ``--recipe`` reads again."""
    import yaml

    return yaml.safe_dump(plain(vars(arguments)), sort_keys=False, default_flow_style=None, width=120)


def plain(value: Any) -> Any:
    """The same with lists in place of tuples, which YAML and JSON do not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What keeps a run from being continued with other arguments, as ``name: before, now now``."""
    before, now = plain(before), plain(now)
    return [
        f"{name}: {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in FREE_ON_RESUME and before.get(name) != now.get(name)
    ]
