"""A run in a few lines: how far ahead each operator is of the best other implementation, and where it is not."""

from s2mlp_cuda.bench.measurement import Case, Measurement, Run, fastest, is_ours

TITLE = "Ours and the best other implementation that is right, in the case where it comes closest:"


def headline(run: Run) -> list[str]:
    """A line per operator, dtype and direction: the case in which the best other right implementation comes closest to ours."""
    closest: dict[tuple[str, str, str], tuple[float, Case, Measurement]] = {}
    for case, ways in run.cases("operator").items():
        ours, other = fastest(ways, ours=True), fastest(ways, ours=False)
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
    """A line per case in which ours is not the fastest right implementation."""
    found = []
    for case, ways in run.cases("operator").items():
        ours, other = fastest(ways, ours=True), fastest(ways, ours=False)
        if ours and other and other.median < ours.median:
            found.append(f"Not the fastest: {case}: {other.name} takes {other.median / ours.median:.2f} of the time of {ours.name}")
        elif not ours and any(is_ours(way.name) for way in ways):
            found.append(f"Not right: {case}")
    return found
