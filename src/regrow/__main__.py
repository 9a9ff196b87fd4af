"""`python -m regrow STAGE …`: import that one stage and run it.

Only the named stage is imported, so that a stage that needs no model never loads torch.
"""

import ast
import functools
import importlib
import sys
from pathlib import Path
from typing import Any

from regrow.errors import UserError, file_fault, memory_fault

STAGES = Path(__file__).parent / "stages"


def usage() -> str:
    """One line a stage: its name and the first line of its module's docstring."""
    lines = ["usage: python -m regrow STAGE [OPTIONS]   (STAGE --help lists the options)", ""]
    for path in sorted(STAGES.glob("[a-z]*.py")):
        summary = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"  {path.stem:<16}{summary.splitlines()[0]}")
    return "\n".join(lines)


def main() -> None:
    """Run the stage that the first argument names.

    A `UserError`, or a fault of the machine (disk, rights, memory), becomes one sentence; any other
    exception is a fault of this program and keeps its traceback.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(usage())
        return
    known = {path.stem for path in STAGES.glob("[a-z]*.py")}
    if name not in known:
        sys.exit(f"regrow: there is no stage {name!r}.\n\n{usage()}")

    import typer

    from regrow.params import check_unchanged

    stage = importlib.import_module(f"regrow.stages.{name}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @functools.wraps(stage.main)
    def run(*given: Any, **named: Any) -> None:
        stage.main(*given, **named)
        check_unchanged()

    app.command()(run)
    try:
        app(args=sys.argv[2:], prog_name=f"python -m regrow {name}")
    except UserError as error:
        sys.exit(f"regrow {name}: {error}")
    except Exception as error:
        said = memory_fault(error, name) or file_fault(error)
        if said is None:
            raise
        sys.exit(f"regrow {name}: {said}")


if __name__ == "__main__":
    main()
