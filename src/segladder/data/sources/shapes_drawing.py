"""Pictures of two-eyed creatures with their masks: a function of (seed, split, index), the same on every machine.

Everything random comes from PCG64's raw stream, and pixels from float64 additions, multiplications, divisions and
square roots, which IEEE 754 rounds one way only; no trigonometry, no rasteriser, no versioned random distribution.
Lengths are in pixels of a picture of 96 px; pictures are drawn at twice their size and area-halved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segladder.mask_values import IGNORE

VERSION = 1  # of the pictures: raised whenever their pixels change

SHAPES = ("disc", "square", "triangle", "star", "cross")
TEXTURES = ("solid", "striped", "dotted", "checkered")
HUES = (0.0, 48.0, 125.0, 212.0, 292.0)  # degrees; the body's hue goes with its shape
HEAD_HUES = (0, 2, 3, 4)  # of HUES; the head's hue goes with the texture
SPLITS = ("train", "val")

HEAD = 0.45  # head radius in body radii
LEAN, TILT = 0.177, 0.27  # half-angle tangents: a body leans by +-0.35 rad, its head is within 0.53 rad of its top
RING = 0.6  # where the head's outer ring begins, in head radii
RIM = {"disc": 0.95, "square": 0.85, "triangle": 0.6, "star": 0.6, "cross": 0.8}  # body centre to head centre
SIN_60 = 0.8660254037844386
COS_72, SIN_72, COS_36, SIN_36 = 0.30901699437494745, 0.9510565162951535, 0.8090169943749475, 0.5877852522924731
TRIANGLE = ((0.0, 1.0), (SIN_60, -0.5), (-SIN_60, -0.5))  # unit normals of the sides, y pointing down
PENTAGON = ((0.0, -1.0), (SIN_72, -COS_72), (SIN_36, COS_36), (-SIN_36, COS_36), (-SIN_72, -COS_72))


class Draws:
    """Random numbers of one picture, from the raw PCG64 stream, which numpy promises never to change."""

    def __init__(self, *key: int) -> None:
        self.bits = np.random.PCG64(np.random.SeedSequence(key))

    def raw(self, count: int) -> np.ndarray:
        """Random 64-bit words, uint64 (count,)."""
        return np.asarray(self.bits.random_raw(count), np.uint64)

    def units(self, *shape: int) -> np.ndarray:
        """Uniform in 0..1, float64 of this shape."""
        return ((self.raw(int(np.prod(shape))) >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def uniform(self, low: float, high: float) -> float:
        """One number in low..high."""
        return low + (high - low) * float(self.units(1)[0])

    def below(self, count: int) -> int:
        """One integer in 0..count - 1."""
        return int(self.uniform(0, count))

    def order(self, count: int) -> list[int]:
        """The numbers 0..count - 1 in random order."""
        return [int(i) for i in np.argsort(self.units(count), kind="stable")]

    def direction(self) -> tuple[float, float]:
        """A unit vector of uniform angle."""
        while True:
            x, y = self.uniform(-1, 1), self.uniform(-1, 1)
            square = x * x + y * y
            if 0.01 < square < 1:
                return x / math.sqrt(square), y / math.sqrt(square)

    def bell(self, *shape: int) -> np.ndarray:
        """Nearly normal numbers (each a sum of four uniform ones), mean 0, standard deviation 1."""
        words = self.raw(int(np.prod(shape)))
        total = sum((words >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
        return ((np.asarray(total, np.float64) - 2 * 65535) * (math.sqrt(3) / 65536)).reshape(shape)


@dataclass(frozen=True)
class Figure:
    """A textured shape on the canvas: centre, radius and period in canvas pixels, rotation as (cosine, sine)."""

    shape: str
    texture: str
    center: tuple[float, float]  # x, y
    radius: float
    rotation: tuple[float, float]
    period: float
    tones: np.ndarray  # (2, 3), 0..255


@dataclass
class Canvas:
    """Colours in 0..255, and the owner of each pixel: 0 nobody, 2 k - 1 the body and 2 k the head of creature k."""

    size: int
    colors: np.ndarray = field(init=False)  # float64 (size, size, 3)
    owners: np.ndarray = field(init=False)  # uint8 (size, size)

    def __post_init__(self) -> None:
        self.colors = np.zeros((self.size, self.size, 3))
        self.owners = np.zeros((self.size, self.size), np.uint8)

    def window(self, center: tuple[float, float], reach: float) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The part of the canvas within `reach` of a point: its slices, and x (1, w) and y (h, 1) from the point."""
        (x0, x1), (y0, y1) = ((max(0, int(c - reach)), max(0, min(self.size, int(c + reach) + 1))) for c in center)
        x = np.arange(x0, x1)[None, :] + 0.5 - center[0]
        y = np.arange(y0, y1)[:, None] + 0.5 - center[1]
        return (slice(y0, y1), slice(x0, x1)), x, y


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How far (u, v) lies outside a shape of radius 1 (negative inside), in radii; y points down."""
    outside: np.ndarray
    if shape == "disc":
        outside = np.sqrt(u * u + v * v) - 1
    elif shape == "square":
        outside = np.maximum(np.abs(u), np.abs(v)) - 0.87
    elif shape == "cross":
        long, wide = 1.05, 0.38
        upright = np.maximum(np.abs(u) - wide, np.abs(v) - long)
        outside = np.minimum(upright, np.maximum(np.abs(u) - long, np.abs(v) - wide))
    else:
        first, second = highest([u * x + v * y for x, y in (TRIANGLE if shape == "triangle" else PENTAGON)])
        outside = first - 0.6 if shape == "triangle" else second - 1.25 * COS_72  # a tip lies beyond one side only
    return outside


def highest(sides: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the second largest of several maps at every place, each (h, w)."""
    first, second = np.maximum(sides[0], sides[1]), np.minimum(sides[0], sides[1])
    for side in sides[2:]:
        second = np.maximum(second, np.minimum(first, side))
        first = np.maximum(first, side)
    return first, second


