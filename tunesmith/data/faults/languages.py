"""Which language a text is in, guessed from its letters and its commonest words.  Knows letters and words; knows no row.

Meant for telling that an answer is in another language than its question; a text that says too little has none.
"""

import re
from collections import Counter

LETTERS: dict[str, str] = {
    "Japanese": r"[぀-ヿ]",
    "Korean": r"[가-힯]",
    "Chinese": r"[㐀-鿿]",
    "Cyrillic": r"[Ѐ-ӿ]",
    "Arabic": r"[؀-ۿ]",
    "Hebrew": r"[֐-׿]",
    "Greek": r"[Ͱ-Ͽ]",
    "Devanagari": r"[ऀ-ॿ]",
    "Thai": r"[฀-๿]",
}
"""Languages, or scripts of several, that their letters tell."""

WORDS: dict[str, str] = {
    "English": "the of and to in is that for it with as are this be on by you or from have not which was can will a an do no",
    "German": "der die das und ist nicht ein eine zu den mit von auf für sich dem des es im auch wie oder wird sind werden",
    "French": "le la les et est des une un dans que pour qui sur pas avec ce il au du sont vous par ou être cette",
    "Spanish": "el la los las y es de que en un una por con para no se su como más del al son este lo o",
    "Italian": "il la le e è di che un una per non con sono si del della nel come più anche gli questo dei da ma",
    "Portuguese": "o a os as e é de que um uma não para com por em se do da no na mais como são ao dos",
    "Dutch": "de het een en van is dat niet op te met voor zijn in aan er om ook als maar bij door wordt naar deze",
    "Polish": "i w na się nie jest że z do to jak o co po dla od są czy przez być tego oraz lub może ich",
    "Turkish": "ve bir bu için ile da de çok olarak daha gibi olan ne kadar en değil sonra ya her ama var veya",
    "Vietnamese": "là và của có không cho một các được trong với những này người để khi đã từ về như",
}
"""Commonest words of languages in Latin letters."""

MOST_CHARACTERS = 2000
"""How much of a text is looked at."""
FEWEST_LETTERS, FEWEST_WORDS = 6, 5
"""Letters of a script, or common words of a language, below which nothing is guessed."""

_LETTERS = {name: re.compile(letters) for name, letters in LETTERS.items()}
_LATIN = re.compile(r"[a-zß-öø-ɏḀ-ỿ]+")
_LANGUAGES: dict[str, tuple[str, ...]] = {}
for _name, _words in WORDS.items():
    for _word in _words.split():
        _LANGUAGES[_word] = (*_LANGUAGES.get(_word, ()), _name)


def language(text: str) -> str | None:
    """The language of a text, or its script where that has several; None when there is too little of one."""
    text = text[:MOST_CHARACTERS].lower()
    if not text.isascii():
        found = _by_letters(text)
        if found is not None:
            return found
    hits = Counter(name for word in _LATIN.findall(text) for name in _LANGUAGES.get(word, ()))
    (best, count), (_, second) = [*hits.most_common(2), ("", 0), ("", 0)][:2]
    return best if count >= FEWEST_WORDS and count >= 2 * second else None


def _by_letters(text: str) -> str | None:
    """The script of most letters, where that tells something.  Japanese and Korean are written with Chinese characters
    too, and technical text of any language with Latin words."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _LETTERS.items()}
    for name in ("Japanese", "Korean"):
        if counts[name] >= FEWEST_LETTERS and 4 * counts[name] >= counts["Chinese"]:
            counts[name] += counts["Chinese"]
            counts["Chinese"] = 0
    best = max(counts, key=lambda name: counts[name])
    latin = sum(map(len, _LATIN.findall(text)))
    return best if counts[best] >= FEWEST_LETTERS and 4 * counts[best] >= latin else None
