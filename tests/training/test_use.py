"""Commands that use trained weights: ``s2mlp eval``, ``predict``, ``explain`` and ``export``."""

import csv
import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from onnxruntime import InferenceSession
from safetensors import safe_open
from safetensors.torch import save_file

from s2mlp_cuda import cli, offsets
from s2mlp_cuda._terminal import printable
from s2mlp_cuda.layers import S2, S2MLPBlock, ShiftSplitAttention, ShiftSum
from s2mlp_cuda.models import S2MLP, S2MLPv2
from s2mlp_cuda.training import config, weights
from s2mlp_cuda.training import explain as explaining
from s2mlp_cuda.training.digits import write_digits
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.explain import explain, receptive_fields, split_attention_weights
from s2mlp_cuda.training.predict import predict, read_image
from s2mlp_cuda.training.progress import spinner, track
from s2mlp_cuda.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(one_thread, tmp_path_factory):
    """A model with two small stages, trained for one epoch on the digits."""
    folder = tmp_path_factory.mktemp("run")
    write_digits(folder / "digits")
    kwargs = ["patch_sizes=[1,2]", "embed_dims=[8,16]", "depths=[1,2]"]
    argv = ["--recipe", "digits", "--device", "cpu", "--no-tensorboard", "--epochs", "1", "--data", str(folder / "digits")]
    train(config.parse([*argv, "--batch-size", "64", "--warmup-epochs", "0", "--output", str(folder), "--model-kwargs", *kwargs]))
    return folder


@pytest.fixture(scope="module")
def image(run):
    return sorted((run / "digits" / "validation" / "4").iterdir())[0]


def test_eval_prints_the_metrics_of_the_last_epoch(run, capsys):
    assert cli.main(["eval", "--weights", str(run / "last.safetensors"), "--data", str(run / "digits"), "--workers", "0"]) == 0
    with open(run / "metrics.csv") as file:
        (row,) = csv.DictReader(file)
    loss, top1, top5 = (float(row[name]) for name in ("val_loss", "val_top1", "val_top5"))
    assert capsys.readouterr().out == f"loss {loss:.4f}, top-1 {top1:.2f}%, top-5 {top5:.2f}%, 360 images\n"


def test_eval_as_json(run, capsys):
    """One object with the documented fields, and nothing else."""
    file = str(run / "last.safetensors")
    assert cli.main(["eval", "--weights", file, "--data", str(run / "digits"), "--workers", "0", "--json"]) == 0
    with open(run / "metrics.csv") as metrics:
        (row,) = csv.DictReader(metrics)
    expected = {name: pytest.approx(float(row[f"val_{name}"])) for name in ("loss", "top1", "top5")}
    found = capsys.readouterr()
    assert json.loads(found.out) == {"weights": file, "split": "validation", **expected, "images": 360}
    assert found.err == ""
    assert all(name in cli.EVALUATE_EXAMPLES for name in json.loads(found.out))


def test_failed_eval_as_json_prints_no_object(run, tmp_path, capsys):
    assert cli.main(["eval", "--weights", str(run / "last.safetensors"), "--data", str(tmp_path), "--json"]) == 1
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith("s2mlp: ") and found.err.count("\n") == 1


