"""Fine-tune a trained model on other classes: from a weights file, all weights or the head alone.

The model is first trained to tell the digits 0 to 9 apart, then to tell even from odd ones.

python examples/fine_tune.py      (needs the extra train)
"""

import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from s2mlp_cuda.training.weights import load

from commands import run

DIGITS, PARITY = Path("out/digits/digits"), Path("out/parity")


def write_parity(images_per_digit: int = 20) -> None:
    """A second image folder with two classes: some images of each digit, as even/ and odd/."""
    for folder in DIGITS.glob("*/*"):
        target = PARITY / folder.parent.name / ("odd" if int(folder.name) % 2 else "even")
        target.mkdir(parents=True, exist_ok=True)
        for image in sorted(folder.iterdir())[:images_per_digit]:
            shutil.copy(image, target / image.name)


# --8<-- [start:head]
def train_head(weights: Path, class_names: list[str], epochs: int = 30) -> float:
    """Trains a new linear layer on features of the model, which stay as they are. Returns its validation accuracy."""
    model, description = load(weights)  # the model in evaluation mode, and what the file says of it
    model.reset_classifier(len(class_names))
    model.requires_grad_(False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (description.mean, description.std))

    def features(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = [], []
        for label, name in enumerate(class_names):
            for path in sorted((PARITY / split / name).iterdir()):
                image = torch.frombuffer(bytearray(Image.open(path).convert("RGB").tobytes()), dtype=torch.uint8)
                pixels.append(image.view(description.img_size, description.img_size, 3).movedim(-1, 0) / 255)
                labels.append(label)
        images = (torch.stack(pixels) - mean) / std
        return model.forward_head(model.forward_features(images), pre_logits=True), torch.tensor(labels)

    (x, labels), (validation_x, validation_labels) = features("train"), features("validation")
    head = model.head.requires_grad_()
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(head(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (head(validation_x).argmax(1) == validation_labels).float().mean().item()


# --8<-- [end:head]


def main() -> None:
    run("s2mlp train --recipe digits --model-kwargs embed_dims=[24] depths=[2] --lr 0.01 --epochs 4 --output out/digits")
    write_parity()

    # --8<-- [start:all]
    # config.yaml is the recipe of the first run: the same model, image size and normalization. An empty --dataset is a folder.
    data = "--recipe out/digits/config.yaml --dataset '' --data out/parity --output out/fine_tuned"
    run(f"s2mlp train {data} --weights out/digits/best.safetensors --epochs 2 --lr 0.003 --warmup-epochs 0")
    # --8<-- [end:all]

    accuracy = train_head(Path("out/digits/best.safetensors"), ["even", "odd"])
    print(f"\nA new head on unchanged features tells even from odd in {accuracy:.0%} of the validation images")


if __name__ == "__main__":
    main()
