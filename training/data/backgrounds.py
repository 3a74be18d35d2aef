"""Places and what moves in them: the background of the drawn world, as functions of (x, y, time).

x and y run 0..1 over the canvas, y down; a place returns RGB 0..1 for each pixel, a dynamic paints over it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pose.registry import Registry

Colour = Tensor


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that is drawn at random about a background."""

    place: str
    dynamic: str
    sky: tuple[float, float, float]
    ground: tuple[float, float, float]
    accent: tuple[float, float, float]
    horizon: float
    """Height of the ground line, 0 (top) .. 1."""
    seed: float
    """0..1: the layout of houses, drops and flakes."""
    speed: float
    """About 1."""
    strength: float
    """About 1: how much of it there is."""


Place = Callable[[Tensor, Tensor, Scene], Tensor]
Dynamic = Callable[[Tensor, Tensor, Tensor, Tensor, Scene], Tensor]
PLACES: Registry[Place] = Registry("place")
DYNAMICS: Registry[Dynamic] = Registry("dynamic")


def _rgb(colour: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(colour, device=like.device, dtype=like.dtype).view(3, 1, 1)


def _noise(cell: Tensor, seed: float) -> Tensor:
    """A fixed pseudo-random number 0..1 for every cell."""
    return ((cell * 12.9898 + seed * 78.233).sin() * 43758.5453).frac().abs()


def _step(value: Tensor, softness: float = 0.008) -> Tensor:
    """1 where value > 0, with an edge about a pixel wide."""
    return (value / softness + 0.5).clamp(0, 1)


def _over(image: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    return image + (colour - image) * alpha.unsqueeze(-3)


def _ground(image: Tensor, y: Tensor, scene: Scene) -> Tensor:
    depth = ((y - scene.horizon) / (1.001 - scene.horizon)).clamp(0, 1).unsqueeze(-3)
    colour = _rgb(scene.ground, y) * (0.85 + 0.25 * depth)
    return _over(image, colour, _step(y - scene.horizon))


@PLACES.register("flat")
def _flat(x: Tensor, y: Tensor, scene: Scene) -> Tensor:
    return _rgb(scene.sky, x).expand(*x.shape[:-2], 3, *x.shape[-2:])


@PLACES.register("gradient")
def _gradient(x: Tensor, y: Tensor, scene: Scene) -> Tensor:
    top, bottom = _rgb(scene.sky, x), _rgb(scene.accent, x)
    return top + (bottom - top) * y.unsqueeze(-3)


@PLACES.register("wallpaper")
def _wallpaper(x: Tensor, y: Tensor, scene: Scene) -> Tensor:
    k = 18 + 20 * scene.seed
    pattern = ((k * (x + y)).sin() * (k * (x - y)).sin()).unsqueeze(-3)
    sky = _rgb(scene.sky, x)
    wall = sky + (_rgb(scene.accent, x) - sky) * (0.25 + 0.25 * (4 * pattern).tanh())
    return _ground(wall, y, scene)


@PLACES.register("hills")
def _hills(x: Tensor, y: Tensor, scene: Scene) -> Tensor:
    image = _rgb(scene.sky, x) * (1.05 - 0.25 * y.unsqueeze(-3))
    for k, (height, tint) in enumerate(((0.22, 0.6), (0.12, 0.8))):
        ridge = scene.horizon - height * (0.6 + 0.4 * (7 * x + 9 * scene.seed + 2 * k).sin())
        image = _over(image, _rgb(scene.accent, x) * tint, _step(y - ridge))
    return _ground(image, y, scene)


@PLACES.register("town")
def _town(x: Tensor, y: Tensor, scene: Scene) -> Tensor:
    image = _rgb(scene.sky, x) * (1.05 - 0.2 * y.unsqueeze(-3))
    house = (x / 0.17 + 5 * scene.seed).floor()
    roof = scene.horizon - 0.15 - 0.4 * _noise(house, scene.seed)
    wall = _step(y - roof)
    tint = (0.5 + 0.5 * _noise(house, scene.seed + 0.3)).unsqueeze(-3)
    image = _over(image, _rgb(scene.accent, x) * tint, wall)
    inside = _step((x * 2 * math.pi / 0.057).sin() - 0.2, 0.5) * _step((y * 2 * math.pi / 0.08).sin() - 0.2, 0.5)
    image = _over(image, _rgb((0.95, 0.9, 0.6), x), wall * inside * 0.7)
    return _ground(image, y, scene)


@PLACES.register("room")
def _room(x: Tensor, y: Tensor, scene: Scene) -> Tensor:
    wall = _rgb(scene.sky, x).expand(*x.shape[:-2], 3, *x.shape[-2:])
    left, top = 0.1 + 0.5 * scene.seed, 0.12
    frame = _step(0.13 - (x - left - 0.13).abs()) * _step(0.14 - (y - top - 0.14).abs())
    glass = _step(0.11 - (x - left - 0.13).abs()) * _step(0.12 - (y - top - 0.14).abs())
    wall = _over(wall, _rgb((0.95, 0.95, 0.92), x), frame)
    wall = _over(wall, _rgb(scene.accent, x), glass)
    board = _step(y - scene.horizon + 0.035)
    wall = _over(wall, _rgb(scene.sky, x) * 0.6, board)
    return _ground(wall, y, scene)


@DYNAMICS.register("still")
def _still(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    return image


@DYNAMICS.register("rain")
def _rain(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    slanted = x + 0.15 * y
    column = (slanted * 22).floor()
    fall = (y * 1.6 - 2.2 * scene.speed * t + _noise(column, scene.seed)).remainder(1.0)
    stripe = _step(0.16 - ((slanted * 22).frac() - 0.5).abs(), 0.12) * _step(0.28 * scene.strength - fall, 0.05)
    return _over(image, _rgb((0.75, 0.85, 1.0), x), 0.75 * stripe)


@DYNAMICS.register("snow")
def _snow(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    for layer in range(2):
        size = 7.0 + 3 * layer
        drift = 0.05 * (2 * t + 6.28 * scene.seed + layer).sin()
        column = ((x + drift) * size).floor()
        yy = y * size - (0.45 + 0.2 * layer) * size * scene.speed * t + 7 * _noise(column, scene.seed + layer)
        row = yy.floor()
        cx = ((x + drift) * size).frac().abs() - 0.3 - 0.4 * _noise(column + 31 * row, scene.seed)
        cy = yy - row - 0.5
        flake = _step(0.2 * scene.strength - (cx.square() + cy.square()).sqrt(), 0.12)
        flake = flake * (_noise(17 * column + row, scene.seed + 0.7) < 0.6)
        image = _over(image, _rgb((1.0, 1.0, 1.0), x), 0.95 * flake)
    return image


@DYNAMICS.register("clouds")
def _clouds(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    for k in range(3):
        cx = (scene.seed * 3 + 0.4 * k + 0.28 * scene.speed * t).remainder(1.4) - 0.2
        cy = 0.1 + 0.1 * k + 0.05 * scene.seed
        puff = torch.zeros_like(x + t)
        for dx, r in ((-0.09, 0.055), (0.0, 0.08), (0.09, 0.06)):
            d = ((x - cx - dx).square() + ((y - cy) * 1.4).square()).sqrt()
            puff = torch.maximum(puff, _step(r * (0.8 + 0.3 * scene.strength) - d, 0.02))
        image = _over(image, _rgb((0.97, 0.97, 1.0), x), 0.9 * puff)
    return image


@DYNAMICS.register("waves")
def _waves(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    for k in range(3):
        top = scene.horizon - 0.2 + 0.085 * k
        crest = top + 0.03 * scene.strength * (14 * x + (4 - 1.2 * k) * scene.speed * t * 1.5 + 2 * k).sin()
        image = _over(image, _rgb((0.1 + 0.08 * k, 0.35 + 0.1 * k, 0.75), x), 0.9 * _step(y - crest))
        image = _over(image, _rgb((0.9, 0.95, 1.0), x), 0.8 * _step(0.012 - (y - crest).abs()))
    return _ground(image, y, scene)


@DYNAMICS.register("flames")
def _flames(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    for k, (colour, height) in enumerate((((0.85, 0.2, 0.05), 0.42), ((1.0, 0.55, 0.1), 0.3), ((1.0, 0.9, 0.4), 0.16))):
        lick = (
            0.5
            + 0.3 * (23 * x + 9 * scene.speed * t + 6.28 * scene.seed + k).sin()
            + 0.3 * (41 * x - 13 * t + 2 * k).sin()
        )
        top = scene.horizon + 0.02 - height * (0.5 + 0.5 * lick) * scene.strength
        image = _over(image, _rgb(colour, x), 0.9 * _step(y - top, 0.02))
    return _ground(image, y, scene)


@DYNAMICS.register("lights")
def _lights(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    column, row = (x * 6).floor(), (y * 6 - 0.2).floor()
    cell = column + 7 * row
    on = _step((2 * math.pi * (1.3 * scene.speed * t + _noise(cell, scene.seed))).sin(), 0.4)
    d = (((x * 6).frac() - 0.5).square() + ((y * 6 - 0.2).remainder(1.0) - 0.5).square()).sqrt()
    bulb = _step(0.22 * scene.strength - d, 0.1) * (row < 4)
    warm = _noise(cell, scene.seed + 0.5).unsqueeze(-3)
    colour = _rgb((1.0, 0.9, 0.3), x) * warm + _rgb((1.0, 0.35, 0.6), x) * (1 - warm)
    return _over(image, colour * (0.25 + 0.75 * on.unsqueeze(-3)), bulb)


@DYNAMICS.register("grass")
def _grass(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    image = _ground(image, y, scene)
    base = scene.horizon + 0.06
    lift = ((base - y) / 0.24).clamp(0, 1)
    bend = 0.09 * (2 * math.pi * 0.9 * scene.speed * t + 3 * x + 6.28 * scene.seed).sin() * lift.square()
    blade = (x - bend) * 26
    height = 0.55 + 0.45 * _noise(blade.floor(), scene.seed)
    body = _step(
        0.46 * (1 - lift / (height * min(1.0, scene.strength))).clamp(min=0) - (blade.frac() - 0.5).abs(), 0.15
    )
    return _over(image, _rgb((0.2, 0.6, 0.2), x), body * (lift > 0) * (lift < height))


@DYNAMICS.register("pan")
def _pan(image: Tensor, x: Tensor, y: Tensor, t: Tensor, scene: Scene) -> Tensor:
    return image  # `background` moves the coordinates instead: the place itself goes by


def background(
    scene: Scene, time_s: Float[Tensor, "frames"], size: tuple[int, int]
) -> Float[Tensor, "frames 3 height width"]:
    """Draws the place and what moves in it at each time. `size` is (width, height) px."""
    width, height = size
    device = time_s.device
    x = ((torch.arange(width, device=device) + 0.5) / width)[None, None, :].expand(1, height, width)
    y = ((torch.arange(height, device=device) + 0.5) / height)[None, :, None].expand(1, height, width)
    t = time_s[:, None, None]
    if scene.dynamic == "pan":
        x = x + 0.32 * scene.speed * t
    image = PLACES[scene.place](x, y.expand_as(x), scene)
    image = DYNAMICS[scene.dynamic](image, x, y, t, scene)
    return image.clamp(0, 1).expand(len(time_s), 3, height, width)
