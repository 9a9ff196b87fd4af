"""Check params.yaml against the schema; `make repro` does so before DVC looks for changes."""

from regrow.support.params import read_params


def main() -> None:
    """Read params.yaml; a fault is one sentence that names the key."""
    # Every stage checks all of params.yaml too, but DVC runs none for a key that no stage reads.
    read_params()
