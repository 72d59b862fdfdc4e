"""Writes the texts that the demo's tiny model learns from: stories.txt and small_talk.json, from data/grammar/*.toml.

A model of a few million weights can learn a language only when it is simple and regular; so this one is made by a small
grammar, seeded, in English and Chinese.  Run it again after a change of the grammar: `python data/make_corpus.py`.
"""

import json
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent
LANGUAGES = ("english", "chinese")
STORIES_PER_TEMPLATE = 24
SEED = 42

Row = dict[str, str]

_SLOT = re.compile(r"\{(\w+?)(\d?)(?:\.(\w+))?(\^?)\}")
"""`{animal2.eats^}`: a table or list, which of several rows, the column, and whether the first letter is a capital."""


class Grammar:
    """The lists and tables of one language, and the texts they make."""

    def __init__(self, source: Path, seed: int):
        self.rules: dict[str, Any] = tomllib.loads(source.read_text(encoding="utf-8"))
        self.tables = {name: [{"": word} for word in words] for name, words in self.rules["words"].items()}
        self.tables |= {name: _table(text) for name, text in self.rules["tables"].items()}
        self.random = random.Random(seed)

    def fill(self, template: str, chosen: dict[str, Row] | None = None) -> str:
        """The template with its slots filled at random; the same slot is filled the same way."""
        chosen = dict(chosen or {})

        def word(match: re.Match[str]) -> str:
            name, number, column, capital = match.groups()
            text = self._row(name, number, chosen)[column or ""]
            return text[0].upper() + text[1:] if capital else text

        return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", _SLOT.sub(word, template))

    def _row(self, name: str, number: str, chosen: dict[str, Row]) -> Row:
        """The row that `name` and `number` stand for in this text; no two numbers share one."""
        if name + number not in chosen:
            taken = list(chosen.values())
            chosen[name + number] = self.random.choice([row for row in self.tables[name] if row not in taken])
        return chosen[name + number]

    def stories(self) -> Iterator[str]:
        """Short texts, no two alike."""
        for templates in self.rules["stories"].values():
            for template in templates:
                made: dict[str, None] = {}
                for _ in range(STORIES_PER_TEMPLATE):
                    made[self.fill(template)] = None
                yield from made

    def talk(self) -> Iterator[Row]:
        """Questions and answers, each question once."""
        for rule in self.rules["talk"]:
            each = rule.get("each")
            for row in self.tables[each] if each else [{}]:
                for asked in rule["asked"]:
                    chosen = {each: row} if each else {}
                    answered = self.random.choice(rule["answered"])
                    yield {
                        "instruction": self.fill(asked, chosen),
                        "input": "",
                        "output": self.fill(answered, chosen),
                    }


def corpus() -> dict[str, str]:
    """File name -> content."""
    grammars = [Grammar(DATA / "grammar" / f"{language}.toml", SEED) for language in LANGUAGES]
    stories = [story for grammar in grammars for story in grammar.stories()]
    talk = [row for grammar in grammars for row in grammar.talk()]
    random.Random(SEED).shuffle(stories)
    random.Random(SEED).shuffle(talk)
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in talk)
    return {"stories.txt": "\n".join(stories) + "\n", "small_talk.json": f"[\n{rows}\n]\n"}


def _table(text: str) -> list[Row]:
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[1:]]


if __name__ == "__main__":
    for name, content in corpus().items():
        (DATA / name).write_text(content, encoding="utf-8")
        print(f"{name}: {content.count(chr(10))} lines, {len(content.encode()):,} bytes")
