"""Files and command line -> Config, checked; every problem at once, with its place.  Imports no torch.

Values travel: built-in default -> files (later ones win) -> command line.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import catalog, language, log
from tunesmith.config import compat, documents, foreign, rules, shell, words
from tunesmith.config.checks import Value, check
from tunesmith.config.profiles import profile
from tunesmith.config.schema import SECTIONS, Config, fields
from tunesmith.config.shapes import Unreadable
from tunesmith.config.written import Place, Problems, Source, Word, Written, is_secret

COMMAND_LINE = 1_000_000
"""The command line's layer: above every file."""

CONFIG_SUFFIXES = (".yaml", ".yml", ".json", ".txt", ".sh", ".bat", ".ps1", ".cmd")
LARGEST_FILE_BYTES = 4_000_000
POSITIONAL = {"chat": "model_name_or_path", "eval": "model_name_or_path", "export": "model_name_or_path"}
"""Command -> the option that a word without a name stands for."""

READ_FOR = {"inspect": "train", "lint": "train", "estimate": "train"}
"""Command -> the command whose pasted words it reads too."""

MISTAKEN = (
    ("config.json", ("architectures", "model_type"), "is a model's config.json", "model_name_or_path"),
    ("tokenizer_config.json", ("tokenizer_class", "backend"), "belongs to a model's tokenizer", "model_name_or_path"),
    ("generation_config.json", ("transformers_version",), "belongs to a model", "model_name_or_path"),
    ("adapter_config.json", ("peft_type",), "belongs to an adapter", "adapter_name_or_path"),
    ("tokenizer.json", ("model", "added_tokens"), "is a model's tokenizer", "model_name_or_path"),
)
"""Files that are taken for files of options: name, a key that tells one, what it is, and the option that names its folder."""

QLORA_BITS = 4
"""What `finetuning_type: qlora` means where `quantization_bit` is not written."""

DEBUG_VARIABLE = "TUNESMITH_DEBUG"
"""Set to 1 when tracebacks are wanted, also for processes that are started later."""

PARENT_VARIABLE = "TUNESMITH_PARENT"
"""Set in a worker process, whose parent has read the same options and said every remark."""


@dataclass(frozen=True)
class Loaded:
    """`origins` tells for every option where its value comes from: `default`, `my.yaml:4`, `command line`."""

    config: Config
    origins: dict[str, str]
    given: frozenset[str]
    files: list[Path]


def load(arguments: list[str], command: str) -> Loaded:
    """The config that these command line words, and the files among them, ask for.

    Raises ConfigError (an OptionError) with every problem.  Notes and warnings go to standard error.  Variables set in
    front of a pasted command are set in this process, as a shell would.
    """
    problems = Problems()
    typed = [Word(text, Place(COMMAND_LINE, index)) for index, text in enumerate(arguments, start=1)]
    on_line, others = words.read_words(typed, problems)
    files, extra = _files(others, command, problems)
    environment: dict[str, str] = {}
    sources = [Source(path, layer, problems) for layer, path in enumerate(files)]
    layers = [_read_file(source, command, environment) for source in sources]
    values: dict[str, Value] = {}
    if None in layers:
        problems.doubted.update(rules.NEEDS.get(command, ()))  # they may stand in the file that can't be read
    for written in (*layers, [*on_line, *extra]):
        _lay_over(values, _layer(written or (), problems, command))
    if _only_evaluates(values):
        values["do_train"] = Value(False, values["eval_dataset"].written)
        problems.remark(log.note, "do_train", "false, since only eval_dataset names data")
    if "lang" in values:
        language.speak(values["lang"].value)
    method = values.get("finetuning_type")
    if method is not None and method.value == "qlora":
        values.setdefault("quantization_bit", Value(QLORA_BITS, method.written))
    below = profile(values["profile"].value, problems) if "profile" in values and values["profile"].value else {}
    config = _config({name: entry.value for name, entry in (below | values).items()})
    given = frozenset(values)
    findings = [one for one in rules.check(config, given, command) if not problems.doubted.intersection(one.options)]
    _report(problems, findings, values, command)
    _hide_secrets(values, environment)
    problems.tell(quiet=PARENT_VARIABLE in os.environ)
    os.environ |= environment
    if config.train.debug:
        os.environ[DEBUG_VARIABLE] = "1"
    origins = dict.fromkeys(fields(), "default") | dict.fromkeys(below, f"profile {config.train.profile}")
    origins |= {name: entry.written.origin(name) for name, entry in values.items()}
    return Loaded(config, origins, given, files)


