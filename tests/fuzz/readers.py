"""The readers of untrusted input, each as a function of bytes: for the tests and for atheris.

A reader writes the bytes where its input lies and calls what a stage calls. It may return or raise
`UserError`, nothing else. An input that is several files starts with a line that names the one
that the rest replaces; the others are whole.
"""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from seeds import MEMBER, record_ids, record_output, record_trees, write_model, write_record

from regrow.compare.controls import read_controls
from regrow.evaluate.predictions import read_predictions
from regrow.sources.downloads import unpack
from regrow.sources.reading import read_source
from regrow.sources.uris import HF, HTTPS, PYPI, resolved
from regrow.support.errors import UserError
from regrow.support.params import read_params
from regrow.tasks.questions import read_labels, read_questions


def params(data: bytes, folder: Path) -> None:
    """`params.yaml`."""
    read_params(_file(folder / "params.yaml", data))


def controls(data: bytes, folder: Path) -> None:
    """The arms and contrasts of `regrow controls`."""
    read_controls(_file(folder / "controls.yaml", data))


def jsonl(data: bytes, folder: Path) -> None:
    """A data set of lines."""
    read_source(_file(folder / "data.jsonl", data))


def split(data: bytes, folder: Path) -> None:
    """A split's questions and its labels, here in one file."""
    path = _file(folder / "train.jsonl", data)
    read_labels(path, read_questions(path))


def parquet(data: bytes, folder: Path) -> None:
    """A data set of columns."""
    read_source(_file(folder / "data.parquet", data))


def arrow(data: bytes, folder: Path) -> None:
    """A data set as a stream of record batches."""
    read_source(_file(folder / "data.arrow", data))


def predictions(data: bytes, folder: Path) -> None:
    """What `evaluate` wrote."""
    read_predictions(_file(folder / "0.2-600-0.parquet", data))


def uri(data: bytes, folder: Path) -> None:
    """A source's URI, of those that need no network."""
    text = data.decode("utf-8", "surrogateescape")
    # Well-formed ones of these kinds ask pip, the hub and other machines.
    for form in (PYPI, HF, HTTPS):
        if (match := form.fullmatch(text)) and ".." not in (match["file"] or ""):
            return
    # What lies elsewhere on the machine is not this test's to open.
    if text.startswith("file:/"):
        text = f"file:{folder}{text.removeprefix('file:')}"
    with resolved(text, "0" * 64, key="data.source"):
        pass


def wheel(data: bytes, folder: Path) -> None:
    """An archive that a member is taken of."""
    path = _file(folder / "demo-1.0-py3-none-any.whl", data)
    unpack(path, MEMBER, folder / "member", "data.source")
    assert not stat.S_ISLNK((folder / "member").lstat().st_mode)


def gguf(data: bytes, folder: Path) -> None:
    """A quantised model."""
    from regrow.sources.models import import_model

    import_model(_file(folder / "model.gguf", data), folder / "out")


def model(data: bytes, folder: Path) -> None:
    """A model folder, one of whose files is given."""
    from regrow.model.folders import load_model, load_tokenizer
    from regrow.sources.models import import_model

    source = _one_of(data, folder / "source", write_model)
    _each(
        lambda: load_model(source, "float32", "cpu"),
        lambda: load_tokenizer(source),
        lambda: import_model(source, folder / "out"),
    )


def record(data: bytes, folder: Path) -> None:
    """A teacher's record, one of whose files is given."""
    from regrow.distill.reader import Record

    found = Record(_one_of(data, folder / "record", write_record), record_output)
    ids = record_ids()
    found.check(ids, record_trees())
    found.targets(np.concatenate([found.rows(identity) for identity in ids]), 2.0)


READERS: dict[str, Callable[[bytes, Path], None]] = {
    function.__name__: function
    for function in (
        *(params, controls, jsonl, split, parquet, arrow, predictions),
        *(uri, wheel, gguf, model, record),
    )
}


def accepts_or_refuses(name: str, data: bytes, folder: Path) -> bool:
    """Call a reader in the empty folder `folder`; whether it took the input.

    Any exception other than `UserError` is let through, and so is one that says nothing.
    """
    try:
        READERS[name](data, folder)
    except UserError as error:
        assert str(error).strip(), "an error that says nothing"
        assert "\n" not in str(error), "an error of several lines"
        return False
    finally:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return True


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _one_of(data: bytes, folder: Path, write: Callable[[Path], None]) -> Path:
    """Write a whole folder, then put the bytes behind the first line into the file it names."""
    write(folder)
    first, _, rest = data.partition(b"\n")
    names = sorted(path.name for path in folder.iterdir())
    name = first.decode("utf-8", "replace")
    target = folder / (name if name in names else names[len(first) % len(names)])
    target.unlink()  # it may be a hard link
    target.write_bytes(rest)
    return folder


def _each(*calls: Callable[[], object]) -> None:
    """Make all the calls, whether or not one of them refuses; then refuse if one did."""
    refused = None
    for call in calls:
        try:
            call()
        except UserError as error:
            refused = error
    if refused:
        raise refused
