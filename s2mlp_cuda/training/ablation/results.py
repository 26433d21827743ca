"""The result file of ``s2mlp ablate``: one entry per finished training, from which everything else is derived."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_cuda._files import write_text
from s2mlp_cuda.training.ablation.rows import SCALES, Row, all_rows
from s2mlp_cuda.training.errors import TrainingError


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        key: identifies the model and its epochs: :attr:`Row.key`.
        seed: of the training.
        epochs: that were trained.
        accuracy: top-1 accuracy (percent) after the last epoch.
        seconds: of training and evaluation.
        parameters: of the model.
        multiply_adds: of the model, for one image.
        environment: machine, versions and commit.
    """

    key: str
    seed: int
    epochs: int
    accuracy: float
    seconds: float
    parameters: int
    multiply_adds: int
    environment: dict[str, str]


@dataclass
class Result:
    """The result of a row. ``accuracies`` is the top-1 accuracy (percent) after the last epoch, by seed."""

    row: Row
    parameters: int
    multiply_adds: int
    epochs: int
    accuracies: dict[int, float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for a single seed."""
        return statistics.stdev(self.accuracies.values()) if len(self.accuracies) > 1 else None


@dataclass
class Ablation:
    """All trainings of one size of models (a key of :data:`SCALES`) with one recipe.

    Attributes:
        scale: key of :data:`SCALES`.
        recipe: the training budget.
        test_images: on which the accuracies are measured.
        trainings: the finished trainings.
    """

    scale: str
    recipe: str
    test_images: int = 0
    trainings: list[Training] = field(default_factory=list)

    def has(self, row: Row, seed: int) -> bool:
        return any(training.key == row.key and training.seed == seed for training in self.trainings)

    def results(self) -> list[Result]:
        """The results of all rows that have a finished training."""
        by_key: dict[str, list[Training]] = {}
        for training in sorted(self.trainings, key=lambda training: training.seed):
            by_key.setdefault(training.key, []).append(training)
        return [
            Result(row, found[0].parameters, found[0].multiply_adds, found[0].epochs, {each.seed: each.accuracy for each in found})
            for row in all_rows(SCALES[self.scale])
            if (found := by_key.get(row.key))
        ]

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def load(path: Path) -> Ablation:
    """
    Raises:
        TrainingError: the file is not a result file of ``s2mlp ablate``.
        OSError: it cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        trainings = [Training(**entry) for entry in content.pop("trainings")]
        return Ablation(**content, trainings=trainings)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"{path} was not written by this version of s2mlp ablate: choose another --out") from error
