"""One table: command -> "module:function".  Knows names only; whatever a command needs is imported when it runs.

A command takes its words and returns the process's exit code.  Options are no business of this file: `config` reads
them, so that a typing error costs a tenth of a second and no torch.
"""

import codecs
import errno
import io
import locale
import os
import sys
import warnings
from collections.abc import Callable

from tunesmith import language, log

COMMANDS: dict[str, tuple[str, str]] = {
    "train": (
        "tunesmith.jobs.start:train_command",
        "Train a model, as the options of a file and the command line say.",
    ),
    "plan": (
        "tunesmith.jobs.start:plan_command",
        "Check everything a training run needs, read its data, and tell what it would do; load and write nothing.",
    ),
    "chat": ("tunesmith.generate.chat:chat_command", "Talk to a model, or answer one --prompt."),
    "eval": (
        "tunesmith.evaluation.command:eval_command",
        "Ask a model multiple-choice questions and rows of data; compare it with the model it was tuned from.",
    ),
    "export": (
        "tunesmith.export.command:export_command",
        "Merge adapters into their base model and write it, or copy a model.",
    ),
    "inspect": (
        "tunesmith.look.inspect_command:inspect_command",
        "Show what the model will see of the data: tokens, what is trained, totals; or what a template writes.",
    ),
    "lint": ("tunesmith.look.lint_command:lint_command", "Look for what is wrong with the data, and write it mended."),
    "estimate": (
        "tunesmith.look.estimate_command:estimate_command",
        "Say what a run will take of memory, time and money, before it starts: on this machine, or on others.",
    ),
    "doctor": (
        "tunesmith.jobs.start:doctor_command",
        "Try in a minute whether what training promises holds here: on this machine, with this model and these options.",
    ),
    "explain": ("tunesmith.config.explain:explain_command", "Print the help of one option, or the list of all."),
    "schema": ("tunesmith.config.explain:schema_command", "Print the JSON schema of a config file, for editors."),
    "env": ("tunesmith.environment:env_command", "Print what is installed on this machine."),
    "completion": ("tunesmith.completion:completion_command", "Print a completion script: bash, zsh or fish."),
    "version": ("tunesmith.cli:version_command", "Print the version."),
    "help": ("tunesmith.cli:help_command", "Print this, or the help of one command."),
}
"""Command -> where it is, and what it does."""

WITH_OPTIONS = ("train", "plan", "chat", "eval", "export", "inspect", "lint", "estimate", "doctor")
"""Commands that take the options of the config."""

SYNONYMS = {"--help": "help", "-h": "help", "--version": "version", "-V": "version"}

EXIT_CODES = {
    0: "done",
    1: "the run had to stop: a number that is not finite, a folder in use, a failure of the program itself",
    2: "an option, a file of options, a dataset's name or a model's folder is wrong; nothing was started",
    3: "a data file is wrong, or no row can be trained on; `lint` found errors, `inspect --fail-if` a limit passed",
    4: "out of memory",
    5: "an optional package is missing; the message has the command that installs it",
    130: "stopped by Ctrl-C (SIGINT)",
    141: "the reader of the output left, such as `head`",
    143: "stopped by SIGTERM",
}
"""Exit code -> when a command ends with it.  Those of errors are their classes' own."""

INTERRUPTED, BROKEN_PIPE, INTERNAL_ERROR, WRONG_USE = 130, 141, 1, 2

ABOUT_EXIT_CODES = "exit-codes"
"""What `help` explains beside the commands."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, the error's own, 2 for an unknown command, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        if not code and (lost := log.unsaid()) and arguments[:1] != ["train"]:  # what a run says is in its folder, too
            log.error(f"standard output can't be written: {lost.strerror}")
            return INTERNAL_ERROR
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as problem:
        # The reader left (`| head`), or the disk is full; the interpreter's last flush must find somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(problem, BrokenPipeError):
            return BROKEN_PIPE
        log.error(f"standard output can't be written: {problem.strerror}")
        return INTERNAL_ERROR


def _open_streams() -> None:
    """Have standard streams that can be used: closed ones (`>&-`) lead nowhere, or else a file that is opened later would
    take their place; a terminal that lacks a letter is no reason to stop."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if vars(sys)[name] is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            vars(sys)[name] = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> int:
    command, *words = arguments or ["help"]
    command = SYNONYMS.get(command, command)
    language.speak(language.of_words(words))
    if command not in COMMANDS:
        return _unknown(command)
    if command != "help" and any(word in ("--help", "-h") for word in words):
        command, words = "help", [command]
    if command in WITH_OPTIONS and sys.flags.optimize > 1:
        log.error(
            "PYTHONOPTIMIZE: 2 removes the texts that Transformers reads in its own code; set it to 1, or unset it"
        )
        return WRONG_USE
    if command in WITH_OPTIONS and not sys.flags.utf8_mode and codecs.lookup(locale.getencoding()).name == "ascii":
        log.error(
            "PYTHONUTF8: 0 has torch read its own files as ASCII in this locale; unset it, or set LC_ALL to C.UTF-8"
        )
        return WRONG_USE
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")  # what libraries warn of is no failure of a run
    try:
        return _function(command)(words)
    except BrokenPipeError:
        raise
    except Exception as problem:
        return _failure(problem, words)


