"""YAML and JSON files -> options as written, each with its line.  Knows the file formats; knows no option."""

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from tunesmith.config.written import Source, Written

MOST_NODES = 100_000
CORE_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}
NOTHING_WRITTEN = ("", "~", "null")
TIMESTAMP = "tag:yaml.org,2002:timestamp"
"""A date such as 2025-03-26: plain text here, as YAML 1.2 has it."""

YAML_WORDS = (
    ("found character '\\t'", "a tab; indent with spaces"),
    ("found duplicate key", "a key is written twice in one mapping"),
    ("expected a single document", "a second document begins; one file holds one"),
    ("could not determine a constructor", "tags (`!...`) are not allowed"),
    ("mapping values are not allowed", "a ':' where none may be; put quotes around text that holds one"),
    ("found undefined alias", "an alias (`*name`) without its anchor (`&name`)"),
    ("while scanning a quoted scalar", "a quote is never closed"),
    ("could not find expected ':'", "a line that is no `option: value`"),
    ("Exceeds the limit", "a number of thousands of digits"),
    ("special characters are not allowed", "a control character; the file is damaged or no text"),
)
"""Part of ruamel's message -> ours."""

TOO_DEEP = "it is nested too deeply"
JSON_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)


def read_yaml(text: str, source: Source) -> list[Written] | None:
    """The options of a YAML file, in its order; None when it can't be read, which is noted."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it; the last one counts
            root = yaml.compose(text)
        return list(_options(root, yaml, source))
    except MarkedYAMLError as problem:
        # A quote that is never closed is found at the end of the file; where it opens is worth more.
        opened = problem.context_mark if "quoted scalar" in str(problem.context) else None
        mark = opened or problem.problem_mark or problem.context_mark
        source.problem(mark.line + 1 if mark else 1, _yaml_words(problem))
    except (YAMLError, ValueError) as problem:
        source.problem(1, _yaml_words(problem))
    except RecursionError:
        source.problem(1, TOO_DEEP)
    return None


def _options(root: Any, yaml: Any, source: Source) -> Iterator[Written]:
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.nodes import MappingNode, ScalarNode

    if root is None or (isinstance(root, ScalarNode) and root.value in NOTHING_WRITTEN):
        return
    if not isinstance(root, MappingNode):
        found = "text" if isinstance(root, ScalarNode) else "a list"
        source.problem(root.start_mark.line + 1, f"must hold `option: value` lines, found {found}")
        return
    if reason := _unfit(MappingNode(root.tag, [])):
        source.problem(root.start_mark.line + 1, reason)
        return
    first: dict[str, int] = {}
    for key_node, value_node in root.value:
        place = source.place(key_node.start_mark.line + 1)
        key = key_node.value
        if not isinstance(key_node, ScalarNode):
            source.problem(place.line, "an option's name must be plain text")
        elif key in first:
            source.problem(place.line, f"'{key}' is given twice, first in line {first[key]}")
        elif reason := _unfit(key_node) or _unfit(value_node):
            source.problem(place.line, f"{key}: {reason}")
        else:
            first[key] = place.line
            try:
                value = yaml.constructor.construct_object(value_node, deep=True)
            except MarkedYAMLError as problem:
                line = problem.problem_mark.line + 1 if problem.problem_mark else place.line
                source.problem(line, f"{key}: {_yaml_words(problem)}")
                continue
            except (ValueError, OverflowError) as problem:
                source.problem(place.line, f"{key}: {_yaml_words(problem)}")
                continue
            except (KeyError, TypeError, AttributeError):  # ruamel's own, for `!!bool x` and `!!int {}`
                source.problem(place.line, f"{key}: not valid YAML: a tag that its value does not suit")
                continue
            yield Written(key.replace("-", "_"), value, place, key, is_text=False)


def _unfit(root: Any) -> str:
    """Why a value can't be taken: a tag, a number in digits that no other place takes, or aliases that repeat themselves.
    Empty when it can."""
    from ruamel.yaml.nodes import ScalarNode

    waiting, seen = [root], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MOST_NODES:
            return "its aliases (`*name`) make it endless or far too large"
        if str(node.tag) == TIMESTAMP:
            node.tag = next(tag for tag in CORE_TAGS if tag.endswith(":str"))
        if str(node.tag) not in CORE_TAGS:
            return f"the tag {str(node.tag).replace('tag:yaml.org,2002:', '!!')} is not allowed"
        if str(node.tag).endswith(":int") and isinstance(node, ScalarNode) and re.search("[_box]", node.value.lower()):
            return f"write the number in plain digits, got {node.value[:60]}"
        if not isinstance(node, ScalarNode):
            for child in node.value:
                waiting += child if isinstance(child, tuple) else [child]
    return ""


def _yaml_words(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    for theirs, ours in YAML_WORDS:
        if theirs in text:
            return f"not valid YAML: {ours}"
    return f"not valid YAML: {text.split(' in ')[0].split('. See')[0][:100]}"


def read_json(text: str, source: Source) -> list[Written] | None:
    """The options of a JSON file, in its order; None when it can't be read, which is noted."""
    try:
        pairs = _plain_values(json.loads(text, object_pairs_hook=_Pairs))
    except json.JSONDecodeError as problem:
        source.problem(problem.lineno, f"not valid JSON: {problem.msg}")
        return None
    except RecursionError:
        source.problem(1, TOO_DEEP)
        return None
    except ValueError:
        # Python reads no number of more than 4300 digits.
        source.problem(1, "not valid JSON: a number of thousands of digits")
        return None
    if not isinstance(pairs, _Pairs):
        source.problem(1, 'must hold {"option": value, ...}')
        return None
    first: dict[str, int] = {}
    found = []
    for (key, value), line in zip(pairs, _key_lines(text), strict=True):
        place = source.place(line)
        if key in first:
            source.problem(place.line, f"'{key}' is given twice, first in line {first[key]}")
            continue
        first[key] = line
        found.append(Written(key.replace("-", "_"), value, place, key, is_text=False))
    return found


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, its keys in order and as often as written."""


def _plain_values(root: Any) -> Any:
    """The outermost object as it is, the values in it as plain mappings and lists."""
    return _Pairs((key, _plain(value)) for key, value in root) if isinstance(root, _Pairs) else root


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(inner) for key, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _key_lines(text: str) -> list[int]:
    """The line of each key of the outermost object of a valid JSON text."""
    lines, depth, last, line, position = [], 0, 0, 1, 0
    for token in JSON_TOKENS.finditer(text):
        line += text.count("\n", position, token.start())
        position = token.start()
        piece = token.group()
        if piece in "{[":
            depth += 1
        elif piece in "}]":
            depth -= 1
        elif piece == ":" and depth == 1:
            lines.append(last)
        elif piece.startswith('"'):
            last = line
    return lines