def test_predict_as_json(run, image, tmp_path, capsys):
    """One object, also if an image cannot be read."""
    broken, file = tmp_path / "broken\x1b.jpg", run / "last.safetensors"
    broken.write_bytes(b"nothing")
    assert cli.main(["predict", str(image), str(broken), "--weights", str(file), "--json"]) == 1
    (rows,) = predict(*weights.load(file), [image])
    reason = f"cannot read the image {broken}: it has no format that Pillow reads"
    found = capsys.readouterr()
    assert json.loads(found.out) == {
        "weights": str(file),
        "predictions": [
            {"image": str(image), "classes": [{"name": name, "probability": value} for name, value in rows]},
            {"image": str(broken), "error": reason},
        ],
    }
    assert found.err == f"s2mlp: {printable(reason)}\n"
    assert all(name in cli.PREDICT_EXAMPLES for name in ("weights", "predictions", "image", "classes", "error", "probability"))
    assert cli.main(["predict", str(image), "--weights", str(file), "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_commands_suggest_the_next_one(run, image, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["s2mlp"])
    file = str(run / "last.safetensors")
    for words, suggestion in (
        (["eval", "--data", str(run / "digits"), "--workers", "0"], ["s2mlp", "predict", "IMAGE", "--weights", file]),
        (["predict", str(image)], ["s2mlp", "explain", str(image), "--weights", file]),
        (["explain", str(image), "--out", str(tmp_path)], ["s2mlp", "export", "--format", "onnx", "--weights", file]),
    ):
        assert cli.main([*words, "--weights", file]) == 0
        assert capsys.readouterr().err == f"next: {shlex.join(suggestion)}\n"
        cli.parser().parse_args(suggestion[1:])


@pytest.mark.parametrize("rank, is_first", [(None, True), ("0", True), ("1", False)])
def test_training_suggests_a_prediction(run, monkeypatch, capsys, rank, is_first):
    """In the first process only."""
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "argv", ["s2mlp"])
    monkeypatch.setattr("s2mlp_cuda.training.run.train", lambda arguments: None)
    assert cli.main(["train", "--output", str(run)]) == 0
    suggestion = f"next: s2mlp predict IMAGE --weights {run / 'best.safetensors'}\n"
    assert capsys.readouterr().err == (suggestion if is_first else "")


def test_progress_bars_count_and_leave_no_output(capsys):
    assert list(track([3, 1, 2], "[red]")) == [3, 1, 2]
    with spinner("[red]"):
        pass
    assert capsys.readouterr() == ("", "")  # not a terminal


def test_progress_bars_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert list(track([3, 1], "[red]")) == [3, 1]
    with spinner("x\x1b[2J"):
        pass
    found = capsys.readouterr()
    assert found.out == ""
    assert "[red]" in found.err and "2/2" in found.err and "x\\x1b[2J" in found.err


def test_eval_matches_labels_by_name(run, tmp_path, capsys):
    """If the data has only one class, its label is still that of training."""
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "7").symlink_to(run / "digits" / "validation" / "7")
    assert cli.main(["eval", "--weights", str(run / "last.safetensors"), "--data", str(tmp_path), "--workers", "0"]) == 0
    files = sorted((run / "digits" / "validation" / "7").iterdir())
    correct = [rows[0][0] == "7" for rows in predict(*weights.load(run / "last.safetensors"), files)]
    assert f"top-1 {100 * sum(correct) / len(correct):.2f}%" in capsys.readouterr().out


def test_predict_prints_five_classes(run, image, capsys):
    assert cli.main(["predict", str(image), str(image), "--weights", str(run / "last.safetensors")]) == 0
    out = capsys.readouterr().out
    assert out.count(image.name) == 2
    percents = [float(line.split("%")[0].split()[-1]) for line in out.splitlines() if "%" in line]
    assert len(percents) == 10
    assert percents[:5] == sorted(percents[:5], reverse=True)
    assert 50 < sum(percents[:5]) <= 100.5


def test_predict_uses_the_preprocessing_of_the_weights_file(run, image):
    model, description = weights.load(run / "last.safetensors")
    assert read_image(image, description).shape == (3, 8, 8)
    logits = model(read_image(image, description)[None])[0]
    (rows,) = predict(model, description, [image])
    assert rows[0] == (str(logits.argmax().item()), pytest.approx(logits.softmax(0).max().item()))


