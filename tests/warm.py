"""Runs `tunesmith` commands of many shells without importing torch for each.  Knows processes; knows no command.

A `Warm` process imports the heavy libraries once and forks for each command.  Shells find it through a small program
named `tunesmith` on their PATH, which passes on words, folder, environment and standard streams, and ends with the same
exit code.  `torchrun`, this repository's scripts, and the processes that commands start with Python come from there too;
whatever else is asked of that Python is done by the real one.  Signals reach the small program only, so what is to be
proven of them needs processes of its own.
"""

import json
import os
import runpy
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from surroundings import REPOSITORY

CLIENT = """\
#!{python} -SE
import json, os, socket, sys
own = sys.argv[1:3] == ["-m", "tunesmith"] or sys.argv[1:] and os.path.abspath(sys.argv[1]).startswith({scripts!r})
if {name!r} == "python" and not own:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    words = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(line, [len(words).to_bytes(4, "big")], [0, 1, 2])
    line.sendall(words)
    sys.exit(int(line.recv(16)))
"""

PROGRAMS = ("tunesmith", "llamafactory-cli", "torchrun", "python")

HEAVY = (
    "matplotlib.pyplot",
    "multiprocessing.resource_tracker",
    "multiprocessing.spawn",
    "transformers.models.qwen2.modeling_qwen2",
    "tunesmith.cli",
    "tunesmith.generate.load",
    "tunesmith.models.tuning.lora",
    "tunesmith.train.run",
)
"""What most commands import, and what remembers where the real Python is."""


class Warm:
    """The warm process, from its start to its end."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        """`folder` gets the socket and `bin/`, to be put on a shell's PATH; `environment` is what commands live in."""
        self.bin, address = folder / "bin", folder / "socket"
        self.bin.mkdir(parents=True)
        scripts = f"{REPOSITORY}{os.sep}"
        for name in PROGRAMS:
            program = self.bin / name
            text = CLIENT.format(python=sys.executable, address=str(address), name=name, scripts=scripts)
            program.write_text(text, encoding="utf-8")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.environment = environment | {
            "PATH": f"{self.bin}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        }
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(address)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout and self._server.stdout.readline() == b"ready\n", "the warm process did not start"

    def run(
        self, script: str, folder: Path, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in `folder`; it stops at the first command that fails.  Both streams come as one."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=timeout,
        )

    def close(self) -> None:
        """End the process."""
        self._server.communicate()


def serve(address: str) -> None:
    """Import what is heavy, then answer commands, each in a process of its own, until standard input is closed."""
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        while door in select.select([door, sys.stdin], [], [])[0]:
            line, _ = door.accept()
            if not os.fork():
                answer(line, Path(address).with_name("bin"))
            line.close()


def answer(line: socket.socket, programs: Path) -> None:
    """Run one command in a child of this process, and say how it ended.  It is killed when the program that asked is."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(line, 4, 3)
    wanted, text = int.from_bytes(size, "big"), b""
    while len(text) < wanted:
        text += line.recv(1 << 16)
    ended, lives = os.pipe()
    child = os.fork()
    if not child:
        os.close(ended)
        name, *question = json.loads(text)
        command(*question, streams, {"python": interpret, "torchrun": torchrun}.get(name), programs / "python")
    os.close(lives)
    for stream in streams:
        os.close(stream)
    if ended not in select.select([ended, line], [], [])[0]:
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    line.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def command(
    words: list[str],
    folder: str,
    environment: dict[str, str],
    streams: list[int],
    program: Callable[[list[str]], int | None] | None = None,
    python: Path | None = None,
) -> None:
    """Be the command: its streams, folder and environment are those of the program that asked.  `program`: what takes the
    words, if not `tunesmith`; `python`: what it starts processes with, if not the real one."""
    from tunesmith.cli import main

    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    # Python asked the streams it began with whether they can seek; these may differ.
    sys.stdout, sys.stderr, sys.stdin = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1), os.fdopen(0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["tunesmith", *words]
    sys.executable = str(python or sys.executable)
    try:
        code = (program or main)(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def interpret(words: list[str]) -> None:
    """Be Python: `-m MODULE WORD...` or `FILE WORD...`."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


def torchrun(words: list[str]) -> None:
    """Be torchrun."""
    from torch.distributed.run import main

    sys.argv = ["torchrun", *words]
    main(words)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children are nobody's business
    serve(sys.argv[1])
