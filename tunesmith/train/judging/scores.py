"""How near answers come to what was wanted: BLEU by sacrebleu, ROUGE by rouge-score, and counts of equal words.  Knows
texts; knows no model and no option.

Words are what white space and punctuation part; Chinese, which has no spaces, is taken by characters, or by the words that
jieba finds where it is installed.  Means are over rows, each from 0 to 1.
"""

import importlib.util
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from tunesmith.log import MissingExtra

PACKAGES = ("sacrebleu", "rouge_score")

HOW = "pip install 'tunesmith[metrics]'"

ROUGES = {"rouge1": "rouge-1", "rouge2": "rouge-2", "rougeL": "rouge-l"}
"""What rouge-score calls them -> what results do."""

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}]+|[^\W{_HAN}]+|[^\w\s]")
_AROUND = re.compile(r"^[\W_]+|[\W_]+$")
_CHINESE = re.compile(rf"[{_HAN}]")


def missing() -> bool:
    """Whether a package is that BLEU and ROUGE come from."""
    return any(importlib.util.find_spec(package) is None for package in PACKAGES)


def require(option: str) -> None:
    """Raise MissingExtra when what `option` asks for can't be counted here."""
    if missing():
        raise MissingExtra(f"{option}: BLEU and ROUGE need packages: {HOW}")


def words(text: str) -> list[str]:
    """A text's words and marks, in lower case."""
    found: list[str] = []
    for part in _WORD.findall(text.lower()):
        found += _chinese_words()(part) if _CHINESE.match(part) else [part]
    return found


def exact_match(said: str, wanted: str) -> float:
    """1 when both are the same text, white space around it aside."""
    return float(said.strip() == wanted.strip())


def f1(said: str, wanted: str) -> float:
    """The harmonic mean of precision and recall of words, each as often as it is there (as for SQuAD, arXiv:1606.05250)."""
    ours, theirs = words(said), words(wanted)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if ours and theirs else float(ours == theirs)


def bleu(said: str, wanted: str) -> float:
    """sacrebleu's BLEU of one sentence, up to four words in a row, smoothed."""
    from sacrebleu import sentence_bleu

    return float(sentence_bleu(" ".join(words(said)), [" ".join(words(wanted))], tokenize="none").score) / 100


def rouge(said: str, wanted: str) -> dict[str, float]:
    """rouge-score's F of words, of pairs of words, and of the longest common row of words."""
    found = _rouge_scorer().score(wanted, said)  # type: ignore[attr-defined]
    return {name: float(found[theirs].fmeasure) for theirs, name in ROUGES.items()}


def macro_f1(pairs: Sequence[tuple[str, str]], labels: Sequence[str]) -> float:
    """The mean over labels that were said or wanted of each one's F1: 2 hits / (times said + times wanted).  An answer that
    is no label is one that was missed."""
    said, wanted = Counter[str](), Counter[str]()
    hits = Counter[str]()
    for answer, truth in pairs:
        found, true = label_of(answer, labels), label_of(truth, labels)
        said.update([found] if found else [])
        wanted.update([true] if true else [])
        hits.update([true] if true and found == true else [])
    seen = [label for label in labels if said[label] or wanted[label]]
    return sum(2 * hits[label] / (said[label] + wanted[label]) for label in seen) / max(len(seen), 1)


def label_of(answer: str, labels: Sequence[str]) -> str | None:
    """The label that an answer is, case, white space and marks around it aside; None when it is none."""
    plain = {_bare(label): label for label in labels}
    return plain.get(_bare(answer))


def _bare(text: str) -> str:
    return _AROUND.sub("", text).casefold()


def mean_scores(pairs: Sequence[tuple[str, str]], names: Sequence[str], labels: Sequence[str] = ()) -> dict[str, float]:
    """The mean over pairs of what was said and what was wanted, of each of `names`: exact_match, f1, bleu, rouge.  `bleu` is
    called `bleu-4`, and `rouge` makes three; `f1` is `macro_f1` where there are labels.  Raises MissingExtra when a package
    is."""
    if {"bleu", "rouge"} & set(names):
        require("metrics")
    sums: Counter[str] = Counter()
    for said, wanted in pairs:
        for name in names:
            sums.update(_SCORES[name](said, wanted))
    means = {name: value / len(pairs) for name, value in sums.items()}
    return means | {"f1": macro_f1(pairs, labels)} if labels and "f1" in names else means


_SCORES: dict[str, Callable[[str, str], dict[str, float]]] = {
    "exact_match": lambda said, wanted: {"exact_match": exact_match(said, wanted)},
    "f1": lambda said, wanted: {"f1": f1(said, wanted)},
    "bleu": lambda said, wanted: {"bleu-4": bleu(said, wanted)},
    "rouge": rouge,
}


class _Words:
    """`words` in the shape that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@lru_cache(maxsize=1)
def _rouge_scorer() -> object:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGES), tokenizer=_Words())


@lru_cache(maxsize=1)
def _chinese_words() -> Callable[[str], list[str]]:
    """What makes words of Chinese."""
    if importlib.util.find_spec("jieba") is None:
        return list
    import jieba

    jieba.setLogLevel(logging.WARNING)
    cut: Callable[[str], list[str]] = jieba.lcut
    return cut