def _function(command: str) -> Callable[[list[str]], int]:
    import importlib

    module, _, name = COMMANDS[command][0].partition(":")
    return vars(importlib.import_module(module))[name]


def _unknown(command: str) -> int:
    from tunesmith.catalog import did_you_mean

    more = "; the command comes first, such as `tunesmith train FILE`" if os.path.exists(command) else ""
    log.error(f"unknown command '{command}'{more or did_you_mean(command, COMMANDS)}")
    log.error(f"commands: {', '.join(COMMANDS)}")
    return WRONG_USE


def _failure(problem: Exception, words: list[str]) -> int:
    """Say what went wrong in a sentence; where, only on request.  Returns the exit code."""
    from tunesmith import shortage
    from tunesmith.config.load import DEBUG_VARIABLE

    tells_all = os.environ.get(DEBUG_VARIABLE) == "1" or "--debug" in words
    if tells_all:
        import traceback

        sys.stderr.write(log.redacted(traceback.format_exc()))
    if shortage.ran_out(problem):
        log.error(f"out of memory: {shortage.reason(problem)} (--debug shows where)", log.OutOfMemory.exit_code)
        return log.OutOfMemory.exit_code
    if isinstance(problem, log.TunesmithError):
        log.error(str(problem), problem.exit_code)
        return problem.exit_code
    if isinstance(problem, OSError) and (told := _told_of_system(problem)):
        log.error(told)
        return log.RunError.exit_code
    if isinstance(problem, ValueError) and (setting := os.environ.get("TORCH_LOGS")) and "TORCH_LOGS" in str(problem):
        log.error(f"TORCH_LOGS: torch takes no '{setting}'; unset it")
        return WRONG_USE
    text = log.redacted(" ".join(str(problem).split()))[:500]
    if not tells_all:
        log.error(f"internal error: {type(problem).__name__}: {text} (add --debug to see where)")
    return INTERNAL_ERROR


def _told_of_system(problem: OSError) -> str | None:
    """What the system refused, when it says what; None for what only a programmer can mend."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory is not there any more; change to another one"
    if problem.errno == errno.ENOSPC and problem.filename is None:
        return f"can't be written: {problem.strerror}"
    if problem.filename is None or problem.strerror is None:
        return None
    return f"{os.fsdecode(problem.filename)}: {problem.strerror} (--debug shows where)"


def version_command(words: list[str]) -> int:
    """Print the version."""
    from tunesmith import __version__

    print(f"tunesmith {__version__}")
    return 0


def help_command(words: list[str]) -> int:
    """Print the list of commands, the help of the one named, or what exit codes mean."""
    if words == [ABOUT_EXIT_CODES]:
        print("\n".join(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()))
        return 0
    if words:
        command = words[0]
        if command not in COMMANDS:
            return _unknown(command)
        if command in WITH_OPTIONS:
            from tunesmith.config.explain import help_for

            print(help_for(command))
        else:
            print(f"tunesmith {command}: {COMMANDS[command][1]}")
        return 0
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {does}" for command, (_, does) in COMMANDS.items()]
    print("tunesmith fine-tunes language models.\n")
    print("  tunesmith train my.yaml learning_rate=1e-4 --lora_rank 16\n")
    print("\n".join(["Commands:", *lines]))
    print("\n`tunesmith train --help` lists every option; `tunesmith explain lora_rank` explains one.")
    print(f"`tunesmith help {ABOUT_EXIT_CODES}` says what a command ends with.")
    return 0
