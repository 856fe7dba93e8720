"""The tables of `headwise fusion` for the terminal, from the arrays of fusion.npz."""

from collections.abc import Sequence

import numpy as np

from headwise.fusion.over_seeds import HeadOverSeeds, OverSeeds
from headwise.fusion.verdict import BlockVerdict, judge
from headwise.report.tables.numbers import p_text
from headwise.report.tables.table import Cell, Column, Table, TableRow
from headwise.report.words import percent

Arrays = dict[str, np.ndarray]


def text_table(arrays: Arrays) -> str:
    """A line for each tap. First the gain with half its interval, its controls and p; then shares
    of the attention in percent, AUROC, NMI, and the 1-NN accuracy. Without attention only that."""
    blocks = judge(arrays).blocks
    tables = [_gains(blocks)] if blocks else []
    texts = [table.text() for table in [*tables, _attention(blocks, arrays)]]
    return "\n\n".join([*texts, *["± is half of the 95 % interval over batches"] * len(tables)])


def seeds_table(found: HeadOverSeeds) -> Table:
    """A line for each block: its gain, its excess over h and over its input rows with half of the
    95 % interval, the adjusted p, and the verdict."""
    rows = []
    for block in found.blocks:
        cells = [Cell(text=f"{block.gain:.3f}")]
        cells += [_excess(over) for over in (block.h, block.input)]
        judged = "no verdict" not in block.fusion
        cells += [Cell(text=p_text(block.p_value) if judged else ""), Cell(text=block.fusion)]
        rows.append(TableRow(label=block.tap, cells=cells))
    return _table(["gain", "over h", "over input", "p", "fusion"], rows)


def _excess(over: OverSeeds) -> Cell:
    if over.interval is None:
        return Cell(text=f"{over.mean:+.3f}")
    low, high = over.interval
    return Cell(text=f"{over.mean:+.3f}", spread=f"{(high - low) / 2:.3f}")


def _gains(blocks: Sequence[BlockVerdict]) -> Table:
    rows = []
    for block in blocks:
        gain = block.gain
        cells = [
            Cell(text=f"{gain.mean:.3f}", spread=f"{gain.high - gain.mean:.3f}"),
            Cell(text=f"{block.controls['untrained']:.3f}"),
            Cell(text=f"{block.controls['h']:.3f}"),
            Cell(text=f"{block.input_gain:.3f}"),
            Cell(text=f"{block.p_value:.3f}"),
            Cell(text="fusion" if block.fuses else ""),
        ]
        rows.append(TableRow(label=block.tap, cells=cells))
    return _table(["gain", "untrained", "h", "input", "p", ""], rows)


def _attention(blocks: Sequence[BlockVerdict], arrays: Arrays) -> Table:
    by_tap = {block.tap: (place, block) for place, block in enumerate(blocks)}
    titles = ["twin %", "self %", "other %", "AUROC", "NMI"] if blocks else []
    rows = []
    for place, tap in enumerate(arrays["taps"].tolist()):
        texts = [""] * len(titles)
        if tap in by_tap:
            at, block = by_tap[tap]
            twin, itself = (arrays[name][:, at].mean() for name in ("twin_mass", "self_mass"))
            auroc, nmi = (arrays[f"layer_{name}"][:, at].mean() for name in ("auroc", "nmi"))
            shares = [percent(float(share)) for share in (twin, itself, block.other_mass)]
            texts = [*shares, f"{auroc:.3f}", f"{nmi:.3f}"]
        texts.append(percent(float(arrays["nn1"][:, place].mean())))
        rows.append(TableRow(label=tap, cells=[Cell(text=text) for text in texts]))
    return _table([*titles, "1-NN %"], rows)


def _table(titles: Sequence[str], rows: Sequence[TableRow]) -> Table:
    return Table(corner="tap", columns=[Column(title=title) for title in titles], rows=rows)
