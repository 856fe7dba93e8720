"""An exported encoder is loaded as others load it, without headwise, and gives the same h."""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from headwise.data.reading import one_line
from headwise.errors import UserError
from headwise.export.formats import HERE, Exported, Target, loading

BATCHES = (1, 2, 7)
"""Images at a time."""
TOLERANCE = 1e-4
"""Largest difference of h, absolute or relative."""

_ERROR = re.compile(r"[\w.]+(Error|Exception|Fail)\b")
_PROGRAM = """\
import sys
for name in {blocked}:
    sys.modules[name] = None
{lines}
import torch
from safetensors.torch import load_file, save_file
images = load_file(sys.argv[1])["images"]
with torch.no_grad():
    found = {{str(n): torch.as_tensor(encoder({argument})) for n in {batches}}}
save_file({{n: h.contiguous() for n, h in found.items()}}, sys.argv[2])
"""


def verify(to: Target, exported: Exported, images: Float[Tensor, "7 3 s s"], at: Path) -> None:
    """Raise `UserError` unless a process without headwise loads what is in `at` and gets the same h
    of these images, in batches of every size."""
    with torch.no_grad():
        expected = exported.encoder(images)
    for n, found in _elsewhere(to, exported, images, at).items():
        own = expected[: len(found)]
        if found.shape == own.shape and torch.allclose(found, own, TOLERANCE, TOLERANCE):
            continue
        error = (found - own).abs().max().item() if found.shape == own.shape else float("nan")
        raise UserError(
            f"the exported encoder must give the same h to {TOLERANCE}; with --to {to} it differs "
            f"by {error:.2g} for {n} images at a time; nothing is written"
        )


def _elsewhere(
    to: Target, exported: Exported, images: Float[Tensor, "7 3 s s"], at: Path
) -> dict[str, Float[Tensor, "b p"]]:
    blocked = ["headwise"] if to == "timm" else ["headwise", "timm"]
    program = _PROGRAM.format(
        blocked=blocked,
        lines=loading(to, exported).replace(HERE, str(at)),
        argument="images[:n].numpy()" if to == "onnx" else "images[:n]",
        batches=BATCHES,
    )
    with TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "images.safetensors", Path(folder) / "h.safetensors"
        save_file({"images": images.contiguous()}, asked)
        words = [sys.executable, "-c", program, str(asked), str(answer)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"]
            last = next((line for line in reversed(said) if _ERROR.match(line)), said[-1])
            raise UserError(f"the exported encoder must load without headwise; --to {to}: {last}")
        with one_line("the exported encoder must give h"):
            return load_file(answer)
