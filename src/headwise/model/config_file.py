"""config.json: configs as files, with a version, and older layouts lifted to today's."""

from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from headwise.config import from_dict, to_dict
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.files import Json, read_json, read_object

CONFIG_VERSION = 4
"""The layout of config.json. Headwise 0.1 wrote no version: that is layout 1."""

# Before this layout `linear` had no BatchNorm, and the last BatchNorm of `mlp` learned a shift.
_HEADS_VERSION = 3
# Before this layout class tokens and position tables were decayed.
_TOKENS_VERSION = 4

Config = TypeVar("Config")


def config_json(config: Any) -> Json:
    """A config as config.json holds it: with the version of the layout."""
    return {"version": CONFIG_VERSION, **to_dict(config)}


def read_config(kind: type[Config], path: Path) -> Config:
    """The config in a file of today's layout or of an older one.

    Raises `UserError` for a file that is not JSON, for unknown keys and for wrong values.
    """
    values = lifted(read_json(path), path)
    if get_type_hints(kind).get("encoder") is EncoderConfig:
        values = _left_open(values)
    elif isinstance(values, dict) and isinstance(values.get("head"), dict):
        values = {**values, "head": _with_activation(values["head"])}
    return from_dict(kind, values, str(path))


def has_old_heads(path: Path) -> bool:
    """Whether `linear` and `mlp` were other heads in the version that wrote this config.json."""
    return read_object(path).get("version", 1) < _HEADS_VERSION


def _left_open(values: Any) -> Any:
    """A resolved file as settings to start from: what is the model's own is open again, and the
    schedule begins at the first epoch."""
    if not isinstance(values, dict):
        return values
    values = {**values}
    if isinstance(values.get("encoder"), dict):
        values["encoder"] = {k: None if v == [] else v for k, v in values["encoder"].items()}
    for part in ("head", "encoder"):
        if isinstance(values.get(part), dict) and values[part].get("own") is not None:
            values[part] = {"own": values[part]["own"]}
    if isinstance(values.get("optim"), dict):
        own = ("begin_epoch", "tokens_decayed")
        values["optim"] = {k: v for k, v in values["optim"].items() if k not in own}
    return values


def lifted(values: Any, path: Path) -> Any:
    """The settings of a config.json in today's layout, without the version."""
    if not isinstance(values, dict):
        return values
    version = values.get("version", 1)
    if version not in (1, 2, 3, CONFIG_VERSION):
        raise UserError(
            f"{path} must have version {CONFIG_VERSION} or an older one; got {version!r}; "
            "it needs a newer headwise"
        )
    values = {key: value for key, value in values.items() if key != "version"}
    trees = [values, values.get("pretrain")]  # a comparison's runs are under `pretrain`
    if "heads" in values and "pretrain" in values:  # the arms of a comparison once were heads
        values["arms"] = values.pop("heads")
    for tree in trees if version < _HEADS_VERSION else []:
        if isinstance(tree, dict) and isinstance(tree.get("head"), dict):
            tree["head"] = _lifted_head(tree["head"])
    if version < _TOKENS_VERSION and isinstance(values.get("optim"), dict):
        values["optim"] = {**values["optim"], "tokens_decayed": True}
    if version == 1:
        for tree in trees:
            if isinstance(tree, dict) and "anchors" in tree:
                tree["class_directions"] = tree.pop("anchors")
        encoder = values.get("encoder")
        if isinstance(encoder, dict):  # null once said: the model's own
            values["encoder"] = {
                key: [] if value is None and key in ("depths", "widths") else value
                for key, value in encoder.items()
            }
    return values


def _lifted_head(head: Json) -> Json:
    """A head of layout 1 or 2 with the settings that it had."""
    if "place" not in head:  # not a file of ours, which names every setting
        return head
    match head.get("name"):
        case "identity" | "linear":
            return {**head, "batch_norm": False}
        case "mlp":
            return {**head, "shift": head.get("batch_norm") is not False}
    return head


def _with_activation(head: Json) -> Json:
    """A resolved head; that of `mlp` once had no choice of an activation."""
    old = head.get("name") == "mlp" and head.get("activation") is None
    return {**head, "activation": "relu"} if old else head
