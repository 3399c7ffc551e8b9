"""Optional dependencies: which extra brings which module."""

from importlib import import_module
from types import ModuleType

from medseg3d.errors import MissingExtraError


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra installs it.

    Raises:
        MissingExtraError: the module is not installed; the message holds the pip line.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise MissingExtraError(
            f"this needs the Python package '{package}', which is not installed. "
            f'Install it with: pip install "medseg3d[{extra}]"'
        ) from error
