"""Multiple-choice questions asked by lm-evaluation-harness: its prompts, its evaluator, its numbers; the data are ours.
Knows the harness; knows no option and no file."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith.catalog import did_you_mean
from tunesmith.evaluation.measured import Measured
from tunesmith.evaluation.tasks import Question, Task
from tunesmith.log import OptionError, warn
from tunesmith.templates.conversation import ChatFormat, Conversation, Message

ABOUT = {
    "en": "The following are multiple choice questions (with answers){about}.",
    "zh": "以下是{about}单项选择题，请直接给出正确答案的选项。",
}
"""What stands before all questions; MMLU's words, and CMMLU's."""

_SUBJECT = {"en": " about {}", "zh": "关于{}的"}
_ANSWER = {"en": "Answer:", "zh": "答案："}


class Bar(Protocol):
    """What is told how many rows are done, of how many."""

    def rows(self, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class How:
    """How a model is asked.  `chat`: questions are turns of a chat; None: plain text, as the harness's numbers are."""

    lang: str
    n_shot: int | None
    batch_size: int
    limit: int | None
    seed: int
    chat: ChatFormat | None


def find_tasks(names: Sequence[str]) -> list[str]:
    """The harness's own names for those that a user wrote.  Raises OptionError for one that it does not know."""
    known = _manager(True)
    found = []
    for name in names:
        matching = [each for each in (name, RENAMED.get(name, name)) if each in known.all_tasks]
        if not matching:
            raise OptionError(
                f"task: '{name}' is no file, no folder and no task of the evaluation harness"
                f"{did_you_mean(name, known.all_tasks) or '; `lm_eval ls tasks` lists those'}"
            )
        found.append(matching[0])
    return found


def fetch(named: Sequence[str], offline: str | None) -> None:
    """See that the data of the harness's own tasks are on this machine.  `offline`: why the hub is not asked for them; None:
    it is.  Raises OptionError when they are not here, and cannot be fetched."""
    try:
        _load([], named)
    except OptionError as problem:
        if offline is None:
            raise
        raise OptionError(
            f"task: {', '.join(named)}: the data are not on this machine, and the hub cannot be reached: {offline}"
        ) from problem


@cache
def _manager(own: bool) -> TaskManager:
    """What knows the harness's tasks, its `own` too, of which there are so many that it takes seconds to read their names."""
    return TaskManager(include_defaults=own)


RENAMED = {"mmlu_test": "mmlu", "mmlu_validation": "mmlu", "ceval_validation": "ceval-valid", "cmmlu_test": "cmmlu"}
"""LLaMA-Factory's names of tasks -> the harness's."""


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    named: Sequence[str],
    how: How,
    bar: Callable[[], AbstractContextManager[Bar]],
) -> list[Measured]:
    """What the model is worth on each task.  `named`: the harness's own tasks; `bar` makes what shows progress."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    local = {f"{task.name}/{subject}": (task, subject) for task in tasks for subject in task.subjects()}
    definitions = [_definition(name, task, subject, how) for name, (task, subject) in local.items()]
    loaded = _load(definitions, named)
    for name, each in loaded["tasks"].items():
        if name not in local and how.n_shot is not None:
            each.set_config(key="num_fewshot", value=how.n_shot)
        each.set_fewshot_seed(seed=how.seed)
    found = evaluate(
        lm=_Asked(model, tokenizer, how, bar),
        task_dict=loaded,
        limit=how.limit,
        bootstrap_iters=0,
        apply_chat_template=how.chat is not None,
        fewshot_as_multiturn=how.chat is not None,
    )
    samples: Mapping[str, list[dict[str, Any]]] = found["samples"]
    measured = [_of_task(task, samples) for task in tasks]
    for name in samples:
        if name not in local:
            measured += _of_harness(name, samples[name])
    return measured


def _load(definitions: Sequence[dict[str, Any]], named: Sequence[str]) -> Any:
    """The tasks, with their data.  Raises OptionError when the harness cannot fetch those of its own."""
    try:
        return _manager(bool(named)).load([*definitions, *named])
    except (OSError, RuntimeError, ValueError) as problem:  # what datasets and huggingface_hub raise without a network
        if not named:
            raise
        reason = " ".join(str(problem).split())[:200]
        raise OptionError(f"task: the data of {', '.join(named)} cannot be fetched: {reason}") from problem


class _Asked(HFLM):
    """The harness's model around ours, with our progress instead of its bars."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        how: How,
        bar: Callable[[], AbstractContextManager[Bar]],
    ):
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=how.batch_size)
        self._chat, self._bar = how.chat, bar
        self._shown: Bar | None = None
        self._done = self._total = 0

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
        self._done, self._total = 0, len({tuple(asked + answer[:-1]) for _, asked, answer in requests})
        cut = {tuple(asked) for _, asked, answer in requests if len(asked) + len(answer) > self.max_length + 1}
        if cut:
            count, most = f"{len(cut):,}", f"{self.max_length:,}"
            warn(
                "n_shot",
                f"{count} prompts are longer than the {most} tokens that the model reads; their beginning is cut",
            )
        with self._bar() as self._shown:
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _model_call(self, inps: Any, *others: Any, **more: Any) -> Any:
        said = super()._model_call(inps, *others, **more)
        self._done += len(inps)
        if self._shown is not None:
            self._shown.rows(self._done, self._total)
        return said

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if self._chat is None or not add_generation_prompt:
            return str(super().apply_chat_template(chat_history, add_generation_prompt))
        system = next((turn["content"] for turn in chat_history if turn["role"] == "system"), None)
        turns = [Message(turn["role"], turn["content"]) for turn in chat_history if turn["role"] != "system"]  # type: ignore[arg-type]
        return "".join(span.text for span in self._chat.prompt(Conversation(turns, system=system)))


