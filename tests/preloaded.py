"""A `python` for tests that has the large packages imported already.

A stage takes seconds to import torch and transformers, and a test of the pipeline runs dozens of
stages. `serve` imports these packages once; run as a script in the place of `python`, this file
hands its command line, folder, environment and open streams to that process, which forks and runs
`-m MODULE ARGUMENTS…` there. `regrow` itself is never preloaded: each run imports the code that
its PYTHONPATH names. Where SECONDS is set in a run's environment, the run is ended after so many.
"""

import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

SOCKET = "PRELOADED_PYTHON"
SECONDS = "PRELOADED_SECONDS"
PACKAGES = (
    "accelerate",
    "dvclive",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pyarrow.parquet",
    "pydantic",
    "rich.table",
    "scipy.special",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.calibration",
    "sklearn.metrics",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "typer",
)


def serve(path, *others):
    """Import `PACKAGES` and `others`, then run what is asked for at the socket `path`."""
    import importlib

    for package in (*PACKAGES, *others):
        importlib.import_module(package)
    assert "regrow" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if not os.fork():
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection)


def _answer(connection):
    """Run what the other side asks for, tell it the exit status, and end this process."""
    message, streams, _, _ = socket.recv_fds(connection, 4, 3)
    length = int.from_bytes(message, "big")
    request = json.loads(connection.recv(length, socket.MSG_WAITALL))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.alarm(int(os.environ.get(SECONDS, "0")))
    status = 1
    try:
        status = _run_module(request["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


def _run_module(arguments):
    option, module, *rest = arguments
    assert option == "-m", "only `python -m MODULE` is preloaded"
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [".", *filter(None, given)]
    sys.path[:0] = [str(Path(folder).absolute()) for folder in folders]
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def ask(path, arguments):
    """Have the server at `path` run `arguments`; return the exit status."""
    request = json.dumps(
        {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    ).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        return (connection.recv(1) or b"\1")[0]


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(*sys.argv[2:])
    else:
        sys.exit(ask(os.environ[SOCKET], sys.argv[1:]))
