"""A run in progress: its model, optimizer, place and record, and what can be done with them between steps.

Knows how to log, evaluate and save; `hooks.py` knows when.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors.torch import save_file

from tunesmith import compiled, files, shortage
from tunesmith.config.schema import Config
from tunesmith.data.batching.ahead import Ahead
from tunesmith.data.batching.batches import Window
from tunesmith.data.batching.pack import Packed
from tunesmith.estimate.free import give_back
from tunesmith.estimate.memory import Memory
from tunesmith.estimate.state import state
from tunesmith.jobs import checkpoints
from tunesmith.jobs import folder as runs
from tunesmith.jobs.watch import HERE
from tunesmith.log import OptionError, OutOfMemory, warn
from tunesmith.models import save
from tunesmith.optim import averaged, build, schedules
from tunesmith.train import checkpoint, compiling, loop, loss_kernel, passes, room
from tunesmith.train.chosen_loss import chosen_loss
from tunesmith.train.foretelling import cheaper, memory, trial
from tunesmith.train.foretelling.cheaper import Situation
from tunesmith.train.hooks import Hooks
from tunesmith.train.inputs import Inputs, Place
from tunesmith.train.judging.answered import Answering
from tunesmith.train.judging.best import best_of, bring_best
from tunesmith.train.judging.evaluate import evaluate_all, mean_loss, try_largest
from tunesmith.train.loop import Step
from tunesmith.train.passes import Passes, Plain, Recorded
from tunesmith.train.policy import asked, layout_of, tuned_model
from tunesmith.train.position import Position, accepted, changes
from tunesmith.train.runtime import Runtime
from tunesmith.train.stop import Interrupted, Stops
from tunesmith.train.telling import trackers
from tunesmith.train.telling.card import Card, write_card
from tunesmith.train.telling.events import NoRecord, Record, speed
from tunesmith.train.telling.progress import Progress
from tunesmith.train.timetable import division, timetable

TRAINED = "trained.safetensors"
"""A checkpoint's trained weights, exact."""


