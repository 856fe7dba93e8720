"""What a run keeps: its state while it trains, the encoder at the end; and mending it."""

import contextlib
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from headwise import augment, rng
from headwise.data import Images, Splits
from headwise.data.record import changes, drawn_otherwise, moved, read_record, write_record
from headwise.errors import UserError
from headwise.model import checkpoint, export
from headwise.model.build import start_encoder
from headwise.model.checkpoint import TrainState
from headwise.model.config import ResolvedConfig
from headwise.model.config_file import config_json
from headwise.model.own_parts import keep_code
from headwise.runs.directory import Run
from headwise.runtime import distributed
from headwise.runtime.interrupts import Interrupted
from headwise.runtime.workers import WorkerDied

log = logging.getLogger("headwise")


def begin(
    config: ResolvedConfig, run: Run, images: Splits, train: Images, origin: Run | None
) -> None:
    """Write what a run knows before its first step. `origin`: the run that it extends."""
    Run.create(run.path, config_json(config), config.device)
    write_record(run.path, images)
    keep_code(config, run.path)
    keep_start(config, run, origin)
    write_sheet(config, run, train)


def keep_start(config: ResolvedConfig, run: Run, origin: Run | None = None) -> None:
    """Write start.safetensors, if the run starts from weights and does not have it."""
    path = run.path / export.START_FILE
    if not path.exists() and (first := start_encoder(config, origin)) is not None:
        export.save_encoder(first, config.encoder, config.augment, path, config.data)


def save(config: ResolvedConfig, run: Run, state: TrainState) -> None:
    directory = run.path / "checkpoints"
    checkpoint.save(state, directory, keep=config.keep_checkpoints, run_id=run.id)


@contextlib.contextmanager
def saved_if_a_worker_dies(
    config: ResolvedConfig, run: Run, state: TrainState
) -> Generator[None, None, None]:
    """If a decoding worker dies, save the state and raise `Interrupted`."""
    try:
        yield
    except WorkerDied as died:
        if distributed.rank() == 0 and all(p.isfinite().all() for p in state.model.parameters()):
            save(config, run, state)
        raise Interrupted(
            f"{died}; {run.path} is saved at step {state.step}; go on with: {run.continued_with}",
            died.exit_code,
        ) from None


def finish(config: ResolvedConfig, model: Any, run: Run) -> Run:
    """Write the encoder and DONE, in the first rank."""
    if distributed.rank() == 0:
        path = run.path / export.ENCODER_FILE
        export.save_encoder(model.encoder, config.encoder, config.augment, path, config.data)
        run.finish(export.file_digest(path))
    distributed.barrier()
    return run


def is_whole(run: Run) -> bool:
    """Whether a finished run has its encoder, and the last checkpoint is not damaged."""
    path = run.path / export.ENCODER_FILE
    return path.is_file() and not export.made_by_another(path) and is_sound(run)


def is_sound(run: Run) -> bool:
    """Whether the newest checkpoint, if there is one, is not damaged."""
    path = checkpoint.latest(run.path / "checkpoints")
    try:
        return path is None or checkpoint.check(path, run) is None
    except checkpoint.DamagedCheckpoint:
        return False


def mend(config: ResolvedConfig, run: Run, images: Images, damaged: list[Path]) -> None:
    """Remove what a process that was killed left, and make what it did not write. Warn if the end
    will not be bit for bit that of an undisturbed run."""
    begun, now = run.threads, torch.get_num_threads()
    if config.device == "cpu" and begun not in (None, now):
        log.warning(
            "%s was begun with %s threads of torch and goes on with %d, which changes the last "
            "digits of its numbers; --threads %s keeps them",
            run.path,
            begun,
            now,
            begun,
        )
    checkpoint.set_aside(damaged)
    run.remove_temporaries()
    (run.path / "DONE").unlink(missing_ok=True)
    if not run.has_environment:
        owner = checkpoint.owner_of_newest(run.path / "checkpoints")
        run.write_environment(config.device, owner)
    keep_start(config, run)
    if not (run.path / "views.png").exists():
        write_sheet(config, run, images)


def refuse_other_images(folder: Path, images: Splits) -> None:
    """Raise `UserError` if a run or a comparison cannot go on with these images to the end that it
    would have had."""
    if found := changes(folder, images):
        raise UserError(
            f"{folder} must go on with the images that it began with; they have changed: {found}; "
            "put them back, say with --data where they are now, or begin anew with another --out"
        )
    if drawn_otherwise(folder, images):
        raise UserError(
            f"{folder} was begun by version 0.1, which drew other training images; "
            "begin anew with another --out"
        )


def keep_record(folder: Path, images: Splits, moved_to: str | None, *, begun: bool) -> None:
    """Write images.json where a run that has not `begun` lacks it, and the images' new place."""
    if moved_to is not None:
        moved(folder, moved_to)
    if not begun and read_record(folder) is None:
        write_record(folder, images)


def write_sheet(config: ResolvedConfig, run: Run, images: Images) -> None:
    """Write views.png."""
    seed = rng.seed_at(config.seed, "sheet")
    augment.write_sheet(images, config.augment, run.path / "views.png", seed)
