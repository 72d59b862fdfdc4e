"""What evaluation says of answers while a model is trained: the model in memory answers, and its answers are scored.  Knows
rows and answers; knows not when it is asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from peft import PeftModel
from transformers import PreTrainedModel

from tunesmith.config.schema import Config
from tunesmith.generate.batched import Prompt, answers
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import TransformersEngine
from tunesmith.log import note
from tunesmith.models.predict import Predictor
from tunesmith.train.inputs import Inputs
from tunesmith.train.judging.predict import Results, questions, rows_of, scorable, scored, wanted
from tunesmith.train.policy import attention
from tunesmith.train.runtime import Runtime
from tunesmith.train.stop import Interrupted, as_part, of_sum
from tunesmith.train.telling.progress import Progress


class Answering:
    """Answers the evaluation rows with a model that is being trained, as often as it is asked.  Made on every process."""

    def __init__(self, cfg: Config, inputs: Inputs, policy: Predictor, runtime: Runtime):
        self.cfg, self.inputs, self.policy, self.runtime = cfg, inputs, policy, runtime
        self.names = scorable(wanted(cfg), "eval") if inputs.prepared.evals else []
        self.asked = questions(inputs.prepared.evals) if self.names else []
        if self.names:
            note(
                "metrics",
                f"{', '.join(self.names)}: {len(self.asked):,} rows are answered at each evaluation, with at most "
                f"{cfg.generate.max_new_tokens:,} tokens each",
            )

    def results(self, asked_to_stop: Callable[[], int | None]) -> Results:
        """The scores under the names that `eval_results.json` has for them; the same on every process.  Raises Interrupted on
        all when `asked_to_stop`, asked behind each answer, names a signal on one."""
        if not self.names:
            return {}
        said: dict[int, str] = {}
        found = self.runtime.gathered(self._answer(asked_to_stop))
        for each, _ in found:
            said |= each
        if signum := of_sum(sum(as_part(stop) for _, stop in found)):
            raise Interrupted(signum)
        rows = rows_of(self.inputs, self.asked, said, self.cfg.generate.skip_special_tokens)
        return scored("eval", self.names, self.asked, list(rows), self.inputs.prepared.labels)

    def _answer(self, asked_to_stop: Callable[[], int | None]) -> tuple[dict[int, str], int | None]:
        """This process's share of the answers, by the rows' numbers, and the signal that ended it early."""
        cfg, inputs, runtime = self.cfg, self.inputs, self.runtime
        model = self.policy.model
        stop_words = inputs.chat.stop_words if inputs.chat else ()
        # Prompts are tokens already, so nothing is encoded.
        engine = TransformersEngine(model, inputs.tokenizer, lambda conversation: (), stop_words)
        numbers = range(runtime.rank, len(self.asked), runtime.world_size)
        prompts = [Prompt(number, self.asked[number].prompt) for number in numbers]
        sampling = Sampling.from_options(cfg.generate, cfg.train.seed)
        said, stop = dict[int, str](), None
        with (
            Progress("answering", len(prompts), disable=cfg.train.disable_tqdm) as progress,
            _asked_step_by_step(model, attention(cfg, inputs.source, runtime)),
            runtime.autocast(),
        ):
            made = answers(engine, prompts, sampling, batch_size=cfg.train.per_device_eval_batch_size)
            for done, answer in enumerate(made, start=1):
                said[answer.number] = answer.text
                progress.advance(done)
                if stop := asked_to_stop():
                    break
        return said, stop


@contextmanager
def _asked_step_by_step(model: PreTrainedModel | PeftModel, plain: str) -> Iterator[None]:
    """The attention that knows masks and a cache, and then the one that was."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    now = causal.config._attn_implementation
    if now != plain:
        causal.set_attn_implementation(plain)
    try:
        yield
    finally:
        if now != plain:
            causal.set_attn_implementation(now)
