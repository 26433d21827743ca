"""A program with its own models: the example of ``register_models``."""

import inspect
import subprocess
import sys

from s2mlp_cuda.models import register_models


def test_example_trains_its_model(tmp_path):
    example = inspect.getdoc(register_models).partition("::\n")[2]
    program = tmp_path / "mine.py"
    program.write_text(inspect.cleandoc(example))

    options = ["--recipe", "digits", "--output", "run", "--no-tensorboard", "--epochs", "1", "--device", "cpu"]
    model = ["--model", "s2mlpv2_max", "--model-kwargs", "embed_dims=[8]", "depths=[1]"]
    result = subprocess.run([sys.executable, program, "train", *options, *model], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "s2mlpv2_max with" in result.stdout
    assert (tmp_path / "run" / "best.safetensors").exists()
