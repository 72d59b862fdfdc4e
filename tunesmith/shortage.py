"""Which failures mean that memory ran out, and how that is told.  Knows other libraries' errors by their names and words, and
imports none of them."""

import errno
import re
import traceback

from tunesmith.log import OutOfMemory, TunesmithError

CLASSES = ("OutOfMemoryError", "ArrowMemoryError")
"""Torch's, which its allocators for GPUs raise, and pyarrow's."""

WORDS = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "can't start new thread", "failed to map segment from shared object",
    "could not create a primitive",
)  # fmt: skip
"""What errors of other kinds say: torch's allocator for CPUs, C++, libraries in Rust, the system, oneDNN.  A thread that can't be
started lacks room for its stack."""

NOT_EXECUTABLE = "failed to map segment from shared object: operation not permitted"
"""What a file system says that runs no programs."""

_PLACE = re.compile(r"^\[enforce fail at [^\]]*\]\s*(?:err == 0\.)?\s*(?:DefaultCPUAllocator:)?\s*")
LONGEST = 200


def ran_out(problem: BaseException | None) -> bool:
    """Whether it, or what it was raised for, means that memory ran out.  False for what is told as that already."""
    if problem is None or isinstance(problem, OutOfMemory):
        return False
    if not isinstance(problem, TunesmithError) and _says_so(problem):
        return True
    return ran_out(problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__))


def _says_so(problem: BaseException) -> bool:
    if isinstance(problem, MemoryError) or type(problem).__name__ in CLASSES:
        return True
    if isinstance(problem, OSError):
        return problem.errno == errno.ENOMEM
    text = str(problem).lower().replace(NOT_EXECUTABLE, "")
    return any(word.lower() in text for word in WORDS)


def reason(problem: BaseException) -> str:
    """What was asked for, in the library's own words, without the place in its source."""
    if isinstance(problem, TunesmithError):
        deeper = problem.__cause__ or problem.__context__
        return reason(deeper) if deeper is not None and ran_out(deeper) else str(problem)
    text = _PLACE.sub("", " ".join(str(problem).split()))
    return text[:LONGEST] or type(problem).__name__


def found(problem: BaseException) -> str | None:
    """`reason` where memory ran out, else None.  What was computed until then is let go, so that there is room to find out
    what takes less."""
    if not ran_out(problem):
        return None
    link: BaseException | None = problem
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return reason(problem)