def _definition(name: str, task: Task, subject: str, how: How) -> dict[str, Any]:
    """A subject as a task of the harness, whose data lie in memory."""
    shots = task.shots(subject, how.n_shot)
    splits = {"test": Dataset.from_list([_row(each, how.lang) for each in task.subjects()[subject]])}
    if shots:
        splits["dev"] = Dataset.from_list([_row(each, how.lang) for each in shots])
    return {
        "task": name,
        "custom_dataset": lambda **_: splits,
        "test_split": "test",
        "fewshot_split": "dev" if shots else None,
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": len(shots),
        "output_type": "multiple_choice",
        "description": "description",
        "doc_to_text": "prompt",
        "doc_to_choice": "letters",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _row(question: Question, lang: str) -> dict[str, Any]:
    """The columns that the definition names."""
    subject = question.subject.replace("_", " ")
    about = _SUBJECT[lang].format(subject) if subject else ""
    choices = [f"{letter}. {choice}" for letter, choice in zip(question.letters, question.choices, strict=True)]
    return {
        "description": ABOUT[lang].format(about=about) + "\n\n",
        "prompt": "\n".join([question.text.strip(), *choices, _ANSWER[lang]]),
        "letters": question.letters,
        "gold": question.answer,
    }


def _of_task(task: Task, samples: Mapping[str, list[dict[str, Any]]]) -> Measured:
    """A task's rows, all subjects together."""
    values, rows, groups = [], [], []
    for subject, questions in task.subjects().items():
        for sample in samples[f"{task.name}/{subject}"]:
            question = questions[sample["doc_id"]]
            said = int(np.argmax([float(chance) for chance, _ in sample["filtered_resps"]]))
            values.append(float(sample["acc"]))
            groups.append(subject)
            shown = {"row": question.where, "question": question.text, "wanted": question.letters[question.answer]}
            rows.append(shown | {"said": question.letters[said]})
    return Measured(task.name, "acc", np.array(values), np.ones(len(values)), rows, groups)


def _of_harness(name: str, samples: Sequence[dict[str, Any]]) -> list[Measured]:
    """One of the harness's own tasks: each metric that is a number for each row."""
    kept = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    measured = []
    for metric in samples[0]["metrics"]:
        values = [sample[metric] for sample in kept]
        if all(isinstance(value, (int, float)) for value in values):
            rows = [{"row": f"{name} row {sample['doc_id'] + 1}", "question": str(sample["arguments"][0][0])[-300:],
                     "wanted": str(sample["target"]), "said": str(sample["filtered_resps"])[:300]} for sample in kept]  # fmt: skip
            measured.append(Measured(name, metric, np.array(values, dtype=float), np.ones(len(values)), rows))
    return measured
