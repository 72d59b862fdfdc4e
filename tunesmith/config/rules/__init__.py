"""What may not go together, has no effect, or is not built yet: all rules, in the order in which they are told.

Each rule is a function with its reason; it yields findings that name the options they are about.
"""

from tunesmith.config.rules import augment, built, data, evaluate, export, optim, quantized, start, train, tuning
from tunesmith.config.rules.asked import Asked, Finding, Rule
from tunesmith.config.rules.built import NOT_BUILT, NOT_BUILT_AT_ALL, REFUSED
from tunesmith.config.rules.start import NEEDS
from tunesmith.config.schema import Config

__all__ = ["NEEDS", "NOT_BUILT", "NOT_BUILT_AT_ALL", "REFUSED", "RULES", "Finding", "check"]

RULES: tuple[Rule, ...] = (
    built.not_built,
    built.no_effect_yet,
    start.needed,
    start.names_of_the_catalog,
    start.template_name,
    start.trackers,
    train.steps_are_whole,
    train.no_steps,
    export.export_elsewhere,
    export.hub_of_uploads,
    data.two_evaluation_sets,
    train.two_batch_sizes,
    data.stream,
    train.resume_from_weights_alone,
    tuning.other_methods_options,
    tuning.random_start,
    tuning.rates_of_lora,
    tuning.options_of_one_value,
    optim.losses,
    tuning.dropout_in_attention,
    optim.optimizers,
    tuning.identity_start,
    optim.followed_loss,
    tuning.warmup_ignored,
    quantized.bits_of_the_method,
    quantized.nothing_to_hold,
    quantized.frozen_weights_alone,
    data.sets_of_a_stream,
    augment.augmentation,
    data.evaluation_without_data,
    evaluate.something_to_ask,
    evaluate.evaluate_elsewhere,
    data.answers,
    train.eval_steps_without_strategy,
    train.delay_of_nothing,
    train.last_rows_of_no_batch,
    train.best_without_evaluation,
    train.best_of_nothing,
    train.two_prices,
    train.rank_of_the_launcher,
    train.long_timeout,
)


def check(config: Config, given: frozenset[str], command: str) -> list[Finding]:
    """Everything the rules find, errors and remarks."""
    asked = Asked(config, given, config.flat(), Config().flat(), command)
    return [finding for rule in RULES for finding in rule(asked)]
