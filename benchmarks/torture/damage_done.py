"""Damaged images and run directories: one clear line or a right result, no hang, no growth."""

import io
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from damage import COMMANDS, FILES, MEASURED, mutated, mutations, outcome
from PIL import Image

from headwise import evaluate, pretrain
from headwise.cli.main import command_line
from headwise.cli.words import read_words
from headwise.data import DataConfig, ImageFiles, open_images
from headwise.errors import UserError
from measure import resident

FORMATS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "webp": "WEBP"}
SECONDS = 60
"""What takes longer counts as a hang."""
GROWTH_MIB = 64
"""By how much memory may grow from the first third of the cases to the last."""


class Hang(BaseException):
    """A case took too long."""


@contextmanager
def no_hang() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def each(count: int, case: Callable[[int], str]) -> list[str]:
    """Try cases in one process; what went wrong, growth of its memory included."""
    wrong, early = [], 0.0
    for i in range(count):
        try:
            with no_hang():
                said = case(i)
        except Hang:
            said = f"case {i}: no answer within {SECONDS} s"
        wrong += [said] if said else []
        if i == count // 3:
            early = resident("VmRSS")
    grown = (resident("VmRSS") - early) / 2**20
    return wrong + ([f"memory has grown by {grown:.0f} MiB"] if grown > GROWTH_MIB else [])


def damage_images(count: int, folder: Path) -> list[str]:
    """One damaged file among sound ones: those are read as ever."""
    noise = np.random.default_rng(1)
    picture = Image.fromarray(noise.integers(0, 256, (20, 20, 3), np.uint8))
    contents = {}
    for ending, name in FORMATS.items():
        file = io.BytesIO()
        picture.save(file, name)
        contents[ending] = file.getvalue()
    place = folder / "images"
    place.mkdir()
    for ending, content in contents.items():
        (place / f"sound.{ending}").write_bytes(content)
    sound = _pixels(place, 4096)

    def case(i: int) -> str:
        ending = list(FORMATS)[i % len(FORMATS)]
        damaged = place / f"damaged.{ending}"
        damaged.write_bytes(mutated(contents[ending], noise))
        try:
            found = _pixels(place, (0, 4096)[i // len(FORMATS) % 2])
        except UserError as error:
            return "" if "\n" not in str(error) else f"case {i}: several lines: {error}"
        except Exception as error:
            return f"case {i}, {ending}: {type(error).__name__}: {error}"
        finally:
            damaged.unlink()
        same = sound.keys() <= found.keys() and all(
            np.array_equal(found[name], pixels) for name, pixels in sound.items()
        )
        return "" if same else f"case {i}, {ending}: sound images are read otherwise"

    return each(count, case)


def _pixels(folder: Path, resident_mib: int) -> dict[str, Any]:
    config = DataConfig(
        spec=str(folder), max_bad_fraction=0.9, cache=False, resident_mib=resident_mib
    )
    images = open_images(config, workers=1).train
    found = {}
    for i, name in enumerate(images.ids):
        try:
            found[name] = (
                np.asarray(images.read(i))
                if isinstance(images, ImageFiles)
                else images.pixels[i].permute(1, 2, 0).numpy()
            )
        except OSError:  # an unreadable file, which every command replaces or leaves out
            continue
    return found


def damage_runs(count: int, folder: Path, words: list[str]) -> list[str]:
    """One damaged file of a run, under one of the commands that read it."""
    runs = [folder / f"run{seed}" for seed in (0, 1)]
    for seed, path in enumerate(runs):
        line = command_line("pretrain")
        given = [*words, "--out", str(path), "--epochs", "2", "--seed", str(seed)]
        pretrain(read_words(line, given).command().pretrain, path, quiet=True)
        evaluate(path, config=MEASURED)
    whole, other = runs
    expected = {command: call(whole) for command, call in COMMANDS.items()}

    def case(i: int) -> str:
        draw = random.Random(i)
        name, command = draw.choice(FILES), draw.choice(list(COMMANDS))
        found = mutations((whole / name).read_bytes(), (other / name).read_bytes(), i)
        kind = draw.choice(list(found))
        copy = folder / "copy" / "run0"
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(whole, copy)
        content = found[kind]
        (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
        result = outcome(COMMANDS[command], copy)
        if isinstance(result, UserError):
            return "" if "\n" not in str(result) else f"case {i}: several lines: {result}"
        right = result == expected[command] or (
            name == "config.json" and not isinstance(result, Exception)
        )
        return "" if right else f"case {i}, {name}, {kind}, {command}: {result!r:.300}"

    return each(count, case)
