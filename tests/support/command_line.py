"""Commands as a user types them, each in a process of its own that has the libraries already.

A fresh interpreter spends seconds of every command on imports. Here one interpreter imports the libraries, and forks
for every command: the command has its own arguments, folder, environment, output and end, and no state of another.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import types
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: What commands import and what takes longest. Importing them starts no thread.
_LIBRARIES = (
    *("hydra", "numba", "numpy", "torch", "transformers", "peft", "sklearn.cluster", "pytorch_lightning"),
    *("lm_eval.evaluator", "submitit"),
)
_LONGEST = 300  # seconds until a command is killed


def run_command(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python` with these arguments, `file.py ...` or `-m module ...`, in a folder; return how it ended.

    Args:
        environment: all variables of the process, those of this process by default. What a library reads when it is
            imported is as it was when the first command ran: a test of such a variable needs a fresh interpreter.
    """
    command = Command(*arguments, cwd=cwd, environment=environment)
    return subprocess.CompletedProcess(command.words, command.wait(), command.output(), command.errors())


class Command:
    """A command that runs, `file.py ...`, `-m module ...` or `-c code ...`: a process to look at, signal and kill."""

    def __init__(self, *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        self.words = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder)
        self._out, self._err, told = (Path(folder, name) for name in ("out", "err", "told"))
        os.mkfifo(told)
        server = _server(os.getpid())
        assert server.stdin is not None
        variables = dict(os.environ if environment is None else environment)
        request = [str(told), self.words, str(cwd), variables, str(self._out), str(self._err)]
        print(json.dumps(request), file=server.stdin, flush=True)
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115 -- open as long as the process lives
        weakref.finalize(self, self._told.close)
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the command runs."""
        return self.wait(0)

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for the end, no longer than this; return the exit code, or None while the command runs."""
        if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def output(self) -> str:
        """Return what it has written to standard output."""
        return self._out.read_text()

    def errors(self) -> str:
        """Return what it has written to standard error."""
        return self._err.read_text()


@functools.cache
def _server(_owner: int) -> subprocess.Popen[str]:
    """Start the interpreter that forks, once for each process that asks."""
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    atexit.register(server.communicate)  # the end of its input ends it
    return server


def _serve() -> None:
    """Start a command for each request."""
    gc.disable()  # a search for garbage in what is imported finds nothing, and takes seconds
    for library in _LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # nor does a command search there, which would copy the pages besides
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if not os.fork():
            _keep(*json.loads(line))


def _keep(told: str, *command: Any) -> None:
    """Start a command, tell its process id and later its exit code, negative for a signal; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        _become(*command)
    with open(told, "w") as answers:
        print(child, file=answers, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    os._exit(0)


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
    tempfile.tempdir = None  # as this environment names it
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
    if words[0] == "-c":
        sys.path[0], sys.argv = "", ["-c", *words[2:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif words[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(words[0]).parent), words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
