"""The story of a run: read, claim, load, train, save, tell.  Each step is one call; the rooms know the rest."""

import gc
import time
from pathlib import Path

from tunesmith.config.load import Loaded
from tunesmith.config.schema import Config
from tunesmith.data.sample import IGNORED
from tunesmith.files import is_full
from tunesmith.jobs import checkpoints
from tunesmith.jobs import folder as runs
from tunesmith.log import OptionError, RunError, note, say, warn
from tunesmith.models.architecture import code_that_runs
from tunesmith.train.foretelling.fitted import FACT, fitted
from tunesmith.train.foretelling.foretold import Foretold, fact, foretell
from tunesmith.train.inputs import Inputs, Place, read_inputs
from tunesmith.train.judging import predict
from tunesmith.train.judging.evaluate import evaluate_all
from tunesmith.train.loop import NonFinite
from tunesmith.train.policy import asked, untuned_model
from tunesmith.train.runtime import Runtime, be_watched
from tunesmith.train.session import Session
from tunesmith.train.stop import Stopped, Stops, as_part, of_sum
from tunesmith.train.telling import summary
from tunesmith.train.telling.events import Record
from tunesmith.train.telling.plot import plot_loss


def run(loaded: Loaded) -> int:
    """Do what the options say; returns the exit code.  Raises TunesmithError for what the user can mend."""
    stops = Stops()
    stops.listen()
    try:
        be_watched(loaded.config.train)
        inputs = read(loaded)
        if loaded.config.train.do_train:
            return train(loaded, inputs, stops)
        return look(loaded, inputs)
    except Stopped as stopped:
        warn("stopped", f"by {stopped}; {'nothing was trained' if stops.is_early else 'training was over'}")
        return 128 + stopped.signum
    except OSError as problem:
        if not is_full(problem):
            raise
        raise RunError(f"the disk is full: {problem}") from problem


def read(loaded: Loaded) -> Inputs:
    """Everything that is needed before weights are: tokenizer, chat format, prepared rows, told in a few lines."""
    inputs = read_inputs(loaded)
    for line in inputs.prepared.report.lines():
        say(line)
    if loaded.config.train.debug:
        show_first(inputs)
    return inputs


def show_first(inputs: Inputs, rows: int = 2) -> None:
    """Note the first samples as the model will read them, and the part of each that is trained."""
    samples, decode = inputs.prepared.train, inputs.tokenizer.decode
    for index in range(min(rows, len(samples))):
        sample = samples[index]
        trained = sample.input_ids[sample.labels != IGNORED]
        note(samples.where(index), f"read as {decode(sample.input_ids)!r}, trained {decode(trained)!r}")


def train(loaded: Loaded, inputs: Inputs, stops: Stops) -> int:
    """Train, from the beginning or from a checkpoint, and write everything into the run's folder."""
    began = time.perf_counter()
    runtime = Runtime(loaded.config.train, loaded.config.model)
    given, loaded = loaded, fitted(loaded, inputs, runtime)
    cfg = loaded.config
    place = claim(loaded, inputs, runtime)
    if runtime.is_main and loaded is not given:
        chosen = {name: value for name, value in cfg.flat().items() if loaded.origins.get(name) == "fit: auto"}
        runs.add_facts(place.folder, **{FACT: chosen})
    status = "failed"
    try:
        with Session(cfg, inputs, runtime, place) as session:
            summary.before(session)
            foretold = note_estimate(session, began)
            stops.wait_for_step()
            stopped = fit(session, stops) or session.finish()
            stops.wait_no_more()
        summary.after(session, stopped is not None)
        note_fact(session, foretold)
        if not stopped and predict.is_asked(cfg):
            del session  # its model makes place for the one that it has written
            gc.collect()
            stopped = of_sum(runtime.sums(as_part(stops.signum))[0])  # that came while the model was written
            stopped = stopped or write_predictions(predict.tuned(cfg, place.folder), inputs, runtime, place.folder)
        status = "interrupted" if stopped else "finished"
    except Stopped:
        status = "interrupted"
        raise
    finally:
        close(place, runtime, cfg, status)
    runtime.close()
    return 128 + stopped if stopped else 0


def note_estimate(session: Session, began: float) -> Foretold | None:
    """Say what the run should take, and keep it in `run.json`; None on ranks that do not speak."""
    if not session.runtime.is_main:
        return None
    foretold = foretell(session, began)
    runs.add_facts(session.place.folder, estimate=foretold.as_dict())
    return foretold