def _only_evaluates(values: dict[str, Value]) -> bool:
    """Whether rows are to be evaluated or answered, and none are named to train on."""
    asked = any(name in values and values[name].value is True for name in ("do_eval", "do_predict"))
    return asked and "eval_dataset" in values and not {"do_train", "dataset"} & {*values}


def _hide_secrets(values: dict[str, Value], environment: dict[str, str]) -> None:
    """Have nothing that is said from here on show a token or a password, whichever way it came."""
    named = {name: entry.value for name, entry in values.items()} | dict(os.environ) | environment
    for name, value in named.items():
        if is_secret(name) and isinstance(value, str):
            log.hide(value)


def _files(others: list[Word], command: str, problems: Problems) -> tuple[list[Path], list[Written]]:
    """Config files among the words without a name, and what else such a word may stand for."""
    files: list[Path] = []
    extra: list[Written] = []
    for word in others:
        path = Path(os.path.expanduser(word.text))
        named_so = path.suffix.lower() in CONFIG_SUFFIXES
        if os.path.isfile(path) or (named_so and command not in POSITIONAL) or words.CONFIG_FILE.fullmatch(word.text):
            if os.path.isfile(path):
                files.append(path)
            else:
                problems.add(word.place, _no_file(word.text, path), *rules.NEEDS.get(command, ()))
        elif command in POSITIONAL and not extra:
            name = POSITIONAL[command]
            extra.append(Written(name, word.text, word.place, f"--{name}", is_text=True))
        elif os.path.isdir(path):
            problems.add(word.place, f"'{word.text}' is a folder, not a config file")
        elif not word.text.strip():
            problems.add(word.place, "an empty word; remove it")
        else:
            name = word.text.strip("-:").replace("-", "_")
            guess = f"; did you mean '--{name}'?" if words.is_known(name) else ""
            problems.add(word.place, f"'{word.text}' is no option and no file{guess}")
    return files, extra


def _no_file(text: str, path: Path) -> str:
    """Why what was named is no config file."""
    if os.path.isdir(path):
        return f"'{text}' is a folder, not a config file"
    if os.path.exists(path):
        return f"'{text}' is a pipe or a device, not a config file"
    if os.path.islink(path):
        return f"'{text}' is a symbolic link that leads nowhere"
    return f"there is no file '{text}'{_near_files(path)}"


def _near_files(path: Path) -> str:
    """`; did you mean 'my.yaml'?`, or the config files that are beside it."""
    try:
        beside = sorted(one.name for one in path.parent.iterdir() if one.suffix.lower() in CONFIG_SUFFIXES)
    except OSError:
        return f"; there is no folder '{path.parent}'"
    if guess := catalog.nearest(path.name, beside):
        return f"; did you mean '{path.parent / guess}'?"
    return f"; '{path.parent}' holds {', '.join(beside[:3])}" if beside else ""


def _read_file(source: Source, command: str, environment: dict[str, str]) -> list[Written] | None:
    """The options of one file: YAML, JSON, or a pasted command, whose variables are added to `environment`.  None when
    it can't be read."""
    text = _text(source)
    if text is None:
        return None
    if asked := language.of_file(text):
        language.speak(asked)  # before anything is wrong
    if source.path.suffix.lower() == ".json":
        if told := _mistaken(source.path, text):
            source.problem(1, told)
            return None
        return documents.read_json(text, source)
    if not shell.looks_like_command(text):
        return documents.read_yaml(text, source)
    try:
        pasted = shell.read_command(text, source)
    except shell.Unclear as problem:
        source.problem(problem.line, str(problem))
        return None
    if pasted.name not in (None, command, READ_FOR.get(command)):
        source.problem(1, f"holds the command '{pasted.name}', not '{command}'")
        return None
    written, others = words.read_words(pasted.words, source.problems)
    for word in others:
        source.problem(word.place.line, f"'{word.text}' is no option; text with spaces needs quotes")
    environment |= pasted.environment
    for name, value in pasted.environment.items():
        source.problems.remark(log.note, str(source.path), f"{name}={value} is set for this run")
    return written


def _mistaken(path: Path, text: str) -> str | None:
    """What a JSON file is that is no file of options, and what to write instead; None where it may be one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not found:
        return None
    folder = path.parent
    for name, keys, what, option in MISTAKEN:
        if path.name == name and any(key in found for key in keys) and not fields().keys() & found.keys():
            return f"{what}, not an options file; write --{option} {folder}"
    about_data = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "cloud_file_name", "script_url"}
    if all(isinstance(one, dict) and about_data & one.keys() for one in found.values()):
        return f"is a list of datasets, not an options file; write --dataset_dir {folder}"
    return None


def _text(source: Source) -> str | None:
    """What the file holds; None when it can't be read, which is noted."""
    try:
        with source.path.open("rb") as stream:
            data = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as problem:
        source.problem(1, f"can't be read: {problem.strerror}")
        return None
    if len(data) > LARGEST_FILE_BYTES:
        source.problem(1, "is too large for a config file")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        source.problem(data.count(b"\n", 0, problem.start) + 1, "is not UTF-8 text; save it as UTF-8")
        return None


