"""The arguments of ``s2mlp train``, and recipes: YAML files of these arguments, which the command line overrides."""

import argparse
import ast
from pathlib import Path
from typing import Any, NoReturn

from s2mlp_cuda._messages import one_line
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.ranges import integer, real
from s2mlp_cuda.training.reports import report

RECIPES = Path(__file__).parent.parent / "recipes"
#: Arguments that may change when a run is resumed.
FREE_ON_RESUME = {"data", "output", "resume", "keep", "log_interval", "tensorboard"}


def _keyword(text: str) -> tuple[str, Any]:
    """Parses ``name=value``; the value is a Python literal or else a string."""
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error messages are one sentence, without the usage. Options cannot be abbreviated.

    Unknown arguments of a command are an error of its own parser, which argparse leaves to the parser of all commands.
    """

    def __init__(self, **options):
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(self, args=None, namespace=None):
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        report(f"s2mlp: {message}; see {self.prog} --help")
        self.exit(2)


_SWITCH = argparse.BooleanOptionalAction
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
#: The largest side of an image, in pixels, before the center crop in evaluation. A weights file cannot ask for more.
MAX_SIDE = 8192
_PROBABILITY = real(0, 1)


def _add_data_arguments(group) -> None:
    group.add_argument(
        "--data",
        metavar="FOLDER",
        help="image folder: one folder per split, in it one folder per class, in it images at any depth; required, except by some "
        "values of --dataset",
    )
    group.add_argument(
        "--dataset",
        default="",
        metavar="NAME",
        help="dataset in timm's notation: empty for an image folder, wds/ for WebDataset shards in --data, hfds/NAME for a "
        "Hugging Face dataset, hfids/NAME to stream it, torch/NAME for a torchvision dataset in --data; digits for scikit-learn's "
        "digits; default: an image folder",
    )
    group.add_argument("--train-split", default="train", metavar="NAME", help="default: %(default)s")
    group.add_argument(
        "--val-split",
        default="validation",
        metavar="NAME",
        help="a folder named val, valid or eval is also accepted; default: %(default)s",
    )
    group.add_argument("--input-key", metavar="NAME", help="column of the images (WebDataset, Hugging Face); default: automatic")
    group.add_argument("--target-key", metavar="NAME", help="column of the labels (WebDataset, Hugging Face); default: automatic")
    group.add_argument("--num-classes", type=integer(1), help="at least the number of classes of the data; default: from the data")
    group.add_argument("--workers", type=integer(0, 1024), default=4, help="data loading processes; default: %(default)s")
    group.add_argument(
        "--cache",
        action=_SWITCH,
        default=False,
        help="decode all images once and keep them in memory: for small images of one size, up to --img-size; not with --aa; "
        "default: no",
    )


def _add_model_arguments(group) -> None:
    group.add_argument(
        "--model", default="s2mlpv2_small_7", metavar="NAME", help="any model of timm or this package; default: %(default)s"
    )
    group.add_argument(
        "--model-kwargs",
        nargs="*",
        type=_keyword,
        default=[],
        metavar="NAME=VALUE",
        help='arguments of the model, e.g. "patch_sizes=(4,2)" mlp_ratio=2; VALUE is a Python literal or else a string: quote it '
        "for the shell if it has spaces or parentheses; default: none",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="initial weights (safetensors); a head for other classes is not loaded; default: random weights",
    )
    group.add_argument("--drop-path", type=real(0, 1, below=True), default=0.0, help="stochastic depth rate; default: %(default)s")


def _add_images_arguments(group) -> None:
    group.add_argument("--img-size", type=integer(1), default=224, help="side in pixels; default: %(default)s")
    group.add_argument("--mean", nargs=3, type=real(), default=[0.485, 0.456, 0.406], help="of pixels in [0, 1]; default: ImageNet")
    group.add_argument(
        "--std", nargs=3, type=real(0, above=True), default=[0.229, 0.224, 0.225], help="of pixels in [0, 1]; default: ImageNet"
    )
    group.add_argument("--interpolation", default="bicubic", choices=INTERPOLATIONS, help="for evaluation; default: %(default)s")
    group.add_argument("--train-interpolation", default="random", choices=("random", *INTERPOLATIONS), help="default: %(default)s")
    group.add_argument(
        "--crop-pct",
        type=real(0.1, 1),
        default=0.9,
        help="fraction of the center crop in evaluation; default: %(default)s",
    )
    group.add_argument(
        "--scale", nargs=2, type=real(0, 1, above=True), default=[0.08, 1.0], help="area of random crops; default: 0.08 1"
    )
    group.add_argument(
        "--ratio", nargs=2, type=real(0.01, 100), default=[0.75, 4 / 3], help="aspect of random crops; default: 3/4 to 4/3"
    )
    group.add_argument("--hflip", type=_PROBABILITY, default=0.5, help="probability of a horizontal flip; default: %(default)s")
    group.add_argument(
        "--color-jitter",
        type=real(0, 10),
        default=0.0,
        help="strength of random changes of brightness, contrast and saturation; default: %(default)s",
    )
    group.add_argument(
        "--aa", metavar="POLICY", help="RandAugment etc. in timm's notation, e.g. rand-m9-mstd0.5-inc1; default: none"
    )
    group.add_argument(
        "--aug-repeats",
        type=integer(0),
        default=0,
        help="repeated augmentation: repetitions of each image, 0 for none; default: %(default)s",
    )
    group.add_argument(
        "--reprob", type=_PROBABILITY, default=0.0, help="random erasing (CutOut): probability; default: %(default)s"
    )
    group.add_argument(
        "--remode", default="pixel", choices=("const", "rand", "pixel"), help="random erasing: fill mode; default: %(default)s"
    )
    group.add_argument("--recount", type=integer(1), default=1, help="random erasing: number of rectangles; default: %(default)s")
    group.add_argument("--mixup", type=real(0), default=0.0, help="alpha, 0 for none; default: %(default)s")
    group.add_argument("--cutmix", type=real(0), default=0.0, help="alpha, 0 for none; default: %(default)s")
    group.add_argument("--mixup-prob", type=_PROBABILITY, default=1.0, help="probability of Mixup or CutMix; default: %(default)s")
    group.add_argument(
        "--mixup-switch-prob",
        type=_PROBABILITY,
        default=0.5,
        help="probability of CutMix if both are enabled; default: %(default)s",
    )
    group.add_argument(
        "--mixup-off-epoch", type=integer(0), default=0, help="disable Mixup and CutMix from this epoch on; default: never"
    )
    group.add_argument("--smoothing", type=real(0, 1, below=True), default=0.0, help="label smoothing; default: %(default)s")


def _add_optimization_arguments(group) -> None:
    group.add_argument("--epochs", type=integer(1), default=300, help="default: %(default)s")
    group.add_argument(
        "--batch-size",
        type=integer(1),
        default=1024,
        help="global batch size, over all processes and accumulation steps; default: %(default)s",
    )
    group.add_argument("--grad-accum-steps", type=integer(1), default=1, help="gradient accumulation steps; default: %(default)s")
    group.add_argument("--opt", default="adamw", help="any optimizer of timm; default: %(default)s")
    group.add_argument("--lr", type=real(0), default=1e-3, help="default: %(default)s")
    group.add_argument("--weight-decay", type=real(0), default=0.05, help="except for biases and norms; default: %(default)s")
    group.add_argument(
        "--sched", default="cosine", choices=("cosine", "tanh", "wsd", "constant"), help="timm scheduler; default: %(default)s"
    )
    group.add_argument("--min-lr", type=real(0), default=1e-5, help="default: %(default)s")
    group.add_argument("--warmup-epochs", type=real(0), default=0, help="linear; default: %(default)s")
    group.add_argument("--warmup-lr", type=real(0), default=1e-6, help="default: %(default)s")
    group.add_argument("--clip-grad", type=real(0), default=0.0, help="maximum gradient norm, 0 for no limit; default: %(default)s")
    group.add_argument(
        "--model-ema-decay", type=real(0, 1, below=True), default=0.0, help="EMA of the weights: decay; default: 0, no EMA"
    )
    group.add_argument("--model-ema-warmup", action=_SWITCH, default=False, help="EMA: increase the decay from 0; default: no")


def _add_execution_arguments(group) -> None:
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; default: cuda if available")
    group.add_argument("--amp", action=_SWITCH, default=False, help="autocast to bfloat16; default: no")
    group.add_argument("--channels-last", action=_SWITCH, default=False, help="memory format of the images; default: no")
    group.add_argument("--torchcompile", action=_SWITCH, default=False, help="torch.compile the model; default: no")
    group.add_argument(
        "--grad-checkpointing", action=_SWITCH, default=False, help="recompute blocks in the backward pass; default: no"
    )
    group.add_argument("--parallel", default="ddp", choices=("ddp", "fsdp"), help="under torchrun; default: %(default)s")
    group.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, help="default: %(default)s")


def _add_run_arguments(group) -> None:
    group.add_argument(
        "--output", metavar="FOLDER", default="out/train", help="folder for weights, curves and checkpoints; default: %(default)s"
    )
    group.add_argument(
        "--resume", default="", metavar="auto|FILE", help="auto: resume the run in --output, if there is one; default: start a run"
    )
    group.add_argument("--keep", type=integer(1), default=3, help="number of checkpoints to keep; default: %(default)s")
    group.add_argument(
        "--log-interval", type=integer(1), default=50, help="updates between checks of the loss; default: %(default)s"
    )
    group.add_argument("--tensorboard", action=_SWITCH, default=True, help="write TensorBoard events; default: yes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--recipe`` and the arguments that a recipe may contain. Names are timm's if timm has the same argument."""
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help="YAML file of these arguments, or the name of a recipe of the package; default: none"
    )
    _add_data_arguments(parser.add_argument_group("data"))
    _add_model_arguments(parser.add_argument_group("model"))
    _add_images_arguments(parser.add_argument_group("images"))
    _add_optimization_arguments(parser.add_argument_group("optimization"))
    _add_execution_arguments(parser.add_argument_group("execution"))
    _add_run_arguments(parser.add_argument_group("run"))


