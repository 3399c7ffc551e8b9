"""What the C library does with memory that a tensor has left."""

import ctypes
import platform
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_MAX: Final = -4
"""Names of glibc's malloc.h."""


def keep_memory() -> bool:
    """Let this process keep memory for its next tensors; say whether its C library can.

    By default glibc gives tensors of more than 32 MiB back to the kernel at once, and each next one
    is cleared page by page: a tile of 128³ takes 1.4 times as long. Kept memory is not all used
    again (before glibc 2.38 hardly by tensors of the same size): its peak is 5 % higher in tiles of
    64³ and 40 % in those of 128³. Other processes get it when this one ends.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1)])
