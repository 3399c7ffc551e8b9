"""Optional dependencies: which extra brings which module."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from medseg3d.errors import MissingExtraError


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra installs it.

    Raises:
        MissingExtraError: the module is not installed; the message holds the pip line.
    """
    require_extra(module, extra=extra)
    return import_module(module)


def require_extra(module: str, *, extra: str) -> None:
    """See that an optional `module` is there, without importing it.

    Raises:
        MissingExtraError: the module is not installed; the message holds the pip line.
    """
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise MissingExtraError(
            f"this needs the Python package '{package}', which is not installed. "
            f'Install it with: pip install "medseg3d[{extra}]"'
        )
