"""Commands as a user types them, each in a process of its own that has the libraries already.

A fresh interpreter spends seconds of every command on imports. Here one interpreter imports the libraries, and forks
for every command: the command has its own arguments, folder, environment, output and end, and no state of another.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

#: What commands import and what takes longest. Importing them starts no thread.
_LIBRARIES = ("hydra", "numba", "numpy", "torch", "transformers", "peft", "sklearn.cluster", "pytorch_lightning")
_LONGEST = 300  # seconds until a command is killed


def run_command(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python` with these arguments, `file.py ...` or `-m module ...`, in a folder; return how it ended.

    Args:
        environment: all variables of the process, those of this process by default. What a library reads when it is
            imported is as it was when the first command ran: a test of such a variable needs a fresh interpreter.
    """
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        server = _server(os.getpid())
        assert server.stdin is not None and server.stdout is not None
        request = [words, str(cwd), dict(os.environ if environment is None else environment), *map(str, files)]
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, *(file.read_text() for file in files))


@functools.cache
def _server(_owner: int) -> subprocess.Popen[str]:
    """Start the interpreter that forks, once for each process that asks."""
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # the end of its input ends it
    return server


def _serve() -> None:
    """Answer each request with the exit code of its command, negative for a signal."""
    for library in _LIBRARIES:
        importlib.import_module(library)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(*json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(words: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    """Be the command, as a fresh interpreter would be; does not return."""
    signal.alarm(_LONGEST)
    for number, name in enumerate((os.devnull, out, err)):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    code: object = 1
    try:
        _run(words)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _run(words: list[str]) -> None:
    if words[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(words[0]).parent), words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
