"""A pasted command is read as a guide prints it, not as a shell would; what can't be read names its line."""

from pathlib import Path

import pytest

from tunesmith.config import shell
from tunesmith.config.written import Problems, Source

SOURCE = Source(Path("x.txt"), 0, Problems())


def words(text: str) -> list[tuple[str, int]]:
    return [(word.text, word.place.line) for word in shell.read_command(text, SOURCE).words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tunesmith train --seed 1", [("--seed", 1), ("1", 1)]),
        (
            "tunesmith train \\\n  --seed 1 \\\n --lora_rank 2\n",
            [("--seed", 2), ("1", 2), ("--lora_rank", 3), ("2", 3)],
        ),
        ("tunesmith train \\ \r\n--seed \\\t\r\n1", [("--seed", 2), ("1", 3)]),
        ("# one \\\ntunesmith train \\\n# two \\\n--seed 1 # three\n", [("--seed", 4), ("1", 4)]),
        ("tunesmith train --seed \\ # why\n1", [("--seed", 1), ("1", 2)]),
        ("tunesmith train --x 'a b' \"c d\" e\\ f", [("--x", 1), ("a b", 1), ("c d", 1), ("e f", 1)]),
        ('tunesmith train --x "a \\"b\\" \'c\'" \'d"e\'', [("--x", 1), ("a \"b\" 'c'", 1), ('d"e', 1)]),
        ("tunesmith train --x pre'fix 'post", [("--x", 1), ("prefix post", 1)]),
        ("tunesmith train --x ''", [("--x", 1), ("", 1)]),
        ("tunesmith train --x saves\\a\\train_1\\new", [("--x", 1), ("saves\\a\\train_1\\new", 1)]),
        ("tunesmith train --x C:\\a\\ --y", [("--x", 1), ("C:\\a\\", 1), ("--y", 1)]),
        ("tunesmith train --x '.*\\.(q|k)_proj$'", [("--x", 1), (".*\\.(q|k)_proj$", 1)]),
        ("tunesmith train --x 你好\u3000世界 '一 二'", [("--x", 1), ("你好", 1), ("世界", 1), ("一 二", 1)]),
        ("tunesmith train --x Zoë’s", [("--x", 1), ("Zoë’s", 1)]),
        ("tunesmith train --x a#b", [("--x", 1), ("a#b", 1)]),
        ("tunesmith train ^\n--x 1 `\n--y 2", [("--x", 2), ("1", 2), ("--y", 3), ("2", 3)]),
        ("```sh\ntunesmith train --x 1\n```\n", [("--x", 2), ("1", 2)]),
    ],
)
def test_words_and_their_lines(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "environment", "name"),
    [
        ("llamafactory-cli train --x 1", {}, "train"),
        ("$ llamafactory-cli train --x 1", {}, "train"),
        ("! /usr/bin/tunesmith chat --x 1", {}, "chat"),
        ("python -m tunesmith train --x 1", {}, "train"),
        ("A=1 B='x y' tunesmith train --x 1", {"A": "1", "B": "x y"}, "train"),
        ("export A=1 \\\n tunesmith train --x 1", {"A": "1"}, "train"),
        ("--x 1", {}, None),
        ("tunesmith --x 1", {}, None),
    ],
)
def test_what_stands_before_the_options(text, environment, name):
    assert shell.looks_like_command(text)
    command = shell.read_command(text, SOURCE)
    assert (command.environment, command.name) == (environment, name)
    assert [word.text for word in command.words] == ["--x", "1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tunesmith train \\\n --x 'a", "2: a ' is never closed"),
        ("tunesmith train --x “a”", '1: “ is a typographic quote; write " instead'),
        ("tunesmith train \\\n--x $HOME/a", "2: $HOME is not filled in here; write its value"),
        ('tunesmith train --x "${HOME}/a"', "1: ${HOME} is not filled in here; write its value"),
        ("tunesmith train --x 1\n\ntunesmith train --x 2", "3: a second command; a file may hold one"),
        ("python train.py --x 1", "1: a command must begin with tunesmith or llamafactory-cli"),
        ("export A=1\n", "1: holds no command"),
    ],
)
def test_what_cannot_be_read(text, line):
    with pytest.raises(shell.Unclear) as caught:
        shell.read_command(text, SOURCE)
    assert f"{caught.value.line}: {caught.value}" == line


@pytest.mark.parametrize(
    "text", ["seed: 1\n", "--- \nseed: 1\n", "# tunesmith train\nseed: 1\n", "{a: 1}", "", "python: 3"]
)
def test_yaml_is_no_command(text):
    assert not shell.looks_like_command(text)
