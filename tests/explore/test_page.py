"""The page in a real browser: what a reader does with mouse and keys, and the files that come."""

import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headwise.data import DataConfig, open_images
from headwise.explore.page import ExploreConfig, write_page
from headwise.explore.table import read_table
from headwise.explore.thumbnails import from_column

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MIDDLES = np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 9.0]])
N = 60


def jpeg(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three groups of twenty images, far from each other on the map and in `h`. Some names are
    hostile to HTML and to CSV."""
    rng = np.random.default_rng(0)
    group = np.arange(N) % 3
    names = [f"photos/{i:02d}.jpg" for i in range(N)]
    names[0], names[3], names[1] = '</script><b>"0".jpg', "a,b.jpg", "=1+1.jpg"
    h = np.eye(3, 8)[group] + 0.1 * rng.standard_normal((N, 8))
    places = MIDDLES[group] + rng.uniform(-1, 1, (N, 2))
    labels = [None if i == 5 else "xyz"[g] for i, g in enumerate(group)]
    pictures = [{"bytes": jpeg((80 * int(g), 4 * i, 90)), "path": "p"} for i, g in enumerate(group)]
    values = pa.array(h.astype(np.float32).ravel())
    columns = {
        "path": names,
        "label": labels,
        "split": ["test" if i > 50 else "train" for i in range(N)],
        "sharpness": rng.uniform(0, 1, N),
        "x": places[:, 0],
        "y": places[:, 1],
        "image": pictures,
        "h": pa.FixedSizeListArray.from_arrays(values, 8),
    }
    path = tmp_path_factory.mktemp("table") / "flowers.parquet"
    pq.write_table(pa.table(columns), path)
    return read_table(path)


def written(table, folder: Path, **settings: int) -> Path:
    out = folder / "page.html"
    thumbnails = from_column(table)
    assert thumbnails is not None
    write_page(table, thumbnails, out, ExploreConfig(neighbors=4, **settings))
    return out


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium here (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Opened:
    """A page that was opened, with what it asked for and complained of."""

    def __init__(self, browser, path: Path, **settings) -> None:
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=120_000)

    def _heard(self, message) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def place(self, x: float, y: float, table) -> tuple[float, float]:
        """Where a point of the map is on the screen while the whole map is in view."""
        box = self.page.locator("#map").bounding_box()
        low, high = (
            np.array([f(table.columns["x"]), f(table.columns["y"])]) for f in (np.min, np.max)
        )
        width, height = (self.page.evaluate(f"map.client{one}") for one in ("Width", "Height"))
        border = (box["height"] - height) / 2
        unit = ((high - low) / (width - 40, height - 40)).max()
        middle = (low + high) / 2
        return (
            box["x"] + width / 2 + (x - middle[0]) / unit,
            box["y"] + border + height / 2 - (y - middle[1]) / unit,
        )

    def downloaded(self, button: str) -> list[list[str]]:
        return [*csv.reader(io.StringIO(self.saved(button).read_text(encoding="utf-8")))]

    def saved(self, button: str) -> Path:
        with self.page.expect_download() as download:
            self.page.click(button)
        return Path(download.value.path())

    def lasso(self, corners: list[tuple[float, float]]) -> None:
        self.page.click("#lasso")
        before = self.page.inner_text("#count")
        mouse = self.page.mouse
        mouse.move(*corners[0])
        mouse.down()
        for corner in corners[1:]:
            mouse.move(*corner)
        mouse.up()
        self.page.wait_for_function(
            "before => document.getElementById('count').innerText !== before", arg=before
        )
        self.page.click("#move")


@pytest.fixture(scope="module")
def opened(browser, table, tmp_path_factory):
    return Opened(browser, written(table, tmp_path_factory.mktemp("page")))


def test_it_opens_from_disk_and_asks_the_network_for_nothing(opened):
    assert opened.errors == []
    assert {url.partition(":")[0] for url in opened.requests} <= {"file", "blob", "data"}
    assert len([url for url in opened.requests if url.startswith("file")]) == 1
    assert opened.page.inner_text("h1") == "flowers"
    options = opened.page.locator("#colour option").all_inner_texts()
    assert options == [
        "label", "cluster", "split", "outlier score", "sharpness", "labels given here",
    ]  # fmt: skip
    assert opened.page.locator("#legend button").all_inner_texts() == [
        "none\n1", "x\n20", "y\n20", "z\n19",
    ]  # fmt: skip


def test_a_click_shows_the_image_under_it_with_its_neighbours(opened, table):
    for row in (0, 31, 59):
        x, y = opened.place(table.columns["x"][row], table.columns["y"][row], table)
        opened.page.mouse.move(x - 1, y)
        opened.page.mouse.move(x, y)
        opened.page.wait_for_function(
            "name => document.querySelector('#card:not([hidden])')?.innerText.includes(name)",
            arg=str(table.names[row]),
        )
        opened.page.mouse.click(x, y)
        opened.page.wait_for_function(
            "name => document.querySelector('#image h3')?.innerText === name",
            arg=str(table.names[row]),
        )
        unit = table.h / table.h.norm(dim=1, keepdim=True)
        similar = (unit @ unit[row]).argsort(descending=True)[1:5].tolist()
        names = opened.page.locator("#nearest button").evaluate_all("all => all.map(b => b.title)")
        assert names == [table.names[i] for i in similar]
    colour = opened.page.evaluate(
        """async () => {
          const one = document.querySelector('#image .thumb'), image = new Image();
          image.src = one.style.backgroundImage.slice(5, -2);
          await image.decode();
          const [x, y] = one.style.backgroundPosition.split(' ').map(parseFloat);
          const canvas = document.createElement('canvas');
          const side = image.width / 10, context = canvas.getContext('2d');
          context.drawImage(image, -(x / 100) * 9 * side, -(y / 100) * 9 * side);
          return [...context.getImageData(side / 2, side / 2, 1, 1).data];
        }"""
    )
    np.testing.assert_allclose(colour[:3], (80 * (59 % 3), 4 * 59, 90), atol=9)


def test_a_lasso_makes_the_list_and_its_labels_can_be_read_back(opened, table, tmp_path):
    corners = [
        opened.place(10 + 2.5 * math.cos(a), 2.5 * math.sin(a), table)
        for a in np.linspace(0, 2 * math.pi, 13)
    ]
    opened.lasso(corners)
    rows = range(1, N, 3)
    names = [str(table.names[i]).replace("=1", "./=1") for i in range(N)]
    expected = [[names[i], table.label(i), str(table.split[i])] for i in rows]
    assert opened.downloaded("#save") == [["path", "label", "split"], *expected]
    assert opened.page.locator("#selected tbody tr").count() == len(rows)
    opened.page.fill("#label", 'rose, "red"')
    opened.page.click("#labelling button")
    opened.page.fill("#find", "a,b")
    opened.page.click("#finding button")
    assert opened.page.inner_text("#count") == "1 image selected."
    opened.page.fill("#label", "daisy")
    opened.page.click("#labelling button")
    safe = dict(zip(map(str, table.names), names, strict=True))
    given = {names[i]: 'rose, "red"' for i in rows} | {"a,b.jpg": "daisy"}
    header, *lines = opened.downloaded("#save-labels")
    assert header == ["path", "label"]
    assert dict(lines) == given
    assert len(lines) == len(given)
    for row in [*rows, 3]:
        path = tmp_path / str(table.names[row])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg((row, 0, 0)))
    labels = str(opened.saved("#save-labels"))
    images = open_images(DataConfig(spec=str(tmp_path), labels=labels, test_fraction=0.0)).train
    assert images.labels is not None
    read = zip(images.ids, images.labels.tolist(), strict=True)
    assert {safe[id]: images.classes[label] for id, label in read} == given
    opened.page.reload()
    opened.page.wait_for_selector("html[data-ready]")
    assert dict(opened.downloaded("#save-labels")[1:]) == given
    opened.page.select_option("#colour", "given")
    legend = opened.page.locator("#legend button").all_inner_texts()
    assert legend == ["none\n39", "daisy\n1", 'rose, "red"\n20']
    assert opened.errors == []


def test_keys_and_buttons_reach_everything(opened, table):
    page = opened.page
    page.select_option("#colour", label="label")
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    first = page.inner_text("#image h3")
    page.keyboard.press("ArrowLeft")
    second = page.inner_text("#image h3")
    assert first in table.names
    assert second in table.names
    assert first != second
    assert second in page.text_content("#spoken")
    page.keyboard.press("Space")
    assert page.inner_text("#count") == "1 image selected."
    page.click("#legend button:has-text('x')")
    page.click("#legend button:has-text('none')")
    page.click("#shown")
    assert page.inner_text("#count") == "39 images selected."
    page.click("#clear")
    assert page.locator("#save").is_disabled()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select')].filter(one =>
          !(one.innerText || one.getAttribute('aria-label') || one.labels?.length))
            .map(one => one.id)"""
    )
    assert unnamed == []


