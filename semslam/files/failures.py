"""Which errors are the machine's, that is short of something or cut off from it, and not the input's."""

from __future__ import annotations

import errno

# errors of a machine that is short of something, or cut off from it: the same command may succeed later, or elsewhere
PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *(
            "ENOSPC",
            "EDQUOT",
            "EFBIG",
            "EIO",
            "ENOMEM",
            "EMFILE",
            "ENFILE",
            "EAGAIN",
            "EBUSY",
            "ENOLCK",
            "ESTALE",
            "ETIMEDOUT",
        ),
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
)
# what PyTorch and OpenCV, which have no kind of error for it, say of memory that they do not get
NO_MEMORY = ("allocate memory", "insufficient memory", "out of memory", "can't start new thread")


def is_passing(error: BaseException) -> bool:
    """Whether an error, or what caused it, is the machine's and not the input's: memory, a full disk, a connection."""
    of_system = any(isinstance(link, OSError) and link.errno in PASSING for link in causes_of(error))
    return of_system or is_lack_of_memory(error)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that memory was refused, or threads for want of it."""
    return any(
        isinstance(link, MemoryError)
        or (not isinstance(link, (ValueError, OSError)) and any(words in str(link).lower() for words in NO_MEMORY))
        for link in causes_of(error)
    )


def causes_of(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, what that was raised from, and so on."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:  # an error may be raised from itself
        chain.append(cause)
    return chain


def is_passing_in_reading(error: BaseException) -> bool:
    """`is_passing` of an error in reading: there EIO is a bad sector, of that file alone."""
    return is_passing(error) and not (isinstance(error, OSError) and error.errno == errno.EIO)


def raise_passing(error: Exception) -> None:
    """Raise an error in reading if it is passing: who goes on would take what is whole for unreadable."""
    if is_passing_in_reading(error):
        raise error