class Session:
    """A run from its first step, or from a checkpoint's, to its end.  Made on every process."""

    def __init__(self, cfg: Config, inputs: Inputs, runtime: Runtime, place: Place):
        self.cfg, self.inputs, self.runtime, self.place = cfg, inputs, runtime, place
        rows = inputs.prepared.train
        isolated = isinstance(rows, Packed) and rows.isolated
        longest = inputs.prepared.longest
        self.model, base = tuned_model(
            cfg, inputs.source, inputs.tokenizer, runtime, isolated=isolated, longest=longest
        )
        give_back()
        self.asked = asked(cfg, self.model, runtime, isolated=isolated)
        self.policy = runtime.prepare(self.asked)
        if cfg.optim.neftune_noise_alpha is not None:
            self.asked.add_noise(cfg.optim.neftune_noise_alpha)
        self._recorder = passes.settle(cfg, self.asked, runtime)
        self.objective, self.loss = chosen_loss(cfg, inputs, self.asked, runtime)
        self.answering = Answering(cfg, inputs, self.asked, runtime)
        self.division = division(cfg, runtime.world_size, padded=not self.asked.ragged, kind=runtime.device.type)
        self.feed = inputs.prepared.feed(self.division)
        self.due = timetable(cfg.train, self.feed.per_epoch, bool(inputs.prepared.evals))
        self.best = best_of(cfg.train, list(inputs.prepared.evals))
        self.optimizer = build.build(self.model, cfg.optim, seed=cfg.train.seed)
        runtime.use(self.optimizer)
        self.schedule = schedules.build(self.optimizer, cfg.optim, self.due.total)
        self._begun = False
        self.memory = self._settle_memory()
        self.checkpoint_bytes = self._settle_room() if runtime.is_main else 0
        compiles = self._settle_compiling()
        kernel = self._settle_loss_kernel()
        self._try_largest()
        give_back()
        runtime.seed("dropout", cfg.train.seed)
        self.position = Position(
            fingerprint=inputs.prepared.fingerprint,
            parts=inputs.prepared.parts,
            base=base,
            step_rows=self.division.window_rows,
            compiled=compiles,
            loss_kernel=kernel,
        )
        if place.checkpoint is not None:
            self.position = self._restore(place.checkpoint)
        HERE.step = self.position.step
        self._stops = Stops()
        self._once_best = self.position.best_step
        self._place_behind = self.position.place
        """The place behind the rows of the step that is being made."""
        self.record = self._open_record() if runtime.is_main else NoRecord()
        self.progress = Progress("training", self.due.total, self.position.step, disable=cfg.train.disable_tqdm)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        compiled.switch_off()
        self.progress.close()
        self.record.__exit__(kind, error, trace)

    def fit(self, stops: Stops) -> Hooks:
        """Train to the end, or until somebody stops it, doing what is due between steps."""
        train, position = self.cfg.train, self.position
        self._stops = stops
        hooks = Hooks(self.due, position, self, loss_limit=train.loss_limit, best=self.best)
        if hooks.start() or hooks.catch_up():
            return hooks
        left = 0 if self.is_given_up else self.due.total - position.step
        windows = itertools.islice(self._built(), left)
        off = "loading_ahead" in self.cfg.model.disable_speedups
        self._begun = True
        with (
            self._telling_what_takes_less(),
            Ahead(windows, 0 if off else max(train.dataloader_num_workers, 1)) as built,
        ):
            loop.fit(
                self._passes(),
                self.policy,
                self.objective,
                self._used(built),
                self.optimizer,
                self.schedule,
                self.runtime,
                self.cfg.optim.max_grad_norm,
                asked_to_stop=stops.asked,
                on_step=hooks.after,
            )
        return hooks

    def _passes(self) -> Passes:
        """What computes micro-batches."""
        plain = Plain(self.policy, self.objective, self.runtime)
        return plain if self._recorder is None else Recorded(plain, self._recorder, self.runtime.device)

    def _built(self) -> Iterator[Window]:
        """This process's windows from the run's place on.  Runs in a thread of its own."""
        step, place, pad_id = self.position.step, self.position.place, self.inputs.tokenizer.pad_token_id
        layout = layout_of(self.asked, trained=True)
        for window in self.feed.windows(step, place, rank=self.runtime.rank, pad_id=pad_id, layout=layout):
            window.batches = [self.runtime.pinned(batch) for batch in window.batches]
            yield window

    def _used(self, windows: Iterable[Window]) -> Iterator[Window]:
        """The windows as steps take them; a checkpoint knows the place behind these, not behind what is built ahead."""
        for window in windows:
            self._place_behind = list(window.place)
            yield window

    # -- what hooks call

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.feed.epochs(self.position.step, self.position.place)

    @property
    def is_given_up(self) -> bool:
        """Whether the run is over before its last step, as evaluation found nothing better for too long."""
        return self.best is not None and self.best.is_given_up(self.position)

    def advance(self, step: Step) -> None:
        """Note where the step's rows ended, and show that it is done."""
        here = self.position
        here.place = self._place_behind
        HERE.step = here.step
        self.progress.advance(here.step, loss=step.loss, lr=step.learning_rate, tokens=here.tokens, epoch=self.epoch)

    def log(self, step: Step, loss: float) -> None:
        """Write a log row; `loss` is the mean of the steps since the last one."""
        here = self.position
        metrics: dict[str, float] = {
            "loss": loss,
            "grad_norm": step.grad_norm,
            "learning_rate": step.learning_rate,
            "epoch": self.epoch,
            "num_input_tokens_seen": here.tokens,
        }
        if self.cfg.train.include_num_input_tokens_seen:
            metrics |= {"num_padded_tokens_seen": here.padded_tokens, "num_loss_tokens_seen": here.loss_tokens}
        self.record.log(here.step, metrics, here.seconds)
        self.progress.report(here.step, loss=loss)

    def evaluate(self) -> dict[str, float]:
        """Loss and scores on each evaluation set, written to the log; returns what `eval_results.json` holds.  Raises
        Interrupted when a signal came."""
        asked = self._stops.asked
        with averaged.meant(self.optimizer):
            losses = evaluate_all(self.asked, self.inputs, self.runtime, self.cfg, asked)
            results = losses | self.answering.results(asked)
        here = self.position
        if here.step and isinstance(self.schedule, schedules.FollowsLoss):
            self.schedule.follow(mean_loss(losses))
        found = {name: value for name, value in results.items() if not name.endswith(("_runtime", "_per_second"))}
        self.record.log(here.step, found | {"epoch": self.epoch, "num_input_tokens_seen": here.tokens}, here.seconds)
        return results

    def save(self) -> None:
        """Publish a checkpoint of this step, and remove those beyond `save_total_limit`."""
        self.position.log_history = self.record.history
        with room.told(self.position.step, self.place.folder, self.checkpoint_bytes):
            saved = checkpoint.save(
                self.place.folder,
                self.position,
                None if self.cfg.train.save_only_model else self.optimizer,
                self.schedule,
                self.runtime,
                self._write_checkpoint,
            )
        if self.runtime.is_main:
            self._keep(self.position.step)
        self.record.event("checkpoint", step=self.position.step, path=saved.name)

    def finish(self) -> int | None:
        """Evaluate once more if the last step did not, and write the tuned model, the results and the state; returns the
        signal that came while it evaluated, after which there is a checkpoint and no more."""
        here = self.position
        if self.inputs.prepared.evals and not here.evaluation:
            try:
                here.evaluation = self.evaluate()
            except Interrupted as interrupted:
                if not self.due.saves_at(here.step):
                    self.save()
                return interrupted.signum
            if self.best:
                self.best.note(here, self.epoch)
        evaluated = {"epoch": self.epoch} | here.evaluation
        if self._return_to_best():
            evaluated = {"epoch": here.best_epoch} | here.best_evaluation
        results: dict[str, float] = {"epoch": self.epoch, "train_loss": here.loss_sum / max(here.step, 1)}
        results |= speed("train", seconds=here.seconds, samples=here.rows, steps=here.step)
        if self.cfg.train.include_num_input_tokens_seen:
            results["num_input_tokens_seen"] = here.tokens
        with room.told(here.step, self.place.folder, self.checkpoint_bytes):
            if self.runtime.is_main:
                self._publish()
            self.record.results("train", results)
            if here.evaluation:
                self.record.results("eval", evaluated)
            if self.runtime.is_main:
                self._introduce()
                # Once more, for a run that was killed between its last checkpoint and this.
                self._keep()
        return None

    def _keep(self, step: int | None = None) -> None:
        """Remove the checkpoints beyond `save_total_limit`, and the one that was saved for being the best and is not any more."""
        folder, best = self.place.folder, self.position.best_step if self.best and self.best.keeps else 0
        checkpoints.keep_newest(folder, self.cfg.train.save_total_limit, step, best=best)
        once, self._once_best = self._once_best, best
        if once not in (0, best) and not self.due.saves_at(once) and (folder / f"checkpoint-{once}").is_dir():
            checkpoints.remove(folder / f"checkpoint-{once}")

    def _return_to_best(self) -> bool:
        """Put the weights of the best checkpoint back, where they are to be the final model; True when they are."""
        here = self.position
        if self.best is None or not self.best.keeps or here.best_value is None:
            return False
        folder = self.place.folder / f"checkpoint-{here.best_step}"
        if here.best_step != here.step:
            if (reason := checkpoints.damage(folder)) is not None:
                warn("save_best_model", f"{folder} is not whole: {reason}; the final model is that of the last step")
                return False
            save.load_trained(self.model, folder / TRAINED)
        return True

    # -- how it is put back and written

    def _restore(self, place: Path) -> Position:
        restored = checkpoint.load(
            place,
            self.optimizer,
            self.schedule,
            self.runtime,
            lambda folder: save.load_trained(self.model, folder / TRAINED),
        )
        if self.best and self.best.keeps and restored.best_value is not None:
            best = self.runtime.is_main and bring_best(restored.best_step, place, self.place.folder)
            if not self.runtime.from_main(best):
                restored.best_value, restored.best_step = None, 0
        changed = changes(restored, self.position)
        if changed and not self.cfg.train.resume_anyway:
            raise OptionError(
                f"{place}: not all is as it was when the run began: {'; '.join(changed)}. Change it back, choose another "
                "output_dir, or set resume_anyway: true"
            )
        if changed:
            warn("resume_anyway", f"going on although {'; '.join(changed)}")
        return accepted(restored, self.position)

    @property
    def situation(self) -> Situation:
        """What decides how much memory a step takes."""
        return Situation(
            self.cfg,
            self.asked,
            self.inputs.stage.objective(),
            self.loss,
            self.optimizer,
            self.runtime,
            self.inputs.prepared,
            self.division,
            self.due.total,
            self.inputs.tokenizer.pad_token_id,
        )

    @contextmanager
    def _telling_what_takes_less(self) -> Iterator[None]:
        """Raise OutOfMemory where memory runs out in the block."""
        try:
            yield
        except Exception as problem:
            found = shortage.found(problem)
            if found is None:
                raise
            when = f"in step {self.position.step + 1}" if self._begun else "before the first step"
            raise OutOfMemory(f"out of memory {when}: {cheaper.advice(self.situation)} ({found})") from problem

    def _settle_memory(self) -> Memory:
        """What a step will take at the most; with `gradient_checkpointing: auto`, made to fit."""
        written = self.cfg.model.gradient_checkpointing
        with self._telling_what_takes_less():
            batch = self.situation.largest_batch()
            plain = self.inputs.stage.objective()
            found = memory.settle(written, self.asked, plain, batch, self.optimizer, self.runtime, self.loss)
        found = found if self._recorder is None else found.recorded()
        cheaper.warn_of_too_little(self.situation, found)
        return found

    def _try_largest(self) -> None:
        """Try the largest micro-batch of training and of evaluation, where that is due."""
        if trial.is_due(self.memory, self.runtime.device):
            with self._telling_what_takes_less():
                batch = self.situation.largest_batch()
                spare = trial.spare_bytes(self.memory, self.runtime.device)
                trial.try_step(self.asked, self.objective, batch, self.optimizer, self.runtime, spare)
            try_largest(self.asked, self.inputs, self.runtime, self.cfg)

    def _settle_room(self) -> int:
        """About what a checkpoint takes on the disk; a warning when those that are planned will not fit."""
        train, tokenizer = self.cfg.train, self.inputs.source.folder / "tokenizer.json"
        kept = 0 if train.save_only_model else state(self.optimizer).kept
        size = room.checkpoint_bytes(self.model, kept, tokenizer.stat().st_size if tokenizer.is_file() else 0)
        went_on = self.place.checkpoint
        done = 0 if went_on is None else checkpoint.read_position(went_on).step
        limit, best = train.save_total_limit, train.save_best_model
        room.warn_of_too_little(self.place.folder, size, self.due, done, limit, keeps_best=best)
        return size

    def _settle_compiling(self) -> bool:
        """Whether functions are compiled: as options say, else as the checkpoint's run did, else where it earns time."""
        went_on = None if self.place.checkpoint is None else checkpoint.read_position(self.place.checkpoint).compiled
        passes = self.due.total / self.due.per_epoch if self.due.per_epoch else None
        return compiling.settle(
            self.cfg.model, self.asked, self.inputs.prepared.report, passes, self.runtime, went_on=went_on
        )

    def _settle_loss_kernel(self) -> str:
        """What computes the loss from hidden states, noted in `run.json` where it was tried."""
        place = self.place.checkpoint
        went_on = None if place is None else checkpoint.read_position(place).loss_kernel
        choice = loss_kernel.settle(self.cfg, self.asked, self.situation.largest_batch, self.runtime, went_on=went_on)
        if self.runtime.is_main and choice.milliseconds:
            runs.add_facts(self.place.folder, loss_kernel=asdict(choice))
        return choice.name

    def _open_record(self) -> Record:
        train, folder = self.cfg.train, self.place.folder
        started = trackers.start(
            train.report_to,
            run_name=train.run_name or folder.name,
            logging_dir=Path(train.logging_dir or folder),
            options=self.cfg.flat(),
            resumed=self.position.step or None,
        )
        return Record(folder, total_steps=self.due.total, history=self.position.log_history, trackers=started)

    def _write_checkpoint(self, folder: Path) -> None:
        """The model as others load it, and the trained weights in the precision they are trained in."""
        self._write_model(folder)
        if not self.cfg.train.save_only_model or (self.best and self.best.keeps):
            save_file(save.save_trained_exact(self.model), folder / TRAINED)
        self._write_state(folder)

    def _publish(self) -> None:
        """Write the model into the run's folder; each file appears whole."""
        made = files.folder_beside(self.place.folder / "model")
        self._write_model(made)
        self._write_state(made)
        runs.remove_other_weights(self.place.folder, made)
        files.publish_files(made, self.place.folder)

    def _introduce(self) -> None:
        """Write the model's card."""
        write_card(
            Card(
                folder=self.place.folder,
                base_model=self.cfg.model.model_name_or_path,
                is_adapter=(self.place.folder / "adapter_config.json").exists(),
                has_chat_template=self.inputs.chat is not None,
                datasets=self.cfg.data.dataset,
                options=self.cfg.flat(),
                results=json.loads((self.place.folder / "all_results.json").read_text(encoding="utf-8")),
                versions=runs.read_facts(self.place.folder)["versions"],
            )
        )

    def _write_model(self, folder: Path) -> None:
        tokenizer, chat = self.inputs.tokenizer, self.inputs.chat
        words = chat.stop_words if chat else ()
        known = tokenizer.get_vocab()
        stops = [tokenizer.eos_token_id, *(known[word] for word in words if word in known)]
        with averaged.meant(self.optimizer):
            save.save_final(
                self.model,
                tokenizer,
                folder,
                chat_template=chat.chat_template() if chat else None,
                stop_token_ids=[stop for stop in dict.fromkeys(stops) if stop is not None],
                bins=self.cfg.train.save_format == "pytorch",
            )

    def _write_state(self, folder: Path) -> None:
        here = self.position
        facts: dict[str, Any] = {
            "global_step": here.step,
            "epoch": self.epoch,
            "num_train_epochs": self.cfg.train.num_train_epochs,
            "num_input_tokens_seen": here.tokens,
            "train_batch_size": self.cfg.train.per_device_train_batch_size,
            "logging_steps": self.due.logging,
            "save_steps": self.due.saving,
            "eval_steps": self.due.evaluating,
        }
        if self.best and here.best_value is not None:
            facts |= {"best_metric": here.best_value, "best_global_step": here.best_step}
            if self.best.keeps:
                facts["best_model_checkpoint"] = str(self.place.folder / f"checkpoint-{here.best_step}")
        self.record.save_state(folder, facts)
