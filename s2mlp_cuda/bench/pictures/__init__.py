"""The figures of a benchmark run, each as SVG and PNG."""

import itertools
from pathlib import Path

import matplotlib

from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._style import STYLE
from s2mlp_cuda.bench.measurement import Run
from s2mlp_cuda.bench.pictures import bars, model_times, overview, roofline, scaling, step_breakdown
from s2mlp_cuda.bench.pictures.page import DARK

#: Text is drawn as paths, so that it does not depend on the fonts of the viewer. The fixed salt makes ids reproducible.
FILE_STYLE = {
    **STYLE, "svg.fonttype": "path", "svg.hashsalt": "s2mlp_cuda", "hatch.linewidth": 1.2, "figure.dpi": 110,
    "savefig.bbox": "standard",
}  # fmt: skip


def draw_all(run: Run, folder: Path) -> list[Path]:
    """Writes all figures that the run has data for; returns the paths, an SVG and a PNG per figure."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(FILE_STYLE):
        for name, figure in itertools.chain.from_iterable(
            module.figures(run) for module in (overview, bars, roofline, scaling, model_times, step_breakdown)
        ):
            foot = figure.subfigs[-1]
            foot.text(0.006, 0.5, f"{run.machine['name']}, PyTorch {run.machine['torch']}", va="center", fontsize=10, color=DARK)
            for format, metadata in (("svg", {"Date": None}), ("png", None)):
                paths.append(folder / f"{name}.{format}")
                with atomic_file(paths[-1]) as file:
                    figure.savefig(file, format=format, metadata=metadata)
    return paths
