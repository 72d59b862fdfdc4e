"""Languages are guessed from enough text, and from nothing else."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tunesmith.data.faults.languages import WORDS, language

TEXTS = {
    "English": "The river is wide, and the boat that you can see on it is not one of the fast ones.",
    "German": "Der Fluss ist breit, und das Boot, das auf dem Wasser liegt, ist nicht eines von den schnellen.",
    "French": "Le fleuve est large et le bateau que vous voyez sur l'eau n'est pas un des plus rapides pour la course.",
    "Spanish": "El río es ancho y el barco que se ve en el agua no es uno de los más rápidos para la carrera del día.",
    "Italian": "Il fiume è largo e la barca che si vede non è una delle più veloci, ma anche questo è bello per gli altri.",
    "Portuguese": "O rio é largo e o barco que se vê não é um dos mais rápidos para a corrida, mas os outros são.",
    "Dutch": "De rivier is breed en het schip dat je op het water ziet is niet een van de snelste voor deze race.",
    "Polish": "Rzeka jest szeroka i to, co widać na wodzie, nie jest jedną z tych, które się szybko poruszają do celu.",
    "Chinese": "这条河很宽，你看到的那艘船不是最快的。",
    "Japanese": "この川は広くて、あなたが見ている船は一番速い船ではありません。",
    "Korean": "이 강은 넓고 물 위에 보이는 배는 빠르지 않습니다.",
    "Cyrillic": "Река широкая, и лодка, которую вы видите, не самая быстрая.",
    "Arabic": "النهر واسع والقارب الذي تراه ليس الأسرع.",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_sentence_tells_its_language(name: str) -> None:
    assert language(TEXTS[name]) == name


@pytest.mark.parametrize(
    "text", ["", "Yes.", "42", "def add(a, b):\n    return a + b", "好", "x = [1, 2, 3]", "Paris", "SELECT a FROM b;"]
)
def test_too_little_text_tells_none(text: str) -> None:
    assert language(text) is None


def test_a_few_foreign_words_change_nothing() -> None:
    assert language("The word 你好 means hello, and it is one of the first words that you learn.") == "English"
    assert language("使用 transformers 库的 AutoTokenizer 可以把文本转换成模型能够理解的编号。") == "Chinese"


def test_real_rows(shared_data: Path) -> None:
    for name, wanted in (("alpaca_en_demo", "English"), ("alpaca_zh_demo", "Chinese")):
        rows = json.loads((shared_data / "demo" / f"{name}.json").read_text(encoding="utf-8"))
        found = Counter(language(row["output"]) for row in rows)
        assert found[wanted] > 0.7 * len(rows) and sum(found.values()) - found[wanted] - found[None] < 0.03 * len(rows)


def test_each_language_has_words_of_its_own() -> None:
    for name, words in WORDS.items():
        others = {word for other, more in WORDS.items() if other != name for word in more.split()}
        assert len(set(words.split()) - others) >= 8, name
