"""`python -m regrow NAME …`: import that one stage or command and run it.

Only what is named is imported, so that a stage that needs no model never loads torch.
"""

import ast
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from regrow.support.errors import UserError, file_fault, memory_fault

ROOMS = {"stages": "Stages, which dvc.yaml runs:", "commands": "Commands of your own:"}


def programs(room: str) -> dict[str, Path]:
    """What a room holds to be run, by name."""
    paths = (Path(__file__).parent / room).glob("[a-z]*.py")
    return {path.stem: path for path in sorted(paths)}


def usage() -> str:
    """One line each: its name and the first line of its module's docstring."""
    lines = ["usage: python -m regrow NAME [OPTIONS]   (NAME --help lists the options)"]
    for room, title in ROOMS.items():
        lines += ["", title]
        for name, path in programs(room).items():
            summary = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            lines.append(f"  {name:<16}{summary.splitlines()[0]}")
    return "\n".join(lines)


def options(function: Callable[..., None]) -> inspect.Signature:
    """A function's parameters as options, with the lines of its "Args:" as their help.

    One that is annotated with a `typer.Option` keeps what that says.
    """
    import typer

    said = (function.__doc__ or "").partition("Args:")[2]
    helps = dict(re.findall(r"^ +(\w+): (.+)$", said, re.MULTILINE))
    signature = inspect.signature(function, eval_str=True)
    given = []
    for name, parameter in signature.parameters.items():
        kind, option = parameter.annotation, typer.Option(f"--{name.replace('_', '-')}")
        if get_origin(kind) is Annotated:
            kind, option = get_args(kind)
        option.help = option.help or helps.get(name)
        given.append(parameter.replace(annotation=Annotated[kind, option]))
    return signature.replace(parameters=given)


def main() -> None:
    """Run the stage or command that the first argument names.

    A `UserError`, or a fault of the machine (disk, rights, memory), becomes one sentence; any other
    exception is a fault of this program and keeps its traceback.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(usage())
        return
    room = next((room for room in ROOMS if name in programs(room)), None)
    if room is None:
        sys.exit(f"regrow: there is no stage or command {name!r}.\n\n{usage()}")

    import typer

    from regrow.support import ranks
    from regrow.support.params import check_unchanged

    stage = importlib.import_module(f"regrow.{room}.{name}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @functools.wraps(stage.main)
    def run(*given: Any, **named: Any) -> None:
        stage.main(*given, **named)
        check_unchanged()
        ranks.leave()

    command: Any = run
    command.__signature__ = options(stage.main)
    doc: str = stage.main.__doc__ or stage.__doc__ or ""
    app.command(help=doc.partition("Args:")[0].strip())(command)
    try:
        app(args=sys.argv[2:], prog_name=f"python -m regrow {name}")
    except UserError as error:
        ranks.fail(f"regrow {name}: {error}")
    except Exception as error:
        said = ranks.loss(error) or memory_fault(error, name) or file_fault(error)
        ranks.fail(f"regrow {name}: {said}" if said else error)


if __name__ == "__main__":
    main()
