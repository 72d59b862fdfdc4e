"""Wrongly decoded text is put right; other text is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.faults.broken_text import is_lost, unscrambled, unseen, without_unseen

ORDINARY = [
    "plain",
    "café, naïve, Müller, Ångström, señor, œuvre, ÉTÉ",
    "É…", "Ä“", "résumé”…", "NÃO", "“à la carte”… 20 °C", "«Où?»", "à « gauche »", "5 € – 10 £", "São Paulo—Brasil",
    "你好，世界。今天天气很好，我们一起去公园散步吧。", "联通联通联通联通", "東京は日本の首都です。", "안녕하세요 세계",
    "Привет, мир!", "Ελληνικά", "שלום", "नमस्ते", "😀👍🏽", "x² ± ½ ≤ √2 · 10³ µm",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert unscrambled(text) == text and not is_lost(text) and unseen(text) == []


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize(
    "text", ["café", "Müller", "don’t", "“quoted”", "20 °C", "你好世界", "Привет", "😀", "naïve “déjà vu” – 5 €"]
)
def test_utf8_read_as_western_european_is_put_right(text: str, encoding: str) -> None:
    shown = "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode())
    assert shown != text and unscrambled(shown) == text


@pytest.mark.parametrize("text", ["你好", "今天天气很好", "今天天气很好 OK\n你好"])
def test_utf8_read_as_gbk_is_put_right(text: str) -> None:
    shown = text.encode().decode("gbk")
    assert shown != text and unscrambled(shown) == text and not is_lost(shown)


def test_a_torn_character_is_lost() -> None:
    shown = "你好啊".encode().decode("gbk", "ignore")
    assert is_lost(shown) and unscrambled(shown) == shown
    assert is_lost("what\ufffd") and is_lost("锟斤拷")


def test_characters_that_nobody_sees() -> None:
    text = "\ufeffHello\u200b \x00world\n\t"
    assert unseen(text) == ["\\ufeff", "\\u200b", "\\x00"] and without_unseen(text) == "Hello world\n\t"


@given(st.text(alphabet="abcxyzéèàâüöäñçßøåÉÄÖÜÃÂÑ “”’…–«».,!?\n", max_size=40))
def test_letters_and_signs_of_european_languages_stay(text: str) -> None:
    assert unscrambled(text) == text