def note_fact(session: Session, foretold: Foretold | None) -> None:
    """Say what it took, and keep that beside the estimate."""
    if foretold is not None:
        runs.add_facts(session.place.folder, fact=fact(session, foretold))


def claim(loaded: Loaded, inputs: Inputs, runtime: Runtime) -> Place:
    """Rank 0 takes the run's folder and notes what is trained; every process learns where it is and what to go on from."""
    taken = runs.claim(loaded.config, loaded.origins) if runtime.is_main else None
    if taken:
        source = inputs.source
        code = code_that_runs(source, loaded.config.model)
        if code:
            note("trust_remote_code", f"these files of {source.folder} run as you: {', '.join(code)}")
        runs.add_facts(
            taken.folder,
            model={"name": source.name, "hub": source.hub, "revision": source.revision, "code": code},
            data={"fingerprint": inputs.prepared.fingerprint, "rows": inputs.prepared.report.read},
        )
    told = runtime.from_main(taken and [str(taken.folder), taken.checkpoint and str(taken.checkpoint)])
    return Place(Path(told[0]), Path(told[1]) if told[1] else None, taken)


def fit(session: Session, stops: Stops) -> int | None:
    """Train; returns the signal that stopped it.  A non-finite number is told with its step, its rows and what is left."""
    try:
        return session.fit(stops).stopped
    except NonFinite as problem:
        found = [row for each in session.runtime.gathered(problem.rows) for row in each]  # it is one on every process
        rows = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
        kept = checkpoints.newest_whole(session.place.folder)
        raise RunError(
            f"step {session.position.step + 1}: {problem}; no weight was moved. Rows of this step: {rows}. "
            + (f"The last good checkpoint is {kept}." if kept else "No checkpoint was saved yet.")
        ) from problem


def close(place: Place, runtime: Runtime, cfg: Config, status: str) -> None:
    """Say in `run.json` how the run ended, and draw its loss however it ended."""
    if runtime.is_main:
        try:
            runs.add_facts(place.folder, status=status, ended=runs.now())
            if cfg.train.plot_loss:
                plot_loss(place.folder)
        except OSError as problem:  # why the run ended is what the user must read
            warn(runs.FACTS, f"{place.folder} can't be written: {problem.strerror}")


def look(loaded: Loaded, inputs: Inputs) -> int:
    """Evaluate a model with its adapters, answer the evaluation rows, or both; no weight is moved."""
    cfg = loaded.config
    runtime = Runtime(cfg.train, cfg.model)
    stopped = None
    if cfg.train.do_eval:
        evaluate(cfg, inputs, runtime)
    if predict.is_asked(cfg):
        told = runtime.from_main(str(runs.place(cfg)) if runtime.is_main else None)
        stopped = write_predictions(cfg, inputs, runtime, Path(told))
    runtime.close()
    return 128 + stopped if stopped else 0


def evaluate(cfg: Config, inputs: Inputs, runtime: Runtime) -> None:
    """Tell the loss on the evaluation data, and write it where there is an `output_dir`."""
    if not inputs.prepared.evals:
        raise OptionError("do_eval: there is nothing to evaluate on; give eval_dataset or val_size")
    longest = inputs.prepared.longest
    model = untuned_model(cfg, inputs.source, inputs.tokenizer, runtime, longest=longest)
    results = evaluate_all(asked(cfg, model, runtime), inputs, runtime, cfg)
    for name, value in results.items():
        say(f"{name}: {value:.6g}")
    if cfg.train.output_dir and runtime.is_main:
        with Record(runs.place(cfg), total_steps=0) as record:
            record.results("eval", results)


def write_predictions(cfg: Config, inputs: Inputs, runtime: Runtime, folder: Path) -> int | None:
    """Answer the evaluation rows with the model that `cfg` names, and write and tell how well; returns the signal that came."""
    found = predict.predict(cfg, inputs, runtime, folder)
    if isinstance(found, int):
        return found
    if runtime.is_main:
        for name, value in (found.evaluated | found.predicted).items():
            say(f"{name}: {value:.6g}")
        with Record(folder, total_steps=0) as record:
            if found.evaluated:
                record.add_results("eval", found.evaluated)
            record.results("predict", found.predicted)
    return None
