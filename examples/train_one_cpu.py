"""Train a small S2-MLPv2 on scikit-learn's digits with ``s2mlp train``, on one CPU, then resume, evaluate and predict.

python examples/train_one_cpu.py      (needs the extra train)
"""

from pathlib import Path

from commands import run


def main() -> None:
    # --8<-- [start:train]
    # The command line overrides the recipe: a smaller model, a larger learning rate and fewer epochs, to train for seconds.
    options = "--model-kwargs embed_dims=[24] depths=[2] --lr 0.01 --epochs 5"
    run(f"s2mlp train --recipe digits {options} --output out/digits")
    # The same command with --resume auto resumes from the last finished epoch. This run has finished, so nothing is left to do.
    run(f"s2mlp train --recipe digits {options} --output out/digits --resume auto")
    # --8<-- [end:train]

    print("\nThe output folder has", ", ".join(sorted(path.name for path in Path("out/digits").iterdir())))

    # --8<-- [start:use]
    # The recipe wrote the images to out/digits/digits: a folder per split, in it a folder per class.
    run("s2mlp eval --weights out/digits/best.safetensors --data out/digits/digits --workers 0")
    seven = min(Path("out/digits/digits/validation/7").iterdir())
    run(f"s2mlp predict {seven} --weights out/digits/best.safetensors")
    # --8<-- [end:use]
    print("After five short epochs the model is often wrong. The recipe without these options trains for under a minute.")


if __name__ == "__main__":
    main()
