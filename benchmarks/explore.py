"""The page of `headwise explore`: how long it takes to load, and how many frames a second it shows
while the map moves. Chromium draws in software, with the processor alone: a graphics card is
faster."""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.explore.page import ExploreConfig, write_page
from headwise.explore.table import Table
from measure import table

FRAMES = """() => {
  window.frames = [];
  const next = (now) => { window.frames.push(now); requestAnimationFrame(next); };
  requestAnimationFrame(next);
}"""


def made(n: int, p: int, folder: Path) -> Table:
    """A table of ten groups, with a map."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 10, n)
    middles = rng.standard_normal((10, p))
    h = middles[group] + rng.standard_normal((n, p))
    places = 8 * np.stack([np.cos(group), np.sin(group)], 1) + rng.standard_normal((n, 2))
    return Table(
        path=folder / "made.parquet",
        h=torch.from_numpy(h.astype(np.float32)),
        names=np.array([f"images/{i:06d}.jpg" for i in range(n)], object),
        named=True,
        labels=torch.from_numpy(group),
        classes=tuple(f"class {i}" for i in range(10)),
        split=np.full(n, "", object),
        columns={"x": places[:, 0], "y": places[:, 1]},
        about={},
    )


def measured(page: Any, path: Path, seconds: float) -> tuple[float, float, float]:
    """Seconds to load; frames a second while the map is dragged; the 95th percentile of a frame in
    milliseconds."""
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    loaded = float(page.evaluate("document.documentElement.dataset.ready")) / 1e3
    box = page.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = page.mouse
    mouse.move(x, y)
    mouse.down()
    page.evaluate(FRAMES)
    step = 0
    while page.evaluate("frames.length < 2 || frames.at(-1) - frames[0]") < 1e3 * seconds:
        step += 1
        mouse.move(x + 150 * np.sin(step / 20), y + 100 * np.cos(step / 30))
    durations = np.diff(page.evaluate("frames"))
    mouse.up()
    return loaded, 1e3 / durations.mean(), float(np.quantile(durations, 0.95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--p", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    lines = []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        for n in args.rows:
            out = Path(name) / "page.html"
            write_page(made(n, args.p, Path(name)), [None] * n, out, ExploreConfig())
            found = []
            for _ in range(args.rounds):
                browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                found.append(measured(page, out, args.seconds))
                browser.close()
            middle = [statistics.median(values) for values in zip(*found, strict=True)]
            lines.append([f"{n:,}", *middle])
    head = ["images", "seconds to load", "frames a second", "slow frame (95 %), ms"]
    print(table(head, lines))


if __name__ == "__main__":
    main()
