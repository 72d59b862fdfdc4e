"""A conversation: its history, its commands, its mistakes.  The engine here tells what it was asked."""

from collections.abc import Generator, Iterator

import pytest

from tunesmith.generate.chat import HELP, Talk, take_adapter
from tunesmith.generate.sampling import Sampling
from tunesmith.log import OptionError
from tunesmith.templates.conversation import Conversation


class Recorder:
    """An engine that answers every turn with `A1`, `A2`, ... in two pieces and remembers what it was given."""

    def __init__(self, interrupt: bool = False):
        self.asked: list[Conversation] = []
        self.interrupt = interrupt
        self.closed = 0

    def stream(self, conversation: Conversation, sampling: Sampling) -> Generator[str, None, None]:
        self.asked.append(conversation)
        if conversation.messages[-1].content == "too long":
            raise OptionError("prompt: the conversation has 9 tokens; the model reads at most 8")
        try:
            yield "A"
            if self.interrupt:
                raise KeyboardInterrupt
            yield str(len(self.asked))
        finally:
            self.closed += 1

    def texts(self, turn: int) -> list[str]:
        return [f"{message.role[0]}:{message.content}" for message in self.asked[turn].messages]


@pytest.fixture
def engine() -> Recorder:
    return Recorder()


def test_each_turn_sees_the_whole_conversation(engine, capsys):
    assert Talk(engine, Sampling()).hold(iter(["one", "", "  two "])) == 0
    assert capsys.readouterr().out == "A1\nA2\n"
    assert engine.texts(1) == ["u:one", "a:A1", "u:two"]
    assert engine.asked[1].system is None


def test_clear_forgets_the_turns_and_keeps_the_system_prompt(engine, capsys):
    Talk(engine, Sampling()).hold(iter(["/system Be  brief.", "one", "/clear", "two", "/system", "/exit", "three"]))
    assert [engine.texts(0), engine.texts(1)] == [["u:one"], ["u:two"]]
    assert [conversation.system for conversation in engine.asked] == ["Be  brief."] * 2
    output = capsys.readouterr()
    assert output.out == "A1\nA2\n"
    assert output.err.count("system prompt: Be  brief.") == 2


def test_what_begins_with_a_slash_is_a_command_or_a_mistake(engine, capsys):
    assert Talk(engine, Sampling()).hold(iter(["/klear", "/help", " /etc/hosts is a file?", "/exit"])) == 0
    error = capsys.readouterr().err
    assert "there is no /klear; there are /clear, /system, /help, /exit\n" in error
    assert HELP in error
    assert engine.texts(0) == ["u:/etc/hosts is a file?"]


def test_a_failed_turn_leaves_no_trace_but_its_message_and_exit_code(engine, capsys):
    assert Talk(engine, Sampling()).hold(iter(["one", "too long", "two"])) == 2
    assert engine.texts(2) == ["u:one", "a:A1", "u:two"]
    assert "reads at most 8" in capsys.readouterr().err


def test_an_interrupt_stops_the_answer_and_not_the_conversation(capsys):
    engine = Recorder(interrupt=True)
    Talk(engine, Sampling(), patient=True).hold(iter(["one", "two"]))
    assert engine.texts(1) == ["u:one", "a:A", "u:two"]
    assert engine.closed == 2
    assert capsys.readouterr().out == "A\nA\n"


def test_an_interrupt_ends_a_program_that_nobody_types_into():
    engine = Recorder(interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        Talk(engine, Sampling()).hold(iter(["one", "two"]))
    assert engine.closed == 1


def test_an_interrupt_while_printing_stops_the_engine_too(monkeypatch):
    engine = Recorder()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Talk(engine, Sampling()).say("one")
    assert engine.closed == 1


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["HERE", "--model_name_or_path", "b"], "HERE"),
        (["HERE", "--prompt", "x", "--model=b"], "HERE"),
        (["HERE", "--prompt", "model"], None),
        (["nowhere", "--model_name_or_path", "b"], None),
        (["--model_name_or_path", "HERE"], None),
        ([], None),
    ],
)
def test_a_first_folder_beside_a_named_base_is_the_adapter(tmp_path, arguments, place):
    def here(words: list[str]) -> Iterator[str]:
        return (word.replace("HERE", str(tmp_path)) for word in words)

    found, rest = take_adapter([*here(arguments)])
    assert found == (str(tmp_path) if place else None)
    assert rest == [*here(arguments)][1 if place else 0 :]
