"""Every name a user may write leads somewhere, and a wrong name gets the list and its nearest neighbour."""

from importlib.util import find_spec

import pytest

from tunesmith import catalog
from tunesmith.config import rules
from tunesmith.config.schema import fields
from tunesmith.config.shapes import shape_of
from tunesmith.log import OptionError

ENTRIES = [(kind, name) for kind, table in catalog.TABLES.items() for name in table]


@pytest.mark.parametrize("kind", catalog.TABLES)
def test_every_entry_imports(kind):
    for name in catalog.names(kind):
        if (package := catalog.TABLES[kind][name].split(":")[0].split(".")[0]) in catalog.EXTRAS and find_spec(
            package
        ) is None:
            continue
        assert catalog.find(kind, name) is not None


def test_a_template_is_called_what_the_catalog_calls_it():
    for name in catalog.names("template"):
        assert catalog.find("template", name).name == name


def test_case_does_not_matter():
    assert catalog.check("optimizer", "AdamW_Torch") == "adamw_torch"
    assert catalog.find("optimizer", "SGD").__name__ == "SGD"


@pytest.mark.parametrize("kind", catalog.TABLES)
def test_an_unknown_name_gets_help(kind):
    name = catalog.names(kind)[-1]
    with pytest.raises(OptionError) as caught:
        catalog.find(kind, name + "x")
    assert f"unknown {catalog.KINDS[kind][1]} '{name}x'; did you mean '" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_and_choices_agree():
    """What the catalog has and what is declared not built are together all that the option allows."""
    for kind, option in (("stage", "stage"), ("tuning", "finetuning_type")):
        assert {*catalog.names(kind), *rules.NOT_BUILT[option]} == set(shape_of(option).choices)
    for kind in ("optimizer", "schedule"):
        option = catalog.KINDS[kind][0]
        assert fields()[option][1].default in catalog.names(kind)
    assert not set(rules.REFUSED["optim"]) & set(catalog.names("optimizer"))


def test_every_optimizer_and_schedule_of_transformers_is_known():
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    known = {*catalog.names("optimizer"), *rules.REFUSED["optim"]}
    assert {name.value for name in OptimizerNames} <= known
    assert {name.value for name in SchedulerType} == set(catalog.names("schedule"))


def test_every_optimizer_of_torch_is_listed_or_left_out_with_a_reason():
    import torch

    classes = {name for name, one in vars(torch.optim).items() if isinstance(one, type) and name != "Optimizer"}
    listed = {place.split(":")[1] for place in catalog.OPTIMIZERS.values()}
    assert classes - listed == {"LBFGS", "SparseAdam"}


@pytest.mark.parametrize(
    ("wrong", "known", "right"),
    [
        ("learning_rte", ["learning_rate", "lora_rank"], "learning_rate"),
        ("LEARNING-RATE", ["learning_rate"], "learning_rate"),
        ("rank_lora", ["lora_rank", "local_rank"], "lora_rank"),
        ("learn", ["lora", "learning_rate"], "learning_rate"),
        ("xyzzy", ["learning_rate", "seed"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name(wrong, known, right):
    assert catalog.nearest(wrong, known) == right