def _layer(options: Iterable[Written], problems: Problems, command: str) -> dict[str, Value]:
    """One file's or the command line's values by canonical name.  Two spellings that disagree are a problem."""
    values: dict[str, Value] = {}
    for written in options:
        name = compat.canonical(written.name, command)
        if name not in fields():
            _foreign(written, problems)
            continue
        try:
            entry = check(name, written, problems)
        except Unreadable as problem:
            text = str(problem).split(", got")[0] if is_secret(name) else str(problem)
            problems.add(written.place, f"{written.shown}: {text}", name)
            continue
        if entry is None:
            continue
        before = values.get(name)
        if before is not None and (both := _beside_switch(before, entry)) is not None:
            values[name] = both
        elif before is None or (before.denies and not entry.denies and str(entry.value) not in before.denies):
            values[name] = entry
        elif before.value != entry.value and not (entry.denies and str(before.value) not in entry.denies):
            problems.add(written.place, _contradiction(name, before.written, written), name)
        elif before.denies and entry.denies:
            values[name] = Value(before.value, before.written, before.denies | entry.denies)
    return values


def _beside_switch(one: Value, other: Value) -> Value | None:
    """`use_galore: true` beside `optim: adamw_torch`: elsewhere both are written, and mean one optimizer here; so are
    `fp8: true` beside `bf16: true`, and `use_swanlab: true` beside other trackers or none."""
    for switch, named in ((one, other), (other, one)):
        is_switch = switch.written.name in compat.SWITCHES and named.written.name not in compat.SWITCHES
        if is_switch and isinstance(named.value, str) and (switch.value, named.value) in compat.BESIDE_SWITCHES:
            return Value(compat.BESIDE_SWITCHES[switch.value, named.value], switch.written)
        if switch.written.name == "use_swanlab" and named.written.name == "report_to":
            return Value([*(name for name in named.value if name not in ("none", "swanlab")), "swanlab"], named.written)
        names = (switch.written.name, named.written.name)
        if names in compat.BOTH_SWITCHES and (switch.value, named.value) == names:
            return switch
    return None


def _contradiction(name: str, before: Written, now: Written) -> str:
    line = f" in line {before.place.line}" if before.place.source else ""
    both = f"{now.shown} {now.seen()} contradicts {before.shown} {before.seen()}{line}"
    return f"{both}; both set {name}"


def _lay_over(values: dict[str, Value], layer: dict[str, Value]) -> None:
    for name, entry in layer.items():
        if not (entry.denies and name in values and str(values[name].value) not in entry.denies):
            values[name] = entry


def _foreign(written: Written, problems: Problems) -> None:
    """A name that is none of ours: known elsewhere and without effect, known and not built, or unknown."""
    name = written.name
    if name in foreign.INERT:
        problems.remark(log.warn, name, f"has no effect: {foreign.INERT[name]}")
    elif name not in foreign.UNBUILT:
        words.report_unknown(written.shown, name, written.place, problems)
    elif not _is_harmless(written, foreign.UNBUILT[name]):
        instead = f"; {foreign.INSTEAD[name]}" if name in foreign.INSTEAD else ""
        problems.add(written.place, f"{written.shown}: not built yet{instead}")


def _is_harmless(written: Written, harmless: tuple[Any, ...]) -> bool:
    if not written.is_text:
        return written.value in harmless
    return str(written.value).lower() in {str(one).lower() for one in harmless}


def _config(values: dict[str, Any]) -> Config:
    """The config of values that were checked one by one."""
    flat: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        flat[fields()[name][0]][name] = value
    return Config.model_validate({section: SECTIONS[section](**given) for section, given in flat.items()})


def _report(problems: Problems, findings: list[rules.Finding], values: dict[str, Value], command: str) -> None:
    """What the rules found, errors at the place of the first of their options that was written."""
    for one in findings:
        written = next((values[name].written for name in one.options if name in values), None)
        if one.kind != "error":
            problems.remark(log.warn if one.kind == "warning" else log.note, one.options[0], one.text)
        elif written is None:
            problems.add(Place(COMMAND_LINE, COMMAND_LINE), f"{one.options[0]}: {one.text}")
        else:
            spelled = written.shown if compat.canonical(written.name, command) == one.options[0] else one.options[0]
            problems.add(written.place, f"{spelled}: {one.text}")
