"""What fine-tuning forgets, on planted cases."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from narrow import present
from torch import nn
from training_run import coloured, make_run, same, weights

from headwise.data import ResidentImages, Splits
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.protocols.finetune import FinetuneConfig
from headwise.evaluation.protocols.forgetting import ForgettingConfig, forgetting
from headwise.runs.results import Value

DIGITS = ForgettingConfig(limit=60)


def values(trained: ExtractedRun, config: ForgettingConfig = DIGITS) -> dict[str, Value]:
    training = FinetuneConfig(epochs=6, batch_size=16, lrs=(1.0,))
    return {value.key: value for value in forgetting(trained, config, training, seed=0)}


def with_factor(n: int, seed: int) -> ResidentImages:
    """Coloured images whose colour is a known factor too."""
    images = coloured(n, seed)
    return replace(images, factors={"colour": present(images.labels)})


def tuned_to(encoder: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tuning gives this encoder."""
    monkeypatch.setattr(
        "headwise.evaluation.protocols.forgetting.fine_tuned",
        lambda *_, **__: SimpleNamespace(encoder=encoder),
    )


class Blank(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(pixels), 16) + 0 * pixels.mean()


def test_the_same_encoder_forgets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make_run(tmp_path, Splits(with_factor(96, 0), with_factor(150, 1)))
    tuned_to(trained.model.encoder, monkeypatch)
    found = values(trained)
    assert set(found) == {
        f"forgetting_{what}/{when}"
        for what in ("factors", "knn_digits", "contrastive")
        for when in ("before", "after")
    }
    for what in ("factors", "knn_digits", "contrastive"):
        before, after = (found[f"forgetting_{what}/{when}"] for when in ("before", "after"))
        assert before.value == after.value
        assert before.value > max(1.5 * present(before.chance), 0.01), what
    assert found["forgetting_knn_digits/after"].settings["target"] == "builtin:digits"
    assert found["forgetting_contrastive/before"].chance == pytest.approx(1 / 299)
    assert found["forgetting_contrastive/before"].n == 150


def test_an_encoder_that_sees_nothing_has_forgotten_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_run(tmp_path, Splits(with_factor(96, 0), with_factor(150, 1)))
    tuned_to(Blank(), monkeypatch)
    found = values(trained)
    assert found["forgetting_contrastive/after"].value == 0  # ties are wrong
    assert found["forgetting_factors/after"].value < 0.05
    assert found["forgetting_knn_digits/after"].value < 0.2


def test_fine_tuning_changes_a_copy(tmp_path: Path) -> None:
    trained = make_run(tmp_path)
    before = weights(trained)
    found = values(trained)
    assert same(before, weights(trained))
    assert not trained.model.training
    assert "forgetting_factors/before" not in found
    changed = (found[f"forgetting_knn_digits/{when}"].value for when in ("before", "after"))
    assert len(set(changed)) == 2


def test_wrong_targets() -> None:
    with pytest.raises(UserError, match=r"--forgetting\.targets must name at least one"):
        ForgettingConfig(targets=())
