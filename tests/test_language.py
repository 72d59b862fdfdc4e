"""Chinese texts: every message has one, values and places stay, and the language is chosen as asked."""

import re
from pathlib import Path

import english
import pytest

from tunesmith import cli, language, log

PACKAGE = Path(log.__file__).parent
WORD = re.compile(r"(?<![\w.`'/<{-])[A-Za-z][a-z']*(?![\w.`/>}=(-]|: \w+`)")


def erased(text: str) -> str:
    """A text whose holes are all of one kind."""
    return english.HOLE.sub("{}", text)


def endings(text: str) -> list[str]:
    """The text, and what is left of it behind each place (`{}: `, `val_size: `) at its beginning."""
    found = [text]
    while ": " in found[-1]:
        place, _, rest = found[-1].partition(": ")
        if len(WORD.findall(erased(place).replace("{}", " "))) > 1 or (" " in place and not place.startswith("{")):
            break
        found.append(rest)
    glued = re.fullmatch(r"\{\}([a-z].*)", text)
    return [*found, glued[1]] if glued else found


def needs_chinese(text: str) -> bool:
    """Whether it holds words, not only names, values and punctuation."""
    return len(WORD.findall(re.sub(r"`[^`]*`", "", erased(text).replace("{}", " ")))) > 1


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every text that a user may read -> a place that tells it."""
    return english.sentences(PACKAGE)


def test_every_message_has_a_chinese_text(texts):
    known = {erased(pattern) for pattern in language.table()}
    sentences = {text: place for text, place in texts.items() if needs_chinese(endings(text)[-1])}
    missing = {text: place for text, place in sentences.items() if known.isdisjoint(map(erased, endings(text)))}
    assert not missing, "these have no Chinese text in tunesmith/chinese"


def test_no_chinese_text_is_left_over(texts):
    told = {erased(ending) for text in texts for ending in endings(text)}
    left = [pattern for pattern in language.table() if english.letters(pattern) and erased(pattern) not in told]
    assert set(left) <= PUT_TOGETHER, "these are told nowhere (any more)"


PUT_TOGETHER = {
    "command line: {text}",
    "{} problem{s}; nothing was started.",
    "and {} more of this kind",
    "{text} or {text}",
    "{text} or {}",
    "true or false or {text}",
    "true or false or {}",
    "{}: not built yet",
    "write `{}`",
    "rank {} ({text}) was ended by {}, most likely for its memory; {text}",
    "rank {} ({text}) was ended by {}; {text}",
    "rank {} ({text}) is gone without a word: it was killed, most likely for its memory; {text}",
    "rank {} ({text}) does not answer for {} s; {text}; {text}",
    "rank {} ({text}) stands still: others have waited for it for {} s (ddp_timeout); {text}",
    "rank {} did not come to the others within {} s (ddp_timeout)",
    "rank {} has lost the other processes: {text}",
    "process {} on {}",
    "before it was heard of",
    "its last step was {}",
    "it had not made a step",
    "it was stopped by a signal such as SIGSTOP",
    "it waits for a disk or a device",
    "it is stopped or out of reach",
    "It was last seen here:",
}
"""Patterns of texts that are put together from parts where they are told."""


def test_words_that_are_put_in_are_translated_too(texts):
    """A hole that the source fills with words of ours is `{text}` in the table as well."""
    for text in texts:
        for ending in endings(text):
            for pattern in language.table():
                if erased(pattern) == erased(ending):
                    kinds = zip(english.HOLE.findall(ending), english.HOLE.findall(pattern), strict=True)
                    assert all(mine == "{text}" for its, mine in kinds if its == "{text}"), f"{pattern} for {ending}"


def test_a_chinese_text_places_each_value_once_and_keeps_names():
    for pattern, sentence in language.table().items():
        holes = [hole for hole in english.HOLE.findall(pattern) if hole != "{s}"]
        assert sorted(re.findall(r"\{(\d)\}", sentence)) == [str(number) for number in range(len(holes))], pattern
        assert not english.HOLE.search(sentence), pattern
        for name in re.findall(r"`[^`{}]+`|--\w+|\w+_\w+", erased(pattern)):
            assert name in sentence, f"{name} is a name and stays: {pattern}"


CHINESE = {"TUNESMITH_LANG": "", "LC_ALL": "zh_CN.UTF-8"}

YAML = """\
model_name_or_path: nowhere/model
dataset: nothing
lora_rank: "8"
learning_rte: 1e-4
stage: sftt
val_size: 0,5
"""

IN_CHINESE = """\
my.yaml:3: lora_rank: 必须是整数，实际为 文本 '8'；请去掉引号
my.yaml:4: 未知选项 'learning_rte'；是否想写 'learning_rate'？
my.yaml:5: stage: 必须是以下之一: pt, sft, rm, dpo, kto, ppo, grpo，实际为 'sftt'；是否想写 'sft'？
my.yaml:6: val_size: 必须是数字，实际为 文本 '0,5'；小数点请写 '.'
共 4 个问题；未启动任何任务。
"""


@pytest.fixture
def in_english():
    """Leave no language behind."""
    yield
    log.translate_with(None)


def test_the_option_the_file_and_the_environment_choose(run_cli, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(YAML)
    for words, env in (
        ([], CHINESE),
        (["--lang", "zh"], {}),
        (["lang=zh"], {"LC_ALL": "de_DE"}),
        ([], {"TUNESMITH_LANG": "zh"}),
    ):
        result = run_cli("train", "my.yaml", *words, env=env)
        assert result.returncode == 2
        assert result.stderr == IN_CHINESE
    plain = run_cli("train", "my.yaml", "--lang", "en", env=CHINESE)
    assert plain.returncode == 2
    assert "my.yaml:4: unknown option 'learning_rte'; did you mean 'learning_rate'?" in plain.stderr.splitlines()
    file.write_text(YAML + "lang: zh\n")
    assert run_cli("train", "my.yaml").stderr == IN_CHINESE
    file.write_text("lang: zh\ndataset: [a\n")
    assert run_cli("train", "my.yaml").stderr.startswith("my.yaml:3: 不是有效的 YAML: ")


def test_a_locale_of_another_language_is_english(monkeypatch):
    for name in language.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert language.of_surroundings() == "en"
    for value, expected in (("zh_CN.UTF-8", "zh"), ("zh_TW", "zh"), ("C", "en"), ("fr_FR.UTF-8", "en")):
        monkeypatch.setenv("LANG", value)
        assert language.of_surroundings() == expected
    monkeypatch.setenv("LC_ALL", "zh_CN")
    assert language.of_surroundings() == "zh"
    monkeypatch.setenv("TUNESMITH_LANG", "en")
    assert language.of_surroundings() == "en"


def test_a_language_that_is_not_there_is_refused(run_cli):
    result = run_cli("train", "--lang", "fr")
    assert result.returncode == 2
    assert "command line: --lang: must be one of auto, en, zh, got 'fr'" in result.stderr.splitlines()


def test_a_terminal_without_chinese_gets_english(run_cli):
    result = run_cli("trian", env=CHINESE | {"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 2
    assert result.stderr.startswith("unknown command 'trian'; did you mean 'train'?")


@pytest.mark.parametrize(
    ("english_text", "in_chinese"),
    [
        ("a sentence that nobody translated", "a sentence that nobody translated"),
        ("x.yaml:1: a: b: nobody knows it", "x.yaml:1: a: b: nobody knows it"),
        ("warning: seed: is empty; write a value", "警告: seed: 为空；请写一个值"),
        ("a b.yaml:7: lr: must be above 0, got -inf", "a b.yaml:7: lr: 必须大于 0，实际为 -inf"),
        # Values stay, also those that say what a sentence of ours says.
        ("unknown option 'not built yet'", "未知选项 'not built yet'"),
        ("there is no file 'is empty; write a value'", "文件 'is empty; write a value' 不存在"),
    ],
)
def test_sentences(english_text, in_chinese):
    assert language.chinese(english_text) == in_chinese


def test_every_value_is_found_again_in_the_chinese():
    """A value is lost by no pattern, whatever the order in which Chinese places it."""
    for pattern in language.table():
        values = [f"⟦{number}⟧" for number in range(pattern.count("{}") + pattern.count("{text}"))]
        left = iter(values)
        told = english.HOLE.sub(lambda hole, left=left: "" if hole[0] == "{s}" else next(left), pattern)
        found = language.chinese(told)
        assert all(value in found for value in values), pattern


def test_notes_and_errors_are_told_in_chinese_also_to_listeners(capsys, in_english, monkeypatch):
    heard: list[str] = []
    stop = log.listen(heard.append)
    monkeypatch.setattr(language, "_shows_chinese", lambda: True)
    language.speak("zh")
    log.note("seed", "is empty; write a value")
    log.error("command line: --seed: given twice\n1 problem; nothing was started.")
    stop()
    assert (
        capsys.readouterr().err
        == "提示: seed: 为空；请写一个值\n命令行: --seed: 重复给出\n共 1 个问题；未启动任何任务。\n"
    )
    assert heard[0] == "提示: seed: 为空；请写一个值"


ERRORS = [
    ("train --seed", 2, "命令行: --seed: 缺少值"),
    ("train nothing.yaml", 2, "命令行: 文件 'nothing.yaml' 不存在；'.' 中有 "),
    ("train --learning_rate -1", 2, "命令行: --learning_rate: 必须大于 0，实际为 -1"),
    (
        "train optim=adamx",
        2,
        "命令行: optim: 未知的 optimizer 'adamx'；是否想写 'adamax'？可用值: `tunesmith explain optim` ",
    ),
    ("train --streaming", 2, "命令行: --streaming: 需要设置 max_steps"),
    ("train my.yaml", 2, "my.yaml:1: 不是有效的 YAML: 含有制表符；请用空格缩进"),
    ("trian", 2, "未知命令 'trian'；是否想写 'train'？"),
    ("explain lora_rnk", 2, "explain: 未知选项 'lora_rnk'；是否想写 'lora_rank'？"),
    ("inspect --row", 2, "--row: 缺少值: --row N,N"),
    (
        "lint dataset=nobody",
        2,
        "dataset: 'nobody' 不是文件，也没有登记数据集名称的 data/dataset_info.json（dataset_dir）",
    ),
    ("lint dataset=half.json", 3, "half.json: 第 1 行第 "),
    ("lint dataset=empty.json", 3, "empty.json: 没有任何数据行"),
    ("lint dataset=twice.csv", 3, "twice.csv: 第 1 行中列名 'a' 重复"),
    ("lint dataset=rows.odd", 3, "rows.odd: 未知的文件类型；支持 "),
]


@pytest.mark.parametrize(("command", "code", "beginning"), ERRORS)
def test_errors_of_commands(command, code, beginning, tmp_path, monkeypatch, capsys, in_english):
    files = {
        "my.yaml": "\tseed: 1",
        "half.json": '[{"text": "a"}',
        "empty.json": "[]",
        "twice.csv": "a,a\n1,2\n",
        "rows.odd": "a",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == code
    in_english_words = capsys.readouterr().err
    monkeypatch.setenv("TUNESMITH_LANG", "zh")
    assert cli.main(command.split()) == code
    told = capsys.readouterr().err
    assert any(line.startswith(beginning) for line in told.splitlines()), told
    assert len(told.splitlines()) == len(in_english_words.splitlines())


@pytest.mark.parametrize(
    "part", ["x: ", "a, b; ", "is ", "must be ", "unknown option '", "{} holds {} is ' ", "has no , and more; "]
)
def test_no_line_is_read_for_ever(part):
    """A line in which many patterns could begin is read in few tries: this ends, or it hangs."""
    assert language.chinese(part * 200)
