"""The columns of parquet tables: which holds images, which labels, and the rules for labels."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headwise.errors import UserError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")
JOINT = "+"
"""Between the classes of an image that has several."""
FEW_ROWS = 10
"""In fewer rows, a column called label may have another value in every row by chance."""

logger = logging.getLogger("headwise")


class LabelColumn(NamedTuple):
    """The column of labels."""

    name: str
    given: bool
    """Whether the user named it."""
    classes: tuple[str, ...] | None
    """The class names that the hub keeps in the schema's metadata."""


def image_column(schemas: dict[str, "pa.Schema"], column: str | None, where: str) -> str:
    """Return the path of the column with the encoded bytes, such as `image.bytes`. All files must
    have it."""
    found = {name: _image_leaves(schema) for name, schema in schemas.items()}
    first = next(iter(found))
    leaves, columns = found[first], schemas[first].names
    if column is not None and column not in leaves:
        raise UserError(f"{where} has no image column {column!r}: {nearest(column, leaves)}")
    if column is None and len(leaves) != 1:
        raise UserError(
            f"{where} must have one column of images; got {len(leaves)} "
            f"({', '.join(leaves)}) among {', '.join(columns)}: name it with image_column"
        )
    leaf = leaves[column or next(iter(leaves))]
    for name, others in found.items():
        if leaf not in others.values():
            raise UserError(
                f"{where} must hold parquet files of one schema: {first} has images in {leaf}, "
                f"{name} has not: choose files with a pattern"
            )
    return leaf


def label_column(
    schemas: dict[str, "pa.Schema"], column: str | None, where: str
) -> LabelColumn | None:
    """Return the column of labels, which some files may lack, or None."""
    import pyarrow.types as types

    fields = {field.name: field.type for schema in schemas.values() for field in schema}
    if column is not None and column not in fields:
        raise UserError(f"{where} has no column {column!r}: {nearest(column, fields)}")
    named = [name for name in (column, *LABEL_NAMES) if name in fields]
    integers = [
        name
        for name, kind in fields.items()
        if types.is_integer(kind) and not name.startswith("__")  # pandas' index
    ]
    if not named and len(integers) > 1:
        raise UserError(
            f"{where} must have one column of labels; got {', '.join(integers)}: "
            "name it with label_column"
        )
    name = next(iter(named or integers), None)
    if name is None:
        return None
    names = [n for schema in schemas.values() if (n := _class_names(schema, str(name)))]
    return LabelColumn(str(name), column is not None, names[0] if names else None)


def read_labels(path: Path, column: LabelColumn, where: str) -> np.ndarray:
    """Return one file's labels, integers or strings; −1 or "" where a label is missing. The set of
    an image's classes in a list becomes `a+b`. Raises `UserError` for other types."""
    import pyarrow.parquet as pq
    import pyarrow.types as types

    values = pq.read_table(path, columns=[column.name]).column(0)
    kind = values.type
    if types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if types.is_list(kind) or types.is_large_list(kind):
        return _joined(values, column.classes, where)
    if types.is_integer(kind):
        return values.cast("int64", safe=False).fill_null(-1).to_numpy()
    if types.is_floating(kind):  # how pandas stores integers of which some are missing
        numbers = np.nan_to_num(values.fill_null(-1).to_numpy(zero_copy_only=False), nan=-1)
        if np.array_equal(numbers, np.rint(numbers)) and np.abs(numbers).max(initial=0) < 2**53:
            return numbers.astype(np.int64)
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return np.array([_text(value) for value in values.to_pylist()], dtype=object)
    if types.is_null(kind):
        return np.full(len(values), -1)
    raise UserError(
        f"{where}: labels must be integers, strings or lists of them; column {column.name!r} holds "
        f"{kind}: name another column with label_column"
    )


def one_kind(labels: dict[str, np.ndarray | None], column: LabelColumn, where: str) -> None:
    """Raise `UserError` if the labels are numbers in one file and strings in another. Files whose
    labels are all missing fit both."""
    kinds: dict[str, str] = {}
    for name, values in labels.items():
        if values is not None and not (values == ("" if values.dtype == object else -1)).all():
            kinds.setdefault("strings" if values.dtype == object else "numbers", name)
    if len(kinds) > 1:
        found = " and ".join(f"{kind} in {name}" for kind, name in sorted(kinds.items()))
        raise UserError(
            f"{where}: labels must be of one type; column {column.name!r} holds {found}: "
            "write the files anew, or choose some of them with a pattern"
        )


def is_identity(labels: dict[str, np.ndarray | None], column: LabelColumn, where: str) -> bool:
    """Return whether every row has a label of its own, so that they are no classes, and say so."""
    known = [values for values in labels.values() if values is not None]
    rows = sum(map(len, known))
    certain = column.given or column.classes is not None
    few = column.name in LABEL_NAMES and rows < FEW_ROWS
    if certain or few or rows < 2 or len({v for values in known for v in values.tolist()}) < rows:
        return False
    logger.warning(
        "%s: column %r has another value in every row, so it is not read as labels; if it should "
        "be, name it with label_column",
        where,
        column.name,
    )
    return True


def _image_leaves(schema: "pa.Schema") -> dict[str, str]:
    import pyarrow.types as types

    leaves = {}
    for field in schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            leaves[field.name] = f"{field.name}.bytes"
        elif types.is_binary(field.type) or types.is_large_binary(field.type):
            leaves[field.name] = field.name
    return leaves


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _joined(values: "pa.ChunkedArray", classes: tuple[str, ...] | None, where: str) -> np.ndarray:
    def name(value: object) -> str:
        if classes is None or not isinstance(value, int):
            return _text(value)
        if not 0 <= value < len(classes):
            raise UserError(f"{where}: every label must be a number from 0 to {len(classes) - 1}")
        return classes[value]

    sets = [sorted({name(v) for v in row or () if v is not None}) for row in values.to_pylist()]
    return np.array([JOINT.join(names) for names in sets], dtype=object)


def _class_names(schema: "pa.Schema", column: str) -> tuple[str, ...] | None:
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    feature: Any = json.loads(metadata).get("info", {}).get("features", {}).get(column, {})
    inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    names = inner.get("names")
    return None if names is None else tuple(map(str, names))