def test_unreadable_image_and_weights_are_named(run, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    assert cli.main(["predict", str(broken), "--weights", str(run / "last.safetensors")]) == 1
    assert f"cannot read the image {broken}" in capsys.readouterr().err
    assert cli.main(["predict", str(broken), "--weights", str(broken)]) == 1
    assert f"{broken} is not a safetensors file" in capsys.readouterr().err


def test_weights_without_description_are_rejected(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(TrainingError, match="has no description of its model"):
        weights.load(tmp_path / "x.safetensors")


def test_explain_draws_three_pictures(run, image, tmp_path, capsys):
    command = ["explain", str(image), "--weights", str(run / "last.safetensors"), "--out", str(tmp_path)]
    assert cli.main([*command, "--block", "2"]) == 0
    names = ["receptive_field.png", "split_attention.png", "shifted_groups.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert cli.main([*command, "--block", "4"]) == 1
    assert "blocks 1 to 3, got 4" in capsys.readouterr().err


def test_explain_of_s2mlp_and_of_other_models(tmp_path):
    model = S2MLP(10, patch_size=2, embed_dim=16, depth=2).eval()
    paths = explain(model, torch.randn(3, 16, 16), tmp_path)
    assert [path.name for path in paths] == ["receptive_field.png", "shifted_groups.png"]
    with pytest.raises(TrainingError, match="Linear has no blocks with a spatial shift"):
        explain(torch.nn.Linear(1, 1), torch.randn(3, 16, 16), tmp_path)


class Fusion(torch.nn.Module):
    """The sum of the unshifted branches. Keeps the layer that it replaces, without calling it."""

    def __init__(self, replaced):
        super().__init__()
        self.replaced, self.branches = replaced, replaced.branches

    def forward(self, x):
        return sum(x.chunk(len(self.branches), -1))


def mixers(model) -> list[S2]:
    return [module for module in model.modules() if isinstance(module, S2)]


def test_explain_of_blocks_with_a_fusion_of_their_own(tmp_path, figures):
    """Only the layers whose shifts are known are drawn, under the number of their block."""
    model = S2MLPv2(10, patch_sizes=(2,), embed_dims=(16,), depths=(4,)).eval()
    first, second, third, _ = mixers(model)
    first.attention = Fusion(first.attention)
    second.attention = ShiftSum(mean=True)
    third.expand, third.attention = torch.nn.Linear(16, 32), ShiftSplitAttention(16, (None, offsets.SS1))
    for block, drawn in ((1, False), (2, True), (3, True)):
        names = [path.name for path in explain(model, torch.randn(3, 8, 8), tmp_path, block)]
        assert names == ["receptive_field.png", "split_attention.png"] + ["shifted_groups.png"] * drawn
    (axes,) = figures["split_attention.png"].axes
    assert [label.get_text()[0] for label in axes.get_xticklabels()] == ["3", "4"]
    assert len(axes.patches) == 5  # two branches, three branches
    assert [text.get_text() for text in figures["split_attention.png"].legends[0].get_texts()] == [f"branch {k}" for k in (1, 2, 3)]

    for mixer in mixers(model):
        mixer.attention = Fusion(mixer.attention)
    assert [path.name for path in explain(model, torch.randn(3, 8, 8), tmp_path)] == ["receptive_field.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["receptive_field.png"]  # the others are of the model before


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, by file name."""
    drawn = {}

    def save(figure, path):
        drawn[path.name] = figure
        return original(figure, path)

    original = explaining._save
    monkeypatch.setattr(explaining, "_save", save)
    return drawn


def test_figures_of_many_branches_and_long_tables(tmp_path, figures):
    """Bars do not overlap, colors and names are told apart, and the legend is not wider than the figure."""
    knight = ((1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2))
    far = ((10, 0), (-10, 0), (0, 12), (0, -12))
    branches = (offsets.SS1, knight, offsets.NINE_WAY, None, far, far, far, offsets.interleaved(offsets.V1, 16))
    model = S2MLPv2(10, patch_sizes=(2,), embed_dims=(16,), depths=(2,), branches=branches).eval()
    explain(model, torch.randn(3, 8, 8), tmp_path)
    figure = figures["split_attention.png"]
    (axes,) = figure.axes
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert len(edges) == 16 and all(end < start for (_, end), (start, _) in zip(edges, edges[1:]))
    assert len({bar.get_facecolor() for bar in axes.patches}) == 8
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:4] == ["branch 1: ↓ ↑ → ←", "branch 2: 8 offsets", "branch 3: NINE_WAY", "branch 4: no shift"]
    assert names[4] == "branch 5: (10, 0) (-10, 0) (0, 12) (0, -12)" and names[7] == "branch 8: 16 offsets"
    box = legend.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= axes.get_window_extent().y0
    assert len(figures["shifted_groups.png"].axes) == 2 * 12 * len(branches)


def test_receptive_field_of_s2mlp_is_a_diamond_that_grows_by_one_token_per_block():
    model = S2MLP(10, patch_size=2, embed_dim=16, depth=3).eval()
    blocks = [module for module in model.modules() if isinstance(module, S2MLPBlock)]
    fields = receptive_fields(model, blocks, torch.randn(3, 22, 22))
    rows, columns = torch.meshgrid(torch.arange(11), torch.arange(11), indexing="ij")
    distance = (rows - 5).abs() + (columns - 5).abs()
    for number, field in enumerate(fields, 1):
        tokens = torch.from_numpy(field).unflatten(0, (11, 2)).unflatten(2, (11, 2)).amax((1, 3))
        assert torch.equal(tokens > 0, distance <= number)


def test_split_attention_weights_are_those_of_the_forward_pass():
    model = S2MLPv2(10, patch_sizes=(2,), embed_dims=(16,), depths=(2,)).eval()
    attentions = [module for module in model.modules() if isinstance(module, ShiftSplitAttention)]
    torch.nn.init.normal_(attentions[1].fc1.weight)
    torch.nn.init.normal_(attentions[1].fc2.weight)
    image, seen = torch.randn(3, 8, 8), {}
    attentions[1].register_forward_hook(lambda module, args, output: seen.update(x=args[0], output=output))
    found = split_attention_weights(model, attentions, image)[1].clone()
    assert found.shape == (3, 16)
    torch.testing.assert_close(found.sum(0), torch.ones(16))
    model(image[None])
    combined = sum(weight * part for weight, part in zip(found, attentions[1].shifted(seen["x"])))
    torch.testing.assert_close(combined, seen["output"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_exported_models_run_with_any_batch_size(run, tmp_path, capsys, format):
    path = tmp_path / f"model.{format}"
    assert cli.main(["export", "--weights", str(run / "last.safetensors"), "--format", format, "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}; its output differs from the model's by at most ") and out.count("\n") == 1
    assert float(out.split()[-1]) < 1e-4
    assert err.count("'") == 2  # the code is quoted once
    next_, python, option, code = shlex.split(err)
    assert (next_, option) == ("next:", "-c") and python in (sys.executable, Path(sys.executable).name)
    exec(code)
    model, _ = weights.load(run / "last.safetensors")
    images = torch.randn(5, 3, 8, 8)
    if format == "onnx":
        session = InferenceSession(str(path))
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    else:
        program = torch.export.load(path)
        assert not [node for node in program.graph.nodes if "s2mlp" in str(node.target)]
        found = program.module()(images)
    torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-5)


def test_paths_may_be_text(run, tmp_path):
    file = str(run / "last.safetensors")
    model, _ = weights.load(file)
    assert weights.load_into(model, file, []) == []
    assert weights.export(file, "pt2", str(tmp_path / "m.pt2")).startswith(str(tmp_path / "m.pt2"))


def test_description_is_in_the_file(run):
    with safe_open(run / "last.safetensors", "pt") as file:
        described = json.loads(file.metadata()["s2mlp_cuda"])
    assert described["class_names"] == list("0123456789")
    assert described["model"] == "s2mlpv2_small_7"
    assert (described["img_size"], described["mean"]) == (8, [0.306] * 3)
