"""Synthetic images with known factors: ten silhouettes with recorded nuisance factors.

A picture is a function of its label, its factors and pixel noise, so probes can measure what a
representation keeps of each. Every silhouette is a polygon with the area of a disc and its centroid
at the given position, so neither area nor position depends on the class.
"""

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from headwise.errors import UserError
from headwise.rng import generator

SHAPES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "crescent",
    "heart",
    "arrow",
    "bowtie",
)
TEXTURES: tuple[str, ...] = ("plain", "gradient", "stripes", "checks", "spots")

SIDE_PX = 32

# The ranges of the uniform factors, which `make_shapes` describes.
RANGES: dict[str, tuple[float, float]] = {
    "x_px": (-4.0, 4.0),
    "y_px": (-4.0, 4.0),
    "size_px": (7.0, 10.0),
    "rotation_turns": (-0.5, 0.5),
    "contrast": (0.3, 0.45),
    "texture_contrast": (0.01, 0.04),
    "texture_frequency": (2.0, 5.0),
    "noise": (0.0, 0.05),
}
_SATURATION = 0.15

# The order of rotational symmetry. 0 means that any rotation leaves the silhouette unchanged.
_SYMMETRY = {
    "circle": 0,
    "square": 4,
    "triangle": 3,
    "star": 5,
    "cross": 4,
    "ring": 0,
    "crescent": 1,
    "heart": 1,
    "arrow": 1,
    "bowtie": 2,
}

_CHUNK = 500  # images rendered together, so that their planes stay in the cache
_TEMPLATE = 128  # samples along each side of a distance template
_REACH = 2.0  # half the side of a template, in units of `size_px`


