"""Training throughput and peak memory of `s2mlp train` on an image folder, for four implementations of the shifts.

    python benchmarks/training_forms.py FOLDER [--recipe cifar10_cpu]

Each variant trains the same model on the same images in a separate process, in two interleaved rounds. The first epoch of each
run, in which models are compiled, is not counted. FOLDER contains train/ and test/.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from s2mlp_cuda.bench.models import FUSED, SLICES, VARIANTS
from s2mlp_cuda.training.config import parse
from s2mlp_cuda.training.run import train

from results import write_result

NAMES = (SLICES, FUSED, f"torch.compile({SLICES})", f"torch.compile({FUSED})")
ROUNDS, EPOCHS = 2, 4
IMAGES_PER_CLASS = {"train": 640, "test": 10}


def subset(data: Path, folder: Path) -> None:
    """Links to the first images of each class."""
    for split, count in IMAGES_PER_CLASS.items():
        for source in (data / split).iterdir():
            target = folder / split / source.name
            target.mkdir(parents=True)
            for path in sorted(source.iterdir())[:count]:
                (target / path.name).symlink_to(path.resolve())


def train_one(name: str, data: Path, recipe: str) -> list[dict[str, float]]:
    variant = VARIANTS[name]
    compiled = "--torchcompile" if variant.compiled else "--no-torchcompile"
    with tempfile.TemporaryDirectory() as output:
        argv = ["--recipe", recipe, "--data", str(data), "--epochs", str(EPOCHS), "--output", output, "--no-tensorboard", compiled]
        argv += ["--model-kwargs", f"implementation={variant.implementation}"]
        return train(parse(argv)).history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="cifar10_cpu")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print("\n" + json.dumps(train_one(arguments.one, arguments.data, arguments.recipe)))
        return
    epochs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        subset(arguments.data, Path(folder))
        for round_index in range(ROUNDS):
            for name in NAMES:
                command = [sys.executable, __file__, folder, "--recipe", arguments.recipe, "--one", name]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                epochs[name] += json.loads(output.splitlines()[-1])[1:]
                print(f"round {round_index + 1}: {name}: {epochs[name][-1]['images_per_second']:.0f} images/s", flush=True)
    results = {
        name: {
            "images_per_second": statistics.median(row["images_per_second"] for row in rows),
            "all_images_per_second": [row["images_per_second"] for row in rows],
            "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
            "train_loss": rows[-1]["train_loss"],
        }
        for name, rows in epochs.items()
    }
    baseline = results[SLICES]["images_per_second"]
    print(f"\n{'':32}{'images/s':>10}{'x slices':>11}{'peak memory':>14}{'loss':>9}")
    for name, result in results.items():
        speed, memory = result["images_per_second"], result["peak_memory_mb"]
        print(f"{name:32}{speed:10.0f}{speed / baseline:11.2f}{memory:11.0f} MB{result['train_loss']:9.4f}")
    what = "training on an image folder; two interleaved runs, median over epochs without the first of each run"
    write_result("training-forms", {"what": what, "recipe": arguments.recipe, "forms": results})


if __name__ == "__main__":
    main()
