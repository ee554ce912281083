"""Memory that is freed goes back to the system: without it, what gradient caching saves stays with the C library."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # from malloc.h
_LARGE_BYTES = 2**18


def give_back_freed_memory() -> None:
    """What was freed and lies at hand for reuse goes back to the system, in as far as glibc can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def give_back_large_blocks() -> None:
    """Blocks of 256 KiB and more get pages of their own, which go back to the system as soon as they are freed.

    glibc does so at first, but raises the limit up to 32 MiB as it sees such blocks being freed. The activations of a
    piece then lie on the heap between the results of the pieces before it, which are kept, and the heap grows with the
    number of pieces: with 32 of them it held five times what was alive (`python -m benchmarks.global_batch`). Does
    nothing where the C library is another one; holds for the rest of the process.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
