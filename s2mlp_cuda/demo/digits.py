"""A small S2-MLPv2 on scikit-learn's handwritten digits: 1,797 real 8x8 images that are part of scikit-learn."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from s2mlp_cuda.models import S2MLPv2
from s2mlp_cuda.offsets import SS1, SS2

#: The branches of the paper, and of the same model without shifts.
WITH_SHIFT = (SS1, SS2, None)
WITHOUT_SHIFT = (None, None, None)
BATCH_SIZE = 32
LEARNING_RATE = 3e-3
PIXEL_NOISE = 0.1  # standard deviation of the noise added to training images, whose pixels are in [0, 1]


@dataclass
class Digits:
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,), with a quarter held out for testing."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


@dataclass
class Training:
    """The result of a training run: the model, and per epoch the mean training loss and the test accuracy in [0, 1]."""

    model: nn.Module
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def load(device: torch.device) -> Digits:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bundle = load_digits()
    parts = train_test_split(bundle.images, bundle.target, test_size=0.25, stratify=bundle.target, random_state=0)
    train_images, test_images = (torch.tensor(p, dtype=torch.float32, device=device)[:, None] / 16 for p in parts[:2])
    train_labels, test_labels = (torch.tensor(p, device=device) for p in parts[2:])
    return Digits(train_images, train_labels, test_images, test_labels)


def build_model(branches: tuple) -> S2MLPv2:
    """Two stages: 8x8 tokens of one pixel, then 4x4 tokens. Without shifts, tokens mix only in 2x2 patches and in the means of
    the split attention."""
    return S2MLPv2(num_classes=10, in_chans=1, patch_sizes=(1, 2), embed_dims=(48, 96), depths=(2, 2), branches=branches)


def predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Class probabilities, (N, 10)."""
    model.eval()
    with torch.no_grad():
        return model(images).softmax(1)


def train(branches: tuple, digits: Digits, epochs: int, on_epoch: Callable[[Training], None]) -> Training:
    """AdamW, linear warm-up and cosine, label smoothing 0.1 (the papers' recipe, scaled down)."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    torch.manual_seed(0)
    training = Training(build_model(branches).to(digits.train_images.device))
    optimizer = create_optimizer_v2(training.model, "adamw", lr=LEARNING_RATE, weight_decay=0.05)
    schedule = CosineLRScheduler(
        optimizer, t_initial=epochs, lr_min=1e-5, warmup_t=max(1, epochs // 8), warmup_lr_init=1e-4, warmup_prefix=False
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in range(epochs):
        schedule.step(epoch)
        training.model.train()
        losses = []
        for batch in torch.randperm(len(digits.train_images)).split(BATCH_SIZE):
            images = digits.train_images[batch]
            images = images + PIXEL_NOISE * torch.randn_like(images)
            loss = criterion(training.model(images), digits.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        correct = predict(training.model, digits.test_images).argmax(1) == digits.test_labels
        training.losses.append(sum(losses) / len(losses))
        training.accuracies.append(correct.float().mean().item())
        on_epoch(training)
    return training
