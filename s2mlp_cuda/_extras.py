"""Checks for optional dependencies."""

from importlib.util import find_spec


class MissingExtraError(ModuleNotFoundError):
    """Packages of an optional dependency group (extra) are not installed. The message names the group."""


def require(extra: str, *modules: str) -> None:
    """
    Raises:
        MissingExtraError: one of the modules cannot be found.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(f"{', '.join(missing)} {verb} not installed: pip install 's2mlp_cuda[{extra}]'")