def parser() -> argparse.ArgumentParser:
    """A parser with only these arguments."""
    result = Parser(prog="s2mlp train")
    add_arguments(result)
    return result


def recipe_names() -> list[str]:
    """The names of the package's recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """
    Raises:
        TrainingError: the name is neither a file nor a recipe of the package.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise TrainingError(f"no recipe {name!r}: neither a file nor one of {', '.join(recipe_names())}")


def _read_recipe(path: Path) -> dict[str, Any]:
    """
    Raises:
        TrainingError: the file cannot be read, or is not YAML in UTF-8 with a mapping.
    """
    import yaml

    data = b""
    try:
        data = path.read_bytes()
        recipe = yaml.safe_load(data.decode("utf-8-sig")) or {}
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise TrainingError(f"{path}, line {number}: byte 0x{data[error.start]:02x} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TrainingError(f"{path}{line}: not YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise TrainingError(f"{path}: not YAML ({one_line(error)})") from error
    if not isinstance(recipe, dict):
        raise TrainingError(f"{path}: a recipe must be a mapping from arguments to values")
    if not isinstance(recipe.get("model_kwargs") or {}, dict):
        raise TrainingError(f"{path}: model_kwargs must be a mapping from names to values, got {recipe['model_kwargs']!r}")
    return recipe


def _as_argv(recipe: dict[str, Any], actions: dict[str, argparse.Action], path: Path) -> list[str]:
    """A recipe as command-line arguments, so that argparse validates it."""
    argv = []
    for key, value in recipe.items():
        if key not in actions:
            raise TrainingError(f"{path}: unknown argument {key!r}; see s2mlp train --help")
        flag = actions[key].option_strings[0]
        if isinstance(actions[key], argparse.BooleanOptionalAction):
            if not isinstance(value, bool):
                raise TrainingError(f"{path}: {key} must be true or false, got {value!r}")
            argv.append(actions[key].option_strings[0 if value else 1])
        elif isinstance(value, dict):
            argv += [flag, *(f"{name}={item!r}" for name, item in value.items())]
        elif isinstance(value, list):
            argv += [flag, *map(str, value)]
        elif value is not None:
            argv.append(f"{flag}={value}")
    return argv


def parse(argv: list[str]) -> argparse.Namespace:
    """The merged configuration: defaults, overridden by ``--recipe``, overridden by ``argv``. ``model_kwargs`` is a dict.

    Raises:
        TrainingError: the recipe does not exist, is not YAML in UTF-8, or contains unknown arguments.
        SystemExit: raised by argparse for invalid arguments.
    """
    argument_parser = parser()
    given = argument_parser.parse_args(argv)
    arguments = given
    if given.recipe:
        path = recipe_path(given.recipe)
        recipe = _read_recipe(path)
        actions = {action.dest: action for action in argument_parser._actions if action.dest not in ("help", "recipe")}
        arguments = argument_parser.parse_args(_as_argv(recipe, actions, path) + argv)
        recipe_kwargs = recipe.get("model_kwargs") or {}
        arguments.model_kwargs = list({**recipe_kwargs, **dict(given.model_kwargs)}.items())
    arguments.model_kwargs = dict(arguments.model_kwargs)
    del arguments.recipe
    return arguments


def as_yaml(arguments: argparse.Namespace) -> str:
    """The arguments as a recipe that ``--recipe`` can read."""
    import yaml

    return yaml.safe_dump(tuples_to_lists(vars(arguments)), sort_keys=False, default_flow_style=None, width=120)


def tuples_to_lists(value: Any) -> Any:
    """The value with tuples replaced by lists, since YAML and JSON have no tuples."""
    if isinstance(value, dict):
        return {key: tuples_to_lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tuples_to_lists(item) for item in value]
    return value


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The changed arguments that prevent a run from being resumed, as ``name: <before>, now <now>``.

    Arguments that an earlier version did not have are compared with their defaults.
    """
    before, now = tuples_to_lists({**vars(parse([])), **before}), tuples_to_lists(now)
    return [
        f"{name}: {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in FREE_ON_RESUME and before.get(name) != now.get(name)
    ]
