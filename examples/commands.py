"""Runs commands of ``s2mlp`` in this process, as the shell would."""

import shlex

from s2mlp_cuda.cli import main


def run(command: str) -> None:
    """
    Raises:
        AssertionError: the command failed.
    """
    print(f"\n$ {command}", flush=True)
    program, *arguments = shlex.split(command)
    assert program == "s2mlp" and main(arguments) == 0