def test_dragging_moves_the_map_and_the_wheel_zooms(opened, table):
    page = opened.page
    page.click("#whole")
    row = 31
    x, y = opened.place(table.columns["x"][row], table.columns["y"][row], table)
    page.mouse.move(x - 40, y - 30)
    page.mouse.down()
    page.mouse.move(x - 30, y - 25)
    page.mouse.move(x + 20, y)
    page.mouse.up()
    page.mouse.move(x + 60, y + 30)
    page.mouse.wheel(0, -200)
    page.wait_for_function("document.querySelector('.gl-container').style.transform === ''")
    page.wait_for_timeout(400)  # the hand rests, and the map is drawn anew
    page.mouse.move(x + 61, y + 30)
    page.mouse.click(x + 60, y + 30)
    assert page.inner_text("#image h3") == table.names[row]


def test_a_folder_beside_the_page_a_phone_and_the_dark(browser, table, tmp_path):
    out = written(table, tmp_path, packed_mib=0)
    assert [path.name for path in (tmp_path / "page.thumbnails").iterdir()] == ["00000.jpg"]
    phone = {"width": 390, "height": 844}
    opened = Opened(browser, out, viewport=phone, color_scheme="dark", has_touch=True)
    opened.page.fill("#find", "photos/07")
    opened.page.click("#finding button")
    opened.page.wait_for_function(
        "performance.getEntriesByType('resource').length || document.querySelector('#image .thumb')"
    )
    assert opened.errors == []
    assert any(url.endswith("page.thumbnails/00000.jpg") for url in opened.requests)
    assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data", "blob"}
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    dark = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(20, 23, 26)"
    written(table, tmp_path)
    assert not (tmp_path / "page.thumbnails").exists()


def test_what_is_in_the_page_is_text(table, tmp_path):
    """A name that ends the script would be code."""
    text = written(table, tmp_path).read_text()
    start = text.index('id="data">') + len('id="data">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert data["paths"] == table.names.tolist()
