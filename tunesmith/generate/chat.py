"""`tunesmith chat`: a conversation on the terminal or over a pipe.  Knows engines by what they offer, not what they are."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith import shortage
from tunesmith.config.compat import canonical
from tunesmith.config.load import load
from tunesmith.generate.engine import Engine
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.source import settle
from tunesmith.jobs.importing import quickly
from tunesmith.log import OptionError, OutOfMemory, TunesmithError, error, note
from tunesmith.models.complete import check
from tunesmith.models.where import find, find_adapters
from tunesmith.templates.conversation import Conversation, Message

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it."""

HELP = """\
/clear         forget the conversation
/system TEXT   set the system prompt; without TEXT show it
/help          show this
/exit          leave; so does Ctrl-D
A line that should begin with a slash: put a space before it.  Ctrl-C stops an answer."""


def chat_command(arguments: list[str]) -> int:
    """Talk to a model: `tunesmith chat MODEL [--prompt TEXT] [any option of generation]`; returns the exit code."""
    place, arguments = take_adapter(arguments)
    loaded = load(arguments, command="chat")
    cfg = settle(loaded.config, loaded.given, place)
    if cfg.generate.prompt is not None and not cfg.generate.prompt.strip():
        raise OptionError("prompt: is empty; leave it out to have a conversation")
    sampling = Sampling.from_options(cfg.generate, cfg.train.seed)
    source, adapters = find(cfg.model), find_adapters(cfg.model)
    check(source)

    with quickly():  # torch, only once all that is known to be there
        from tunesmith.generate.load import load_engine

    engine, facts = load_engine(source, adapters, cfg.model, cfg.data)
    note("chat", facts)
    typed = cfg.generate.prompt is None and sys.stdin.isatty()
    talk = Talk(engine, sampling, patient=typed)
    try:
        if cfg.generate.prompt is not None:
            talk.say(cfg.generate.prompt)
            return 0
        return talk.hold(_typed_lines() if typed else _piped_lines())
    except KeyboardInterrupt:
        print(flush=True)
        return INTERRUPTED


class Talk:
    """One conversation: what was said, and the commands that change it.  Answers go to standard output as they come.

    `patient`: somebody types, so Ctrl-C stops an answer and not the program.
    """

    def __init__(self, engine: Engine, sampling: Sampling, *, patient: bool = False):
        self._patient = patient
        self._engine = engine
        self._sampling = sampling
        self._system: str | None = None
        self._messages: list[Message] = []

    def hold(self, lines: Iterator[str]) -> int:
        """Answer lines until they end or one says `/exit`; a mistake costs its line, not the conversation."""
        commands: dict[str, Callable[[str], None]] = {
            "/clear": self._clear,
            "/system": self._set_system,
            "/help": lambda _: error(HELP),
        }
        failed = 0
        for line in lines:
            name, _, rest = line.rstrip().partition(" ")
            if name == "/exit":
                break
            if name in commands:
                commands[name](rest.strip())
            elif line.startswith("/"):
                error(f"there is no {name}; there are {', '.join(commands)}, /exit")
            elif line.strip():
                try:
                    self.say(line.strip())
                except TunesmithError as problem:
                    error(str(problem))
                    failed = problem.exit_code
        return failed

    def say(self, text: str) -> None:
        """Answer one user turn.  What an interrupted answer said until then stays in the conversation."""
        turns = [*self._messages, Message("user", text)]
        pieces: list[str] = []
        answer = self._engine.stream(Conversation(turns, system=self._system), self._sampling)
        with contextlib.closing(answer):
            try:
                for piece in answer:
                    pieces.append(piece)
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                if not self._patient:
                    raise
            except Exception as problem:
                found = shortage.found(problem)
                if found is None:
                    raise
                less = "a shorter conversation (/clear) or a smaller max_new_tokens takes less"
                raise OutOfMemory(f"out of memory while answering: {less} ({found})") from problem
        print(flush=True)
        self._messages = [*turns, Message("assistant", "".join(pieces))]

    def _clear(self, _: str) -> None:
        self._messages = []
        note("chat", "the conversation is forgotten")

    def _set_system(self, text: str) -> None:
        self._system = text or self._system
        note("system prompt", self._system or "the template's own")


def take_adapter(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The folder that comes first when a later option names its base model, and the other arguments."""
    options = (word[2:].partition("=")[0].replace("-", "_") for word in arguments[1:] if word.startswith("--"))
    names = {canonical(option) for option in options}
    if "model_name_or_path" in names and Path(arguments[0]).expanduser().is_dir():
        return arguments[0], arguments[1:]
    return None, arguments


def _typed_lines() -> Iterator[str]:
    """Lines from the terminal, with readline's editing and history.  Ctrl-C drops the line, Ctrl-D ends them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it is what changes input()

    error("Say something; /help lists the commands.")
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except EOFError:
            print(file=sys.stderr)
            return


def _piped_lines() -> Iterator[str]:
    """Lines of standard input; what is no UTF-8 there is a question mark in a box."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin:
        yield line.rstrip("\r\n")
