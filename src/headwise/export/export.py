"""Exporting the encoder of a run: written beside, verified, and only then put in its place."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from headwise.augment import whole_batches, whole_images
from headwise.data import open_images
from headwise.data.record import located
from headwise.data.split import test_images
from headwise.errors import UserError
from headwise.export.card import card
from headwise.export.formats import Exported, Target, check_target, write_files
from headwise.export.verify import BATCHES, verify
from headwise.files import write_atomically, write_text
from headwise.model.export import describe_encoder, encoder_file, load_encoder
from headwise.model.trained import load_config
from headwise.runs.directory import Run, refuse_existing


def export_run(
    run: str | Path | Run,
    to: Target,
    out: str | Path,
    *,
    data: str | None = None,
    licence: str = "other",
    name: str | None = None,
) -> Path:
    """Write the encoder of a finished run for others: `out` becomes a folder of files that load
    without headwise, with a model card.

    Before it is done, a process without headwise loads it and must give the same h of seven images
    of pretraining (or of `data`); else nothing is left behind. Raises `UserError` then, and where
    this encoder cannot be exported so.
    """
    opened, out = Run.open(run), Path(out)
    refuse_existing(out, resumable=False)
    about = describe_encoder(encoder_file(opened))
    check_target(to, about)
    encoder = load_encoder(opened)
    images = _example(opened, data)
    with torch.no_grad():
        p = encoder(images[:1]).shape[1]
    exported = Exported(encoder=encoder, about=about, size=about["image"]["size_px"], p=p)

    def write(at: Path) -> None:
        at.mkdir()
        try:
            write_files(to, exported, images, at)
        except Exception as error:  # exporters raise what they like
            line = " ".join(str(error).split())[:200]
            raise UserError(f"{opened.path} cannot be exported --to {to}: {line}") from error
        verify(to, exported, images, at)
        text = card(to, exported, opened, name=name or out.name, licence=licence)
        write_text(at / "README.md", text)

    write_atomically(out, write)
    return out


def _example(run: Run, data: str | None) -> Float[Tensor, "7 3 s s"]:
    """Images of the run as its encoder takes them; fewer than seven are repeated."""
    images = test_images(open_images(located(run.path, load_config(run).data, data)))
    augment = load_config(run).augment
    whole = whole_images(augment.size, augment.mean, augment.std)
    chosen = images.select(torch.arange(min(len(images), max(BATCHES))))
    batches = whole_batches(chosen, whole, batch_size=len(chosen), device="cpu", workers=0)
    pixels = torch.cat([x for _, x in batches])
    return pixels[torch.arange(max(BATCHES)) % len(pixels)]
