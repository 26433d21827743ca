"""A summary of a run: the ratio of each operator to the best baseline, and the cases in which the baseline is faster."""

from s2mlp_cuda.bench.measurement import Case, Measurement, Run, fastest, is_ours

TITLE = "Ours and the best other implementation that is right, in the case where it comes closest:"


def headline(run: Run) -> list[str]:
    """One line per operator, dtype and direction: the case in which the best correct baseline comes closest to ours."""
    closest: dict[tuple[str, str, str], tuple[float, Case, Measurement]] = {}
    for case, measurements in run.cases("operator").items():
        ours, other = fastest(measurements, ours=True), fastest(measurements, ours=False)
        if ours and other:
            key = case.subject, case.dtype, case.direction
            ratio = other.median / ours.median
            if key not in closest or ratio < closest[key][0]:
                closest[key] = ratio, case, other
    return [
        f"{subject}, {dtype}, {direction}: {_speed(ratio)} than {other.name} "
        f"({'x'.join(map(str, case.shape))} {case.data_format.replace('_', '-')})"
        for (subject, dtype, direction), (ratio, case, other) in closest.items()
    ]


def _speed(ratio: float) -> str:
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"


def shortfalls(run: Run) -> list[str]:
    """One line per case in which ours is not the fastest correct implementation."""
    lines = []
    for case, measurements in run.cases("operator").items():
        ours, other = fastest(measurements, ours=True), fastest(measurements, ours=False)
        if ours and other and other.median < ours.median:
            lines.append(f"Not the fastest: {case}: {other.name} takes {other.median / ours.median:.2f} of the time of {ours.name}")
        elif not ours and any(is_ours(measurement.name) for measurement in measurements):
            lines.append(f"Not right: {case}")
    return lines