def make_shapes(
    n: int, seed: int
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"], dict[str, Tensor]]:
    """Return images, labels (indices into `SHAPES`) and factors (`[n]` each), made from `seed`. Ten
    consecutive images hold each class once. The first k images do not depend on `n`.

    Continuous factors (float32; an angle is recorded as its sine and cosine):
    - `x_px`, `y_px`: the silhouette's centroid relative to the image's centre, right and down
    - `size_px`: the radius of a disc with the silhouette's area
    - `rotation_sine`, `rotation_cosine`: for the rotation times the order of the silhouette's
      symmetry, so that equal pictures have equal factors; 0 and 1 for `circle` and `ring`
    - `hue_sine`, `hue_cosine`, `background_hue_sine`, `background_hue_cosine`
    - `lightness`, `background_lightness`: the mean of the channels, from 0 (black) to 1 (white)
    - `texture_contrast`: amplitude of the background's texture, in lightness; 0 for `plain`
    - `texture_frequency`: cycles across the image; 0 for `plain`, 0.5 for `gradient`
    - `texture_sine`, `texture_cosine`: for twice the direction (half a turn changes nothing)
    - `phase_sine`, `phase_cosine`: the texture's phase at the image's centre
    - `noise`: half-width of the uniform noise added to every channel of every pixel; white is 1

    Categorical factors (int64): `texture_kind`, an index into `TEXTURES`.

    Raises `UserError` unless `n` is at least 1.
    """
    if n < 1:
        raise UserError(f"make_shapes needs at least one image; got n={n}")
    labels = _labels(n, seed)
    factors = _factors(labels, seed)
    noise = generator(seed, "shapes", "pixels")
    images = torch.empty(n, 3, SIDE_PX, SIDE_PX, dtype=torch.uint8)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        clean = _render(labels[part], {name: value[part] for name, value in factors.items()})
        grain = torch.rand(clean.shape, generator=noise).mul_(2).sub_(1)
        clean += grain * factors["noise"][part].view(-1, 1, 1, 1)
        images[part] = clean.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return images, labels, factors


def _labels(n: int, seed: int) -> Int64[Tensor, " n"]:
    """Return labels shuffled in groups of ten, so the first k do not depend on `n`."""
    tens = math.ceil(n / len(SHAPES))
    draws = torch.rand(tens, len(SHAPES), generator=generator(seed, "shapes", "label"))
    return draws.argsort(dim=1).flatten()[:n]


def _factors(labels: Int64[Tensor, " n"], seed: int) -> dict[str, Tensor]:
    def uniform(name: str) -> Tensor:
        return torch.rand(len(labels), generator=generator(seed, "shapes", name))

    drawn = {name: low + (high - low) * uniform(name) for name, (low, high) in RANGES.items()}
    factors = {name: drawn[name] for name in ("x_px", "y_px", "size_px", "noise")}
    turns = {name: uniform(name) for name in ("hue", "background_hue", "texture", "phase")}
    order = torch.tensor([_SYMMETRY[shape] for shape in SHAPES])[labels]
    turns["rotation"] = drawn["rotation_turns"] * order
    for name, turn in turns.items():
        factors[f"{name}_sine"] = torch.sin(2 * math.pi * turn)
        factors[f"{name}_cosine"] = torch.cos(2 * math.pi * turn)

    # Half the silhouettes are lighter than the background, so pixel values do not show the class.
    offset = drawn["contrast"] * torch.where(uniform("polarity") < 0.5, -0.5, 0.5)
    middle = 0.4 + 0.2 * uniform("lightness")
    factors |= {"lightness": middle + offset, "background_lightness": middle - offset}

    texture = (uniform("kind") * len(TEXTURES)).long()
    plain, gradient = (texture == TEXTURES.index(kind) for kind in ("plain", "gradient"))
    frequency = drawn["texture_frequency"].masked_fill(plain, 0).masked_fill(gradient, 0.5)
    factors["texture_frequency"] = frequency
    factors["texture_contrast"] = drawn["texture_contrast"].masked_fill(plain, 0)
    factors["texture_kind"] = texture
    return factors


def _render(labels: Int64[Tensor, " n"], factors: dict[str, Tensor]) -> Float[Tensor, "n 3 32 32"]:
    """Return the pictures without noise, from 0 to 1. Only labels and recorded factors matter."""
    coverage = _coverage(labels, factors)[:, None]
    shape = _colour(factors["lightness"], factors["hue_sine"], factors["hue_cosine"])
    ground = _colour(
        factors["background_lightness"],
        factors["background_hue_sine"],
        factors["background_hue_cosine"],
    )
    return torch.lerp(ground + _texture(factors)[:, None], shape, coverage)


def _colour(
    lightness: Float[Tensor, " n"], sine: Float[Tensor, " n"], cosine: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 1 1"]:
    """Add cosines a third of a turn apart. Their sum is 0, so hue does not change lightness."""
    third = 2 * math.pi / 3 * torch.arange(3)
    chroma = cosine[:, None] * third.cos() + sine[:, None] * third.sin()
    return (lightness[:, None] + _SATURATION * chroma)[:, :, None, None]


def _pixels() -> tuple[Float[Tensor, "1 32"], Float[Tensor, "32 1"]]:
    """Return x and y of the pixels' centres relative to the centre of the image."""
    centre = torch.arange(SIDE_PX) - (SIDE_PX - 1) / 2
    return centre[None, :], centre[:, None]


def _texture(factors: dict[str, Tensor]) -> Float[Tensor, "n 32 32"]:
    """Return the texture, which is added to the background's lightness."""
    plane = {name: value.view(-1, 1, 1) for name, value in factors.items()}
    x, y = _pixels()
    direction = torch.atan2(plane["texture_sine"], plane["texture_cosine"]) / 2
    phase = torch.atan2(plane["phase_sine"], plane["phase_cosine"])

    def wave(turn: float) -> Tensor:
        along = x * torch.cos(direction + turn) + y * torch.sin(direction + turn)
        return torch.sin(2 * math.pi / SIDE_PX * plane["texture_frequency"] * along + phase)

    stripes = wave(0.0)
    checks = torch.where(plane["texture_kind"] == TEXTURES.index("checks"), wave(math.pi / 2), 1)
    sixth = (
        math.pi / 3
    )  # three waves a sixth of a turn apart add up to a hexagonal pattern of spots
    spots = (stripes + wave(sixth) + wave(2 * sixth)) / 3
    is_spots = plane["texture_kind"] == TEXTURES.index("spots")
    return plane["texture_contrast"] * torch.where(is_spots, spots, stripes * checks)


def _coverage(labels: Int64[Tensor, " n"], factors: dict[str, Tensor]) -> Float[Tensor, "n 32 32"]:
    """Return the covered fraction of each pixel, from its distance to the outline."""
    order = torch.tensor([max(_SYMMETRY[shape], 1) for shape in SHAPES])[labels]
    rotation = torch.atan2(factors["rotation_sine"], factors["rotation_cosine"]) / order
    size = factors["size_px"].view(-1, 1, 1)
    cos, sin = rotation.cos().view(-1, 1, 1), rotation.sin().view(-1, 1, 1)
    x, y = _pixels()
    x, y = x - factors["x_px"].view(-1, 1, 1), y - factors["y_px"].view(-1, 1, 1)
    grid = torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1) / (_REACH * size[..., None])
    distance = F.grid_sample(
        _templates()[labels][:, None], grid, padding_mode="border", align_corners=True
    )
    return (0.5 - distance[:, 0] * size).clamp(0, 1)


@functools.cache
def _templates() -> Float[Tensor, "shapes side side"]:
    """Return the signed distance to each silhouette's outline (negative inside), for size 1."""
    line = torch.linspace(-_REACH, _REACH, _TEMPLATE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([_distance(torch.stack([x, y], -1), _outline(shape)) for shape in SHAPES])


def _distance(
    points: Float[Tensor, "side side 2"], loops: list[Float[Tensor, "_ 2"]]
) -> Float[Tensor, "side side"]:
    """Return the signed distance to the nearest edge of a polygon with holes. A point is inside if
    a ray to the right crosses an odd number of edges."""
    start = torch.cat(loops)
    edge = torch.cat([loop.roll(-1, dims=0) for loop in loops]) - start
    to_point = points[:, :, None] - start
    along = ((to_point * edge).sum(-1) / edge.square().sum(-1)).clamp(0, 1)
    distance = (to_point - along[..., None] * edge).norm(dim=-1).amin(-1)

    above = to_point[..., 1] < 0
    spans = above != (to_point[..., 1] < edge[:, 1])
    crossing = edge[:, 0] / edge[:, 1] * to_point[..., 1]  # relative to `start`, valid if it spans
    odd = (spans & (to_point[..., 0] < crossing)).sum(-1) % 2
    return torch.where(odd == 1, -distance, distance)


def _outline(shape: str) -> list[Float[Tensor, "_ 2"]]:
    """Return the silhouette's closed loops of vertices, with area π and the centroid at 0."""
    loops = _loops(shape)
    areas, moments = [], []
    for loop in loops:  # the shoelace formula; a hole has the other direction and counts negative
        after = loop.roll(-1, dims=0)
        cross = loop[:, 0] * after[:, 1] - loop[:, 1] * after[:, 0]
        areas.append(cross.sum() / 2)
        moments.append(((loop + after) * cross[:, None]).sum(0) / 6)
    area = sum(areas)
    centroid = sum(moments) / area
    return [(loop - centroid) * (math.pi / abs(area)) ** 0.5 for loop in loops]


def _loops(shape: str) -> list[Float[Tensor, "_ 2"]]:
    """Return the silhouette as designed, in any unit."""
    match shape:
        case "circle":
            return [_arc(0.0, 2 * math.pi)]
        case "square":
            return [torch.tensor([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])]
        case "triangle":
            return [torch.tensor([(0.0, -1.0), (0.75**0.5, 0.5), (-(0.75**0.5), 0.5)])]
        case "star":
            turn = math.pi / 5 * torch.arange(10)
            radius = torch.tensor([1.0, 0.4]).repeat(5)
            return [torch.stack([radius * turn.sin(), -radius * turn.cos()], dim=1)]
        case "cross":
            arm = torch.tensor([(0.3, 0.3), (0.3, 1.0), (-0.3, 1.0)])
            quarter = torch.tensor([(0.0, 1.0), (-1.0, 0.0)])
            turns = [torch.linalg.matrix_power(quarter, k) for k in range(4)]
            return [torch.cat([arm @ turn for turn in turns])]
        case "ring":
            return [_arc(0.0, 2 * math.pi), 0.55 * _arc(2 * math.pi, 0.0)]
        case "crescent":  # a disc without a disc of radius 0.8, half a radius to the right
            tip = torch.tensor([0.61, 0.7924])
            outer, inner = math.atan2(tip[1], tip[0]), math.atan2(tip[1], tip[0] - 0.5)
            bite = 0.8 * _arc(2 * math.pi - inner, inner) + torch.tensor([0.5, 0.0])
            return [torch.cat([_arc(outer, 2 * math.pi - outer)[:-1], bite[:-1]])]
        case "heart":  # a well-known curve of sines and cosines
            t = 2 * math.pi / 64 * torch.arange(64)
            y = 13 * t.cos() - 5 * (2 * t).cos() - 2 * (3 * t).cos() - (4 * t).cos()
            return [torch.stack([16 * t.sin() ** 3, -y], dim=1)]
        case "arrow":
            half = [(0.0, -1.0), (0.8, -0.1), (0.3, -0.1), (0.3, 1.0)]
            return [torch.tensor(half + [(-x, y) for x, y in half[:0:-1]])]
        case "bowtie":
            half = [(0.0, 0.15), (-1.0, 0.8), (-1.0, -0.8)]
            return [torch.tensor(half + [(-x, -y) for x, y in half])]
    raise AssertionError(shape)


def _arc(start: float, end: float) -> Float[Tensor, "65 2"]:
    turn = torch.linspace(start, end, 65)
    return torch.stack([turn.cos(), turn.sin()], dim=1)
