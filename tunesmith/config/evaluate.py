"""What `tunesmith eval` asks a model, and what it compares."""

from typing import Literal

from tunesmith.config.section import Count, Section


class EvaluateConfig(Section):
    task: list[str] = []
    """What `eval` asks, comma-separated: files or folders of multiple-choice questions (json, jsonl, csv, parquet), or
    names of the evaluation harness's own tasks, whose data it downloads."""

    task_dir: str = "evaluation"
    """Folder in which a name in `task` is looked for before it is taken for one of the harness's."""

    task_lang: Literal["en", "zh"] | None = None
    """Language of the words around the questions of files. Default: that of `lang` where it is en or zh, else en."""

    n_shot: Count | None = None
    """Solved questions shown before each one, the first of its subject's dev rows. Default: 5, or as many as there are;
    a task of the harness has a default of its own."""

    save_dir: str | None = None
    """Folder for `results.json`: numbers, intervals and each row's answer. One that is there is never written over."""

    compare_base: bool = False
    """Ask the model from which the tuning began the same rows, and tell what was gained and what was forgotten. An
    adapter is switched off for that; a model that was trained whole is loaded a second time, after the first."""

    base_model: str | None = None
    """The model to compare with. Default: the one that the run's folder, or its adapter, names."""
