"""A run directory that version 0.1 wrote still opens.

`old_run` was written by version 0.1: `headwise pretrain --recipe small --data builtin:digits
--limit 60 --head transformer --anchors.fraction 0.5` (a small encoder and head, two epochs on a
CPU), then `headwise evaluate --protocols knn linear geometry` and `headwise fusion`. The figures,
the arrays and the optimizer's state are left out to keep it small.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from headwise import EvaluateConfig, embed, evaluate, load_encoder, resume
from headwise.comparison.compare import CompareConfig, resume_comparison
from headwise.data import DataConfig
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.files import read_json, write_json
from headwise.heads import HeadConfig
from headwise.model import checkpoint, optim
from headwise.model.config import PretrainConfig
from headwise.model.config_file import CONFIG_VERSION, config_json, read_config
from headwise.model.optim import OptimConfig
from headwise.model.trained import load_config, open_trained, read_model
from headwise.pretraining.loop import pretrain
from headwise.runs.directory import Run

OLD = Path(__file__).parent / "old_run"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old_run"))


def test_its_settings_are_lifted(old: Path) -> None:
    config = load_config(Run.open(old))
    assert "version" not in read_json(old / "config.json")
    assert config.class_directions.fraction == 0.5
    assert (config.head.name, config.head.width, config.encoder.widths) == (
        "transformer",
        8,
        (8, 8, 8, 8),
    )
    assert config.optim.tokens_decayed
    write_json(old / "config.json", config_json(config))
    assert read_json(old / "config.json")["version"] == CONFIG_VERSION
    assert load_config(Run.open(old)) == config
    assert read_config(PretrainConfig, old / "config.json").head.width == 8


def test_its_results_are_read_and_evaluating_again_gives_the_same(old: Path) -> None:
    values = {
        name: result["value"]
        for name, result in json.loads((old / "results.json").read_text())["results"].items()
    }
    (section,) = Run.open(old).sections
    assert {"knn/h", "linear/z", "rank/h", "fusion_gain/g2"} <= section.results.keys()
    for key in section.results.keys() & values.keys():
        assert section.results[key].value == values[key], key
    results = evaluate(old, config=EvaluateConfig(protocols=("knn", "linear", "geometry")))
    compared = results.keys() & values.keys()
    assert {"knn/h", "linear/z", "rank/untrained", "alignment/z"} <= compared
    for key in compared - {"renyi/h-z"}:  # is now of centred features
        assert results[key].value == pytest.approx(values[key], rel=1e-4, abs=1e-6), key


def test_a_finished_old_run_is_left_alone(old: Path) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    resume(old, quiet=True)
    assert before == {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}


def test_its_encoder_is_taken_away_and_embeds(old: Path, tmp_path: Path) -> None:
    trained = open_trained(old)
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_encoder(old)(x), trained.model.encoder(x))
    rows = embed(old, DataConfig(spec="builtin:digits", limit=20), tmp_path / "h.parquet")
    assert pq.read_metadata(tmp_path / "h.parquet").num_rows == rows


def test_a_run_of_a_gpu_opens_on_a_cpu(old: Path) -> None:
    config = read_json(old / "config.json")
    write_json(old / "config.json", {**config, "device": "cuda", "precision": "bfloat16"})
    trained = open_trained(old, device="cpu")
    assert trained.extraction.device == "cpu"
    assert next(trained.model.parameters()).device.type == "cpu"


def test_workers_are_decided_by_the_images_that_are_opened(old: Path, tmp_path: Path) -> None:
    """The run was trained from memory, without workers."""
    from PIL import Image

    from headwise.data import ImageFiles

    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (9 + i, 9), (20 * i, 9, 9)).save(tmp_path / f"photos/{name}/{i}.png")
    assert open_trained(old).extraction.workers == 0
    trained = open_trained(old, DataConfig(spec=str(tmp_path / "photos"), resident_mib=0))
    assert isinstance(trained.images.train, ImageFiles)
    assert trained.extraction.workers > 0
    assert open_trained(old, images=trained.images, workers=0).extraction.workers == 0


@pytest.mark.parametrize(
    "head",
    [
        HeadConfig(name="identity"),
        HeadConfig(name="linear", output_size=8, batch_norm=False),
        HeadConfig(name="mlp", output_size=8, shift=True),
        HeadConfig(name="mlp", output_size=8, batch_norm=False),
    ],
    ids=["identity", "linear", "mlp", "mlp without BatchNorm"],
)
def test_heads_of_older_runs_keep_their_settings(
    tmp_path: Path, tiny: PretrainConfig, head: HeadConfig
) -> None:
    """A run that has the head of an older version, with the config.json that this one wrote: it
    opens with its weights, gives the same numbers, and goes on to the same end."""
    tiny = replace(tiny, head=head, epochs=2, knn_every=0, keep_checkpoints=2)
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    config, model = read_model(run)
    h = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    z = model.head.eval()(h)
    values = read_json(run.path / "config.json")
    del values["head"]["shift"], values["optim"]["tokens_decayed"]
    config = replace(config, optim=replace(config.optim, tokens_decayed=True))
    if head.name != "mlp":
        values["head"]["batch_norm"] = None
    values["head"]["activation"] = None  # of other heads then
    for version in ({}, {"version": 2}):
        older = {key: value for key, value in values.items() if key != "version"} | version
        write_json(run.path / "config.json", older)
        assert load_config(run) == config
        assert torch.equal(read_model(run)[1].head.eval()(h), z)
    (run.path / "DONE").unlink()
    before = (run.path / "encoder.safetensors").read_bytes()
    shutil.rmtree(checkpoint.checkpoints(run.path / "checkpoints")[-1])
    resume(run.path, quiet=True)
    assert (run.path / "encoder.safetensors").read_bytes() == before


def test_an_older_run_keeps_its_optimizer_and_what_it_decayed(
    tmp_path: Path, tiny: PretrainConfig
) -> None:
    """A run of version 0.1 with its default optimizer and a class token, which was decayed then:
    config.json has the optimizer, and the optimizer's state is of the groups of that time."""
    old = OptimConfig(name="adamw", lr=1e-3, lr_scaling="none", weight_decay=0.1)
    tiny = replace(
        tiny,
        augment=replace(tiny.augment, size=32),
        encoder=EncoderConfig(name="test_vit"),
        optim=replace(optim.resolve(old, 2), tokens_decayed=True),
        epochs=2,
        knn_every=0,
    )
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    values = read_json(run.path / "config.json")
    values["version"] = 3
    del values["optim"]["tokens_decayed"]
    write_json(run.path / "config.json", values)
    (run.path / "DONE").unlink()
    before = (run.path / "encoder.safetensors").read_bytes()
    shutil.rmtree(checkpoint.checkpoints(run.path / "checkpoints")[-1])
    resume(run.path, quiet=True)
    assert (run.path / "encoder.safetensors").read_bytes() == before
    # A run that starts from its settings has its optimizer, with the groups of today.
    begun_from_it = read_config(PretrainConfig, run.path / "config.json").optim
    assert begun_from_it == replace(old, warmup_epochs=0.2)
    longer = replace(tiny, optim=old, epochs=3)
    extended = pretrain(longer, tmp_path / "longer", extends=run.path, quiet=True)
    assert load_config(extended).optim.tokens_decayed


def test_a_file_written_by_hand_names_todays_heads(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"head": {"name": "mlp", "batch_norm": True}})
    assert read_config(PretrainConfig, tmp_path / "config.json").head.shift is None


def test_an_older_comparison_does_not_get_todays_heads(tmp_path: Path) -> None:
    config = config_json(CompareConfig(arms=("identity", "linear", "mlp")))
    write_json(tmp_path / "config.json", {**config, "version": 2})
    with pytest.raises(UserError, match="its missing runs of linear would have today's"):
        resume_comparison(tmp_path, quiet=True)


def test_a_newer_file_is_refused(old: Path) -> None:
    write_json(old / "config.json", {**read_json(old / "config.json"), "version": 99})
    with pytest.raises(UserError, match="must have version 4 or an older one; got 99"):
        load_config(Run.open(old))
