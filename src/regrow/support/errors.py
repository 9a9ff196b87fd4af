"""What a person is meant to read: `UserError`, and the machine's own faults put in a sentence."""

import errno
import os
import re
from pathlib import Path

_PASSWORD = re.compile(r"(?<=://)[^/\s'\"]+@")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)
HIDDEN = "***"


class UserError(Exception):
    """Something the person running regrow can put right.

    The message is one sentence that names the key, file or line at fault, what is allowed, and
    what to do. `python -m regrow` prints it without a traceback and exits with status 1.

    A message may hold what a person wrote or a library said, so it is made safe to print: no
    password of a URL, no secret of the environment, and one line without control characters.
    """

    def __init__(self, message: str) -> None:
        text = _PASSWORD.sub(f"{HIDDEN}@", message)
        for name, value in os.environ.items():
            # A shorter value is no secret, and would be found in the middle of words.
            if _SECRET.search(name) and len(value.strip()) >= 8:
                text = text.replace(value.strip(), HIDDEN)
        # Controls (line breaks too) and halves of surrogate pairs as Python would write them.
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


AGAIN = "run this again"
ADVICE = {
    errno.ENOSPC: "free some room on that disk",
    errno.EDQUOT: "free some of your quota on that disk",
    errno.EFBIG: "raise the limit on a file's size (`ulimit -f`) or work on another disk",
    errno.EROFS: "mount that disk for writing or work in another folder",
    errno.EACCES: "get the right to it or work in another folder",
    errno.EPERM: "get the right to it or work in another folder",
    errno.EIO: "check that disk",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENOENT: "put it there or correct the path",
}


# What takes the memory of a stage, and so what makes it less.
SMALLER = {
    "teacher": "lower teacher.training.batch_size; where that is 1, ",
    "teacher_logits": "set teacher_logits.positions to answer; where it is, ",
    **dict.fromkeys(
        ("finetune", "distill", "tune"), "lower training.batch_size; where that is 1, "
    ),
}


# Libraries written in Rust and C++ raise exceptions of their own, with the number in the text or,
# as torch and NumPy when they write a file, without.
UNKNOWN = 0
_NUMBER = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
_CUT_SHORT = ("PytorchStreamWriter failed writing", "unexpected pos", " requested and ")
_PARTIAL = re.compile(r"(^|/)\.([^/]+)\.partial(?=/|$)")


def file_fault(error: BaseException, path: Path | None = None) -> str | None:
    """The sentence for a file that the system would not let us read or write, else None.

    `path` is what was being written, for errors that do not say.
    """
    number = _number(error)
    if number is None or number == errno.ENOMEM:
        # Some libraries raise an OSError of their own, which has a text instead of a number.
        said = isinstance(error, OSError) and number is None and str(error).strip()
        return one_line(error) if said else None
    named = getattr(error, "filename", None)
    file = str(path or "a file") if named is None else os.fsdecode(named)
    file = _PARTIAL.sub(r"\1\2", file)
    if number == UNKNOWN:
        return f"{file}: it was not written to its end; see that its disk has room, then {AGAIN}"
    return f"{file}: {os.strerror(number)}; {ADVICE.get(number, 'put it right')}, then {AGAIN}"


def one_line(error: BaseException) -> str:
    """What an exception says, to be put into a sentence."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def memory_fault(error: BaseException, stage: str = "") -> str | None:
    """The sentence for memory that ran out while `stage` ran, else None."""
    # torch has two: a plain RuntimeError on a CPU, and one of its own on a GPU.
    ran_out = (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or _number(error) == errno.ENOMEM
    )
    if not ran_out:
        return None
    return (
        f"memory ran out ({one_line(error)}); {SMALLER.get(stage, '')}close other programs, take a "
        "smaller model, or set compute.dtype to bfloat16"
    )


def _number(error: BaseException) -> int | None:
    """The system's number for what went wrong, if that is what went wrong."""
    if isinstance(error, OSError):
        if error.errno is not None:
            return error.errno
    elif not isinstance(error, RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    if found := _NUMBER.search(str(error)):
        return int(found[1])
    if any(text in str(error) for text in _CUT_SHORT):
        cause = error.__cause__ or error.__context__
        return (_number(cause) if cause else None) or UNKNOWN
    return None
