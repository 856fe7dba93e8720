"""Pretraining: a step, and the loop around it."""

import dataclasses
import logging
import time
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from headwise import heads, rng
from headwise.augment import view_batches
from headwise.data import Given, Images, given_splits, open_images
from headwise.data.record import described, located
from headwise.encoders import build as encoders
from headwise.errors import UserError
from headwise.model import checkpoint
from headwise.model.build import build_model, start_encoder
from headwise.model.checkpoint import TrainState
from headwise.model.config import PretrainConfig, ResolvedConfig, check_count, resolve
from headwise.model.contrastive import Outputs
from headwise.model.objective import ClassTargets, class_direction_loss, class_targets, contrastive
from headwise.model.optim import build_optimizer, schedule
from headwise.model.own_parts import complete, handed_of, with_own
from headwise.model.trained import load_config, read_model
from headwise.own_code import Own
from headwise.pretraining import extension, kept, monitoring
from headwise.runs.directory import Run, refuse_existing
from headwise.runs.lock import writing
from headwise.runtime import distributed, hardware
from headwise.runtime.interrupts import Interrupted, stop_requests
from headwise.runtime.progress import progress

log = logging.getLogger("headwise")

# Collapse is judged over an epoch, or over as many epochs as make this many steps.
_COLLAPSE_STEPS = 50


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    images: Given | None = None,
    *,
    head: Own | None = None,
    encoder: Own | None = None,
    loss: Own | None = None,
    augment: Own | None = None,
    extends: str | Path | Run | None = None,
    until: int | None = None,
    quiet: bool = False,
) -> Run:
    """Pretrain an encoder under a projection head; `out` becomes the run directory.

    `head`, `encoder`, `loss` and `augment` are functions or modules of your own, in place of those
    that `config` names (docs/own.md).
    `images` saves opening `config.data` again; where they are others, the run says so in its
    config.json and images.json. `extends`: a finished run, whose weights, optimizer and epochs this
    one begins with (`extension`). `until`: return after this epoch, for `resume` to go on from.
    Nothing is written before everything is checked.
    Raises `UserError` for settings that cannot work and for a loss that is not finite,
    `Interrupted` after SIGTERM or Ctrl-C, when the state is saved.
    """
    refuse_existing(out := Path(out))
    config = with_own(config, head=head, encoder=encoder, loss=loss, augment=augment)
    origin = None if extends is None else Run.open(extends)
    config = config if origin is None else extension.extended(config, origin)
    with distributed.process_group(hardware.resolve_device(config.device)):
        if images is None:
            place = extension.located_data(config, origin)
            images = open_images(place, check=lambda listed: check_count(config, listed.train))
        images = given_splits(images)
        config = dataclasses.replace(config, data=described(images, config.data))
        resolved, state, train, target = prepare(config, images.train, origin)
        if origin is not None:
            extension.take_over(origin, resolved, state, images)
        run = Run(out, handed_of(resolved))
        with writing(out):
            if distributed.rank() == 0:
                kept.begin(resolved, run, images, train, origin)
                if origin is not None:
                    extension.record(origin, run, resolved, state)
            distributed.barrier()
            if distributed.rank() == 0 and not quiet:
                log.info("%s", monitoring.describe(resolved, state, train))
            with kept.saved_if_a_worker_dies(resolved, run, state):
                ended = _loop(resolved, run, train, state, target, until=until, quiet=quiet)
            return kept.finish(resolved, state.model, run) if ended else run


def resume(
    out: str | Path | Run,
    images: Given | None = None,
    *,
    data: str | Path | None = None,
    until: int | None = None,
    quiet: bool = False,
) -> Run:
    """Go on with a run that stopped, from its last checkpoint, to the same end as if it had not, or
    to the end of epoch `until`.

    The images must be those that it began with: `images`, those at `data`, or those where they
    were. Raises `UserError` if they have changed.
    """
    run = Run.open(out, finished=False)
    if run.done and kept.is_whole(run):
        return run
    with writing(run.path):
        if run.done and kept.is_sound(run):
            return kept.finish(*read_model(run), run)
        return _continue(run, images, None if data is None else str(data), until=until, quiet=quiet)


def _continue(
    run: Run, images: Given | None, data: str | None, *, until: int | None, quiet: bool
) -> Run:
    config = complete(load_config(run))
    with distributed.process_group(config.device):
        if images is None:
            images = open_images(located(run.path, config.data, data))
        images = given_splits(images)
        kept.refuse_other_images(run.path, images)
        config, state, train, target = prepare(config, images.train, run)
        damaged = checkpoint.load_newest(state, run)
        distributed.barrier()  # every rank has read
        if distributed.rank() == 0:
            kept.mend(config, run, train, damaged)
            kept.keep_record(run.path, images, data, begun=state.step > 0)
            run.rewind(state.step)
        distributed.barrier()
        with kept.saved_if_a_worker_dies(config, run, state):
            ended = _loop(config, run, train, state, target, until=until, quiet=quiet)
        return kept.finish(config, state.model, run) if ended else run