def second_tone(texture: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where a texture shows its second tone, bool (h, w); u and v (h, w) are places in periods of the texture."""
    second = np.zeros(np.broadcast_shapes(u.shape, v.shape), bool)
    if texture == "striped":
        second[:] = (np.floor(2 * u) % 2) == 1
    elif texture == "checkered":
        second[:] = ((np.floor(2 * u) + np.floor(2 * v)) % 2) == 1
    elif texture == "dotted":
        x, y = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
        second[:] = x * x + y * y < 0.1
    return second


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """HSV (degrees, 0..1, 0..1) to RGB in 0..255, float64 (3,)."""
    sectors = [(n + hue / 60) % 6 for n in (5, 3, 1)]
    return np.array([255 * value * (1 - saturation * max(0.0, min(k, 4 - k, 1.0))) for k in sectors])


def rotation(draws: Draws, half: float) -> tuple[float, float]:
    """Cosine and sine of a random angle, at most twice the angle whose tangent is `half` to either side."""
    tangent = draws.uniform(-half, half)
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def turned(x: np.ndarray, y: np.ndarray, rotation: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y (h, w) in a frame turned by `rotation`."""
    cosine, sine = rotation
    return cosine * x + sine * y, cosine * y - sine * x


def paint(canvas: Canvas, figure: Figure, outline: float) -> tuple[tuple[slice, slice], np.ndarray]:
    """Colour a figure: two tones, lighter above, a dark outline of `outline` pixels. Returns its window and pixels."""
    window, x, y = canvas.window(figure.center, 1.3 * figure.radius)
    u, v = turned(x, y, figure.rotation)
    far = distance(figure.shape, u / figure.radius, v / figure.radius)
    second = second_tone(figure.texture, u / figure.period, v / figure.period)
    shade = np.where(far * figure.radius > -outline, 0.35, 1.06 - 0.2 * y / figure.radius)
    inside = far < 0
    colors = np.where(second[..., None], figure.tones[1], figure.tones[0]) * shade[..., None]
    canvas.colors[window][inside] = colors[inside]
    return window, inside


def fill_background(canvas: Canvas, draws: Draws) -> None:
    """Two muted colours, mixed by three octaves of bilinear noise."""
    size = canvas.size // 2  # of the final picture: noise this coarse needs no finer grid
    mix = np.zeros((size, size))
    for cells, weight in ((3, 0.5), (6, 0.3), (14, 0.2)):
        grid = draws.units(cells + 1, cells + 1)
        place = (np.arange(size) + 0.5) / size * cells
        low = np.floor(place).astype(np.int64)
        share = place - low
        rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
        mix += weight * (rows[:, low] * (1 - share) + rows[:, low + 1] * share)
    first, second = (rgb(draws.uniform(0, 360), draws.uniform(0.05, 0.3), draws.uniform(0.35, 0.8)) for _ in range(2))
    mix = np.clip(2 * mix - 0.5, 0, 1)[..., None]
    canvas.colors[:] = (first * (1 - mix) + second * mix).repeat(2, axis=0).repeat(2, axis=1)


def add_clutter(canvas: Canvas, draws: Draws, scale: float) -> None:
    """4 to 8 shapes without heads: mostly grey, some saturated, some textured."""
    for _ in range(4 + draws.below(5)):
        hue, value = draws.uniform(0, 360), draws.uniform(0.35, 0.8)
        saturation = draws.uniform(0.4, 0.8) if draws.uniform(0, 1) < 0.2 else draws.uniform(0, 0.12)
        texture = TEXTURES[1 + draws.below(3)] if draws.uniform(0, 1) < 0.25 else "solid"
        figure = Figure(
            shape=SHAPES[draws.below(5)],
            texture=texture,
            center=(draws.uniform(0, canvas.size), draws.uniform(0, canvas.size)),
            radius=scale * draws.uniform(5, 13),
            rotation=draws.direction(),
            period=scale * draws.uniform(5, 7),
            tones=np.stack([rgb(hue, saturation, value), rgb(hue, saturation / 3, value + 0.15)]),
        )
        paint(canvas, figure, outline=0.0)


@dataclass(frozen=True)
class Creature:
    """A body, the centre of its head, and the class that decides both."""

    kind: int  # 0..19: 4 shape + texture
    body: Figure
    head: tuple[float, float]

    @property
    def head_radius(self) -> float:
        """In canvas pixels."""
        return HEAD * self.body.radius


def random_creature(kind: int, size: int, draws: Draws, scale: float) -> Creature:
    """A creature of a class anywhere on a canvas: hue within 50 degrees of its shape's, radius 16..28."""
    shape, texture = SHAPES[kind // 4], TEXTURES[kind % 4]
    hue = (HUES[kind // 4] + draws.uniform(-50, 50)) % 360
    value = draws.uniform(0.75, 0.95)
    radius = scale * draws.uniform(16, 28)
    x, y = draws.uniform(0.15, 0.85) * size, draws.uniform(0.15, 0.85) * size
    cosine, sine = rotation(draws, TILT)
    body = Figure(
        shape=shape,
        texture=texture,
        center=(x, y),
        radius=radius,
        rotation=rotation(draws, LEAN),
        period=scale * draws.uniform(5, 7),
        tones=np.stack([rgb(hue, draws.uniform(0.6, 0.85), value), rgb(hue, 0.25, value)]),
    )
    reach = RIM[shape] * radius
    return Creature(kind, body, (x + reach * sine, y - reach * cosine))


def stake(canvas: Canvas, creature: Creature, number: int) -> np.ndarray:
    """The canvas' owners if this creature, the `number`-th, stood on top."""
    owners = canvas.owners.copy()
    window, x, y = canvas.window(creature.body.center, 1.3 * creature.body.radius)
    u, v = turned(x, y, creature.body.rotation)
    owners[window][distance(creature.body.shape, u / creature.body.radius, v / creature.body.radius) < 0] = (
        2 * number - 1
    )
    window, x, y = canvas.window(creature.head, creature.head_radius)
    owners[window][x * x + y * y < creature.head_radius * creature.head_radius] = 2 * number
    return owners


def paint_head(canvas: Canvas, creature: Creature, outline: float) -> None:
    """A ring in the body's nominal hue, a core in the head's hue, two black eyes: the part that names the class."""
    radius = creature.head_radius
    window, x, y = canvas.window(creature.head, radius)
    u, v = turned(x / radius, y / radius, creature.body.rotation)
    far = np.sqrt(u * u + v * v)
    colors = canvas.colors[window]
    colors[far < 1] = rgb(HUES[creature.kind // 4], 0.85, 0.9)
    colors[(far < 1) & (far > 1 - outline / radius)] *= 0.35
    colors[far < RING] = rgb(HUES[HEAD_HUES[creature.kind % 4]], 0.85, 0.95)
    across = np.abs(u) - 0.27
    colors[across * across + v * v < 0.17 * 0.17] = 10.0


def is_legible(owners: np.ndarray, whole: Sequence[tuple[int, int]]) -> bool:
    """Whether each creature shows at least 60 % of its body and 80 % of its head; `whole` is (body, head) in pixels."""
    seen = np.bincount(owners.reshape(-1), minlength=2 * len(whole) + 1)
    return all(seen[2 * k + 1] >= 0.6 * body and seen[2 * k + 2] >= 0.8 * head for k, (body, head) in enumerate(whole))


def whole_parts(creature: Creature) -> tuple[int, int]:
    """Body and head pixels of a creature alone on an endless canvas."""
    reach = int(2 * creature.body.radius) + 1
    dx, dy = (reach - int(c) for c in creature.body.center)  # whole pixels: the same raster
    (x, y), (head_x, head_y) = creature.body.center, creature.head
    moved = Creature(creature.kind, replace(creature.body, center=(x + dx, y + dy)), (head_x + dx, head_y + dy))
    counts = np.bincount(stake(Canvas(2 * reach + 1), moved, 1).reshape(-1), minlength=3)
    return int(counts[1]), int(counts[2])


def add_creatures(canvas: Canvas, draws: Draws, scale: float, tries: int = 40) -> list[int]:
    """One to three creatures of different classes, later ones in front. Returns their classes, 0..19.

    A creature that finds no place where all stay legible in so many tries is left out; the first has ten times as many.
    """
    wanted = 1 + int(np.searchsorted((0.3, 0.7), draws.uniform(0, 1)))
    kinds: list[int] = []
    whole: list[tuple[int, int]] = []
    for kind in draws.order(20)[:wanted]:
        for _ in range(tries if kinds else 10 * tries):
            creature = random_creature(kind, canvas.size, draws, scale)
            owners = stake(canvas, creature, len(kinds) + 1)
            parts = whole_parts(creature)
            if is_legible(owners, [*whole, parts]):
                canvas.owners = owners
                paint(canvas, creature.body, outline=scale)
                paint_head(canvas, creature, outline=scale)
                kinds.append(kind)
                whole.append(parts)
                break
    return kinds


def with_borders(instances: np.ndarray) -> np.ndarray:
    """Where a pixel's upper, lower, left or right neighbour belongs to something else, bool (H, W): 2 px wide."""
    border = np.zeros(instances.shape, bool)
    down = instances[1:] != instances[:-1]
    right = instances[:, 1:] != instances[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


def draw(seed: int, split: str, index: int, size: int = 96) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """One picture of the data set.

    Args:
        seed: of the data set.
        split: `train` or `val`.
        index: of the picture in its split; no picture depends on another.
        size: height and width in pixels; every length scales with it.

    Returns:
        RGB image uint8 (size, size, 3); mask uint8 (size, size) of 0, classes 1..20 and 255 on borders; its classes.
    """
    draws = Draws(seed, SPLITS.index(split), index)
    canvas, scale = Canvas(2 * size), 2 * size / 96
    fill_background(canvas, draws)
    add_clutter(canvas, draws, scale)
    kinds = add_creatures(canvas, draws, scale)
    fine = canvas.colors
    image = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4 + 5 * draws.bell(size, size, 3)
    instances = (canvas.owners[1::2, 1::2] + 1) // 2
    mask = np.array([0, *(kind + 1 for kind in kinds)], np.uint8)[instances]
    mask[with_borders(instances)] = IGNORE
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8), mask, [kind + 1 for kind in kinds]
