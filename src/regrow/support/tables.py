"""Tables that one decorated function extends: scores, divergences, measures, data layouts.

The code that computes reads a `Table`; the schema, figures and report read its names and what each
entry says of itself with `entries`, from the source, for importing torch to learn a name would
take seconds.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from regrow.support.errors import UserError

ROOT = Path(__file__).parents[1]
F = TypeVar("F", bound=Callable[..., Any])


class Table(dict[str, F]):
    """Functions by name, in the order in which they were written."""

    def entry(self, function: F) -> F:
        """Add a function under its own name: a decorator."""
        self[function.__name__] = function
        return function

    def __missing__(self, name: str) -> F:
        """Refuse what is not in the table; nothing is taken in its stead."""
        raise UserError(f"{name!r} is none of {', '.join(self)}; name one of these")


def entries(module: str, table: str) -> dict[str, str]:
    """The names of a table, as `SCORES` of `prune/scores.py`, and the first line of each docstring.

    The module is not imported.
    """
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return {
        node.name: (ast.get_docstring(node) or node.name).splitlines()[0].rstrip(".")
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(added).startswith(f"{table}.") for added in node.decorator_list)
    }