def prepare(
    given: PretrainConfig, train: Images, begun: Run | None = None
) -> tuple[ResolvedConfig, TrainState, Images, ClassTargets | None]:
    """The loop's config, model and optimizer, images on the device, and labels for the loss. Start
    weights are those of the run that has `begun`, if it has."""
    if given.keep_freed_memory:
        hardware.keep_freed_memory()
    config = resolve(given, train)
    world = distributed.world_size()
    if config.batch_size % world:
        raise UserError(
            "--batch-size must be a multiple of the number of ranks; "
            f"got {config.batch_size} over {world}"
        )
    model = build_model(config)
    if (first := start_encoder(config, begun)) is not None:
        model.encoder.load_state_dict(first.state_dict())
    monitoring.check_ahead(config, model, train)
    if config.device == "cuda" and world > 1:
        model.encoder = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model.encoder)
    p = encoders.representation_size(model.encoder, config.encoder, config.augment.size)
    d = config.head.output_size or p
    target = class_targets(config.class_directions, train, d, config.seed, config.objective)
    target = ClassTargets.with_mates(target, train) if config.exclude_group else target
    model.to(device=config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compiled:
        model.compile_encoder()
    state = TrainState(model, build_optimizer(config.optim, model))
    return config, state, train.to(config.device), target


def train_step(
    config: ResolvedConfig,
    state: TrainState,
    views: Float[Tensor, "m 3 s s"],
    rate: float,
    target: ClassTargets | None = None,
) -> tuple[Outputs, Float[Tensor, ""], Float[Tensor, ""]]:
    """One step of the optimizer on two views of a batch: the outputs, the loss and the contrastive
    accuracy. Loss, gradient and weights are those of the whole batch over all ranks. `target`: of
    the whole batch's images."""
    # Dropout and what else draws from torch's own generator draws by place too.
    with rng.seeded(config.seed, "step", state.step):
        with hardware.autocast(config.device, config.precision):
            h, z = state.model(views.contiguous(memory_format=torch.channels_last))
        z0, z1 = z.chunk(2)
        forms = heads.loss_forms(config.head)
        loss, accuracy = contrastive(
            config.objective,
            z0,
            z1,
            config.temperature,
            method=config.loss,
            normalised=config.normalised,
            negatives=config.negatives,
            margin=config.margin,
            target=target,
            groups=heads.loss_groups(config.head),
            forms=forms,
            own=config.own_objective,
        )
    if target is not None and target.directions is not None:
        loss = loss + class_direction_loss(target, torch.cat(z.chunk(forms, 1)))
    state.optimizer.zero_grad()
    loss.backward()
    distributed.average_gradients(state.model.parameters())
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.step += 1
    return Outputs(h.detach().float(), z.detach().float()), loss.detach(), accuracy


def _loop(
    config: ResolvedConfig,
    run: Run,
    images: Images,
    state: TrainState,
    target: ClassTargets | None,
    *,
    until: int | None,
    quiet: bool,
) -> bool:
    """Train from the state's step to the last, or to the end of epoch `until`; whether the run has
    ended. Everything periodic is in view."""
    main = distributed.rank() == 0
    epochs, batch, epoch_steps = config.epochs, config.batch_size, len(images) // config.batch_size
    total = epochs * epoch_steps
    last = total if until is None else min(until * epoch_steps, total)
    rate_at = schedule(config.optim, epochs=epochs, epoch_steps=epoch_steps, batch_size=batch)
    knn_every = config.knn_every if main and monitoring.has_knn(images) else 0
    stop_every = 1 if distributed.world_size() == 1 else config.log_every
    losses: list[Tensor] = []  # since the last record
    accuracies: list[Tensor] = []  # of the last epoch or so
    warned = False
    skipped = dict(images.skipped)
    monitoring.reset_peak_memory(config.device)
    started = time.monotonic() - state.seconds
    recorded, logged = time.monotonic(), state.step
    batches = view_batches(
        images,
        config.augment,
        batch_size=batch,
        steps=range(state.step, last),
        seed=config.seed,
        device=config.device,
        workers=config.workers,
    )
    with (
        stop_requests(
            f"the last checkpoint of {run.path} is kept; go on with: {run.continued_with}"
        ) as stop,
        progress(run.path.name, total, done=state.step, quiet=quiet or not main) as show,
    ):
        for views in batches:
            rate = rate_at(state.step)
            known = target and target.at(distributed.gather(views.shown.to(config.device)))
            outputs, loss, accuracy = train_step(config, state, views.pixels, rate, known)
            losses.append(loss)
            accuracies.append(accuracy)
            step, epoch = state.step, state.step / epoch_steps
            stopping = due(step, stop_every) and distributed.any_rank(stop.exit_code is not None)

            skipped |= dict(views.unreadable)
            if due(step, config.log_every) or due(step, epoch_steps) or stopping:
                monitoring.check_finite(losses, step, rate, config.temperature)
                state.seconds = time.monotonic() - started
                record = {
                    "step": step,
                    "epoch": epoch,
                    "images_seen": step * batch,
                    "seconds": state.seconds,
                    "loss": torch.stack(losses).mean().item(),
                    "contrastive_accuracy": torch.stack(accuracies[-len(losses) :]).mean().item(),
                    **monitoring.batch_metrics(outputs),
                    **monitoring.softmax_entropy(outputs, config),
                    "learning_rate": rate,
                    "views_per_second": 2 * batch * (step - logged) / (time.monotonic() - recorded),
                    "memory_mib": monitoring.memory_mib(config.device),
                }
                if due(step, knn_every * epoch_steps):
                    record["knn/h"] = monitoring.check_knn(config, state, images)
                if main:
                    run.log(record)
                show(step, monitoring.summary(record))
                losses.clear()
                recorded, logged = time.monotonic(), step
                if due(step, epoch_steps) and len(accuracies) >= _COLLAPSE_STEPS:
                    mean_accuracy = torch.stack(accuracies).mean().item()
                    warned = warned or monitoring.warn_of_collapse(record, mean_accuracy, 2 * batch)
                    accuracies.clear()
            if due(step, config.checkpoint_every * epoch_steps) or step == last or stopping:
                if main:
                    kept.save(config, run, state)
                    monitoring.record_skipped(skipped, images, run)
                if stopping and step < total:
                    saved = f"{run.path} is saved at step {step} of {total}"
                    again = f"go on with: {run.continued_with}"
                    raise Interrupted(f"{saved}; {again}", stop.exit_code or 75)
    return state.step == total


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
