"""The words that a command takes beside the options."""

import pytest

from tunesmith.config.explain import help_for
from tunesmith.config.own_words import OWN_WORDS, take
from tunesmith.config.words import is_known
from tunesmith.log import OptionError


def test_own_words_are_taken_and_options_stay():
    words = [
        "my.yaml",
        "--row",
        "7",
        "--ids",
        "cutoff_len=64",
        "--html=out.html",
        "--template",
        "qwen",
        "--fail_if",
        "cut>0",
    ]
    assert take("inspect", words) == (
        {"row": "7", "ids": "", "html": "out.html", "fail-if": "cut>0"},
        ["my.yaml", "cutoff_len=64", "--template", "qwen"],
    )


def test_no_own_word_is_an_option_too():
    for command, words in OWN_WORDS.items():
        assert not [word.name for word in words if is_known(word.name.replace("-", "_"))], command


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--row"], "--row: needs a value: --row N,N"),
        (["--html", "--ids"], "--html: needs a value: --html FILE"),
        (["--row="], "--row: needs a value: --row N,N"),
        (["--json=yes"], "--json: takes no value, got 'yes'"),
        (["--ids", "--ids"], "--ids: given twice"),
        (["--htlm", "x"], "unknown option '--htlm'; did you mean '--html'?"),
        (["--conversation", "x"], "unknown option '--conversation'; did you mean '--conversations'?"),
    ],
)
def test_what_cannot_be_meant_is_said(words, problem):
    with pytest.raises(OptionError) as caught:
        take("inspect", words)
    assert str(caught.value) == problem


@pytest.mark.parametrize("word", ["--cutof_len", "--learning_rte", "--no-packing", "--zzz"])
def test_other_words_are_left_to_the_options(word):
    assert take("inspect", [word]) == ({}, [word])


def test_help_lists_them_first():
    text = help_for("inspect")
    assert text.index("--fail-if LIMITS") < text.index("--cutoff_len")
    assert "Its own words" not in help_for("train")
