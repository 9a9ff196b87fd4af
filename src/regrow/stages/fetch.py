"""Fetch the model's source and store it as a safetensors folder."""

from pathlib import Path

from regrow.sources.uris import not_pinned, resolved
from regrow.support.files import replacing, write_json
from regrow.support.params import read_params


def main(out: Path) -> None:
    """Write the model and its tokenizer to --out, with the commit of a hub model."""
    model = read_params().model
    key = "model.source"
    # Beside --out: on the same disk, which is large enough for models.
    with resolved(model.source, model.sha256, key=key, kind="model", scratch=out.parent) as source:
        # Imported here: torch takes seconds, and a source that cannot be had needs none of it.
        from regrow.sources.models import import_model

        with replacing(out) as beside:
            import_model(source.path, beside)
            if source.commit is not None:
                record = {"source": source.uri, "commit": source.commit}
                write_json(beside / "source.json", record)
        if notice := not_pinned(source, key):
            print(notice)
