"""Compare every file of DVC's cache with the hash that is its name."""

import re
from pathlib import Path

from regrow.support.errors import UserError
from regrow.support.files import file_hash

NAME = re.compile(r"[0-9a-f]{30}(\.dir)?")


def main(cache: Path = Path(".dvc/cache"), remove: bool = False) -> None:
    """Compare every file of DVC's cache with the hash that is its name.

    DVC does so itself only with files that can be written to. It takes one that is read-only, as
    it leaves them all, to be as it was, and links it to where it belongs, whatever is in it.

    Args:
        remove: remove what is damaged, so that DVC makes it again.
    """
    # Not what DVC is still writing, which has another name.
    files = sorted(path for path in cache.glob("files/md5/??/*") if NAME.fullmatch(path.name))
    names = {path: path.parent.name + path.name.removesuffix(".dir") for path in files}
    found = [path for path, name in names.items() if file_hash(path, "md5") != name]
    for path in found:
        print(f"{path} is damaged" + (" and was removed" if remove else ""))
        if remove:
            path.unlink()
    again = "run `dvc repro --force-downstream`"
    if found and not remove:
        raise UserError(
            f"{len(found)} of {len(files)} files in {cache} are damaged; remove them with "
            f"--remove, then {again}"
        )
    print(f"{again} now" if found else f"{len(files)} files in {cache}, all as their names say")
