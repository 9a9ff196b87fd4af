"""Link the local files and folders that are sources, so that DVC sees when one is edited."""

from pathlib import Path

from regrow.sources.uris import local_path
from regrow.support.files import replacing
from regrow.support.params import read_params


def main(out: Path) -> None:
    """Write, by the parameter's name, a link to each `file:` source; what another is, as text.

    The stages that read a source depend on what is here, and DVC follows links: that of an edited
    file or folder is out of date, and the stage that reads it runs again.
    """
    params = read_params()
    sources = {
        "model.source": params.model.source,
        "data.source": params.data.source,
        "data.test_source": params.data.test_source,
    }
    sets = params.evaluate.transfer
    sources |= {f"evaluate.transfer/{name}": wanted.source for name, wanted in sets.items()}
    if not sets:  # a stage depends on it all the same
        sources["evaluate.transfer"] = None
    with replacing(out) as beside:
        beside.mkdir()
        for key, uri in sources.items():
            path = beside / key
            path.parent.mkdir(exist_ok=True)
            if uri and uri.startswith("file:"):
                path.symlink_to(local_path(uri, key.replace("/", ".")).resolve())
            else:
                path.write_text(f"{uri}\n", encoding="utf-8")
