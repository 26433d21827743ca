"""The parts of the demo; .ci/run runs the whole."""

import pytest
import torch

from s2mlp_cuda import demo, offsets, reference
from s2mlp_cuda._system import machine_name
from s2mlp_cuda.bench.baselines import assign_in_place
from s2mlp_cuda.demo import correctness, digits, inplace_trap, pictures, timing


@pytest.mark.parametrize("data_format", inplace_trap.DATA_FORMATS)
def test_in_place_version_is_the_papers_pseudo_code_and_wrong(data_format):
    """In NumPy the pseudo-code computes SS1, as intended; in PyTorch it does not."""
    x = torch.randn(2, 12, 14, 12) if data_format == "channels_first" else torch.randn(2, 14, 12, 12)
    expected = reference.spatial_shift(x, offsets.SS1, data_format=data_format)
    array = x.clone().numpy()
    assert (assign_in_place(array, offsets.SS1, data_format) == expected.numpy()).all()
    assert not torch.equal(assign_in_place(x.clone(), offsets.SS1, data_format), expected)


def test_in_place_version_smears_the_first_row_of_a_token_map():
    x = torch.randn(2, 14, 12, 12)
    group = assign_in_place(x.clone(), offsets.SS1)[..., :3]
    assert torch.equal(group, x[:, :1, :, :3].expand_as(group))


def test_survey_covers_504_combinations_and_restores_the_thread_count():
    threads = torch.get_num_threads()
    cases = list(inplace_trap.survey())
    assert len(cases) == len(set(cases)) == 504
    assert torch.get_num_threads() == threads
    counts = inplace_trap.count_outcomes(cases)
    assert sum(counts.values()) == 504 and counts["right"] == 0


def test_check(device):
    result = correctness.check(device)
    assert result.equal == result.combinations == 72
    assert result.expected_column == [0.0, *range(13)]


def test_timing_compares_right_results(device):
    timings = timing.time_alternatives((2, 6, 7, 16), device, rounds=2)
    assert [t.name for t in timings] == list(timing.ALTERNATIVES)
    assert all(t.right and t.ratio > 0 and not t.failure for t in timings), timings


def test_digits_are_split_without_overlap():
    data = digits.load(torch.device("cpu"))
    assert len(data.train_images) + len(data.test_images) == 1797
    assert data.train_images.shape[1:] == (1, 8, 8) and data.train_images.max() == 1
    assert data.test_labels.bincount().min() > 40


def test_models_with_and_without_shift_have_the_same_parameters():
    shapes = [
        [p.shape for p in digits.build_model(branches).parameters()] for branches in (digits.WITH_SHIFT, digits.WITHOUT_SHIFT)
    ]
    assert shapes[0] == shapes[1]


def test_compiled_and_eager_in_place_versions_disagree():
    """As the README says: the compiled pseudo-code computes the correct shift."""
    torch._dynamo.reset()
    x = torch.randn(2, 14, 12, 12)
    compiled = torch.compile(assign_in_place, fullgraph=True)
    assert torch.equal(compiled(x.clone(), offsets.SS1), reference.spatial_shift(x, offsets.SS1))


def test_backward_of_the_in_place_version_is_the_gradient_of_a_different_function():
    """Eager autograd differentiates the correct shift, although the output is smeared."""
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64, requires_grad=True)

    def in_place(x):
        return assign_in_place(x.clone(), offsets.SS1)

    grad = torch.randn_like(x)
    (ours,) = torch.autograd.grad(reference.spatial_shift(x, offsets.SS1), x, grad)
    (theirs,) = torch.autograd.grad(in_place(x), x, grad)
    torch.testing.assert_close(theirs, ours)
    assert not torch.autograd.gradcheck(in_place, x, raise_exception=False)


def test_a_figure_that_cannot_be_drawn_keeps_the_old_one(tmp_path, monkeypatch):
    training = digits.Training(torch.nn.Identity(), [1.0, 0.9], [0.5, 0.6])
    path = pictures.draw_curves(tmp_path / "training.png", training, training)
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    def fail(figure, file, **options):
        file.write(b"half")
        raise RuntimeError

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(RuntimeError):
        pictures.draw_curves(path, training, training)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_demo_names_the_machine(tmp_path, monkeypatch, capsys):
    """At its end and in the figure of the timings; prints the paths of all figures."""
    training = digits.Training(torch.nn.Identity(), [1.0], [1.0])
    data = digits.Digits(*4 * [torch.zeros(1, 2)])
    monkeypatch.setattr(demo, "_show_check", lambda *_: True)
    monkeypatch.setattr(demo, "_show_timings", lambda *_: {})
    monkeypatch.setattr(demo, "_show_training", lambda *_: (data, training, training))
    arguments = {}
    for name in ("draw_groups", "draw_timings", "draw_curves", "draw_predictions"):
        monkeypatch.setattr(pictures, name, lambda path, *rest, name=name: arguments.update({name: rest}) or path)
    assert demo.run(quick=False, out=tmp_path, facts=[]) == 0
    machine = f"{machine_name()}, PyTorch {torch.__version__}"
    assert arguments["draw_timings"] == ({}, machine)
    out = capsys.readouterr().out
    assert out.endswith(f"\nDone in 0 s on {machine}.\n")
    assert all(str(tmp_path / f"{name}.png") in out for name in ("groups", "timings", "training", "digits"))
