"""More epochs for a finished run, in a run of its own.

The new run begins where the other one ended: with its weights, its optimizer's state and its step,
so that the order of the images and their augmentation go on. The learning rate has come down to 0,
so the added epochs have a schedule of their own: warm-up from 0, then half a cosine to 0.
"""

from dataclasses import replace

from headwise.data import DataConfig, Splits
from headwise.data.record import changes, located
from headwise.errors import UserError
from headwise.files import write_bytes, write_json
from headwise.model import checkpoint, optim
from headwise.model.checkpoint import TrainState
from headwise.model.config import PretrainConfig, ResolvedConfig
from headwise.model.trained import load_config
from headwise.pretraining import kept
from headwise.runs.directory import Run

EXTENDS_FILE = "extends.json"

# What the state depends on. The images are checked by themselves.
_KEPT = ("augment", "encoder", "head", "batch_size", "objective", "class_directions", "seed")


def extended(config: PretrainConfig, origin: Run) -> PretrainConfig:
    """The config with a schedule for the epochs after those of `origin`.

    Raises `UserError` if there are none.
    """
    theirs = load_config(origin)
    done = theirs.epochs
    if config.epochs <= done:
        raise UserError(
            f"--epochs must be more than the {done} that {origin.path} has done, which count; "
            f"got {config.epochs}"
        )
    added = optim.resolve(config.optim, config.epochs - done)
    kept_groups = theirs.optim.tokens_decayed
    return replace(config, optim=replace(added, begin_epoch=done, tokens_decayed=kept_groups))


def located_data(config: PretrainConfig, origin: Run | None) -> DataConfig:
    """How to open the images: if they are those of `origin`, where those are."""
    if origin is None or config.data.spec != load_config(origin).data.spec:
        return config.data
    return located(origin.path, config.data)


def take_over(origin: Run, config: ResolvedConfig, state: TrainState, images: Splits) -> None:
    """Put the last checkpoint of `origin` into `state`. Raises `UserError` if it does not fit."""
    theirs = load_config(origin)
    changed = [name for name in _KEPT if vars(config)[name] != vars(theirs)[name]]
    changed += ["optim.name"] * (config.optim.name != theirs.optim.name)
    if changed:
        raise UserError(
            f"a run that extends {origin.path} must have its {' and '.join(changed)}; got another "
            "value; leave it out"
        )
    damaged = checkpoint.load_newest(state, origin)
    if damaged:
        raise UserError(
            f"{damaged[0]} is damaged, the last checkpoint of {origin.path}; make it again with: "
            f"{origin.continued_with}"
        )
    found = changes(origin.path, images)
    if found or state.step != theirs.epochs * (len(images.train) // config.batch_size):
        raise UserError(
            f"a run that extends {origin.path} must have its images; they have changed: "
            f"{found or f'{len(images.train)} are more or fewer'}"
        )


def record(origin: Run, run: Run, config: ResolvedConfig, state: TrainState) -> None:
    """Write where the new run comes from, what was logged until then, and its first checkpoint."""
    about = {"run": str(origin.path.absolute()), "id": origin.id, "step": state.step}
    write_json(run.path / EXTENDS_FILE, about)
    write_bytes(run.path / "metrics.jsonl", (origin.path / "metrics.jsonl").read_bytes())
    run.rewind(state.step)
    kept.save(config, run, state)
