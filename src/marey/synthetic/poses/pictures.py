"""People drawn from their joints, as a poor camera sees them: what a pose network is shown to learn
its errors.

Limbs are shaded capsules in clothes, before a wall, a floor and clutter; then blur, grain, few
pixels, poor light and JPEG. Axes: F moments, N people, 17 keypoints; pictures (H, W, 3), RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.errors import import_extra

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
Part = tuple[float, Callable[[Any], None]]
"""Depth in metres, and what draws it."""

HEIGHT, WIDTH = 360, 480
"""Pixels of a picture."""

ACTOR_HEIGHT = (0.09, 0.75)
"""Of the picture's height."""

FINE = 2
"""People are drawn so many times larger, and reduced."""

DARK = 0.72
"""Share of the light that the far side of a limb has."""

FRACTION_BITS = 4
"""Of OpenCV's coordinates: sixteenths of a pixel."""

SKINS = (
    (255, 224, 196),
    (240, 205, 180),
    (234, 192, 160),
    (198, 150, 115),
    (150, 105, 75),
    (100, 68, 48),
)
HAIRS = ((30, 22, 18), (60, 42, 30), (100, 75, 50), (20, 20, 22), (150, 120, 80), (120, 120, 120))

LIMBS = (
    # joints of the left side, radius at both ends in metres, what covers it
    ((11, 13), (0.085, 0.060), "legs"),
    ((13, 15), (0.058, 0.042), "shins"),
    ((5, 7), (0.055, 0.045), "top"),
    ((7, 9), (0.042, 0.032), "forearms"),
)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Colours (3,) in 0 to 255 and shape of one person."""

    skin: Array
    hair: Array
    top: Array
    legs: Array
    shoes: Array
    bare_arms: bool
    bare_legs: bool
    width: float
    """Factor of the radii of limbs and trunk."""
    coat: float
    """How far the top hangs below the hips, as a share of the trunk."""
    long_hair: bool
    belt: bool

    def colour(self, part: str) -> Array:
        """Return the colour of "top", "legs", "shins" or "forearms"."""
        bare = {"shins": self.bare_legs, "forearms": self.bare_arms}.get(part, False)
        if bare:
            return self.skin
        return self.legs if part in ("legs", "shins") else self.top


def draw_cloth(rng: Generator) -> Array:
    """Draw a colour (3,) of clothes: dark, light, or any."""
    kind = rng.random()
    if kind < 0.45:
        colour = rng.uniform(15, 90) + rng.normal(0, 12, 3)
    elif kind < 0.62:
        colour = rng.uniform(150, 240) + rng.normal(0, 10, 3)
    else:
        colour = rng.uniform(10, 230, 3)
    return np.asarray(np.clip(colour, 0, 255))


def draw_looks(rng: Generator) -> Looks:
    """Draw a person's looks."""
    top = draw_cloth(rng)
    return Looks(
        skin=np.array(SKINS[rng.integers(len(SKINS))], float),
        hair=np.array(HAIRS[rng.integers(len(HAIRS))], float),
        top=top,
        legs=draw_cloth(rng) if rng.random() < 0.9 else top,
        shoes=0.7 * draw_cloth(rng),
        bare_arms=rng.random() < 0.25,
        bare_legs=rng.random() < 0.12,
        width=rng.uniform(0.85, 1.3),
        coat=rng.uniform(0, 0.45) if rng.random() < 0.3 else 0.0,
        long_hair=rng.random() < 0.35,
        belt=rng.random() < 0.2,
    )


class Brush:
    """Draws shaded shapes with OpenCV; the light comes from one direction.

    Args:
        light: (2,), towards the light in the picture, x right, y down.
    """

    def __init__(self, light: Array) -> None:
        self.cv2 = import_extra("cv2", "mocap", "drawing people")
        self.light = light

    def _fixed(self, point: Array) -> tuple[int, int]:
        return round(float(point[0]) * 16), round(float(point[1]) * 16)

    def dot(self, image: Any, place: Array, radius: float, colour: Array) -> None:
        """Draw a disc."""
        tint = tuple(float(value) for value in np.clip(colour, 0, 255))
        size, middle = max(1, int(radius * 16)), self._fixed(place)
        self.cv2.circle(image, middle, size, tint, -1, self.cv2.LINE_AA, FRACTION_BITS)

    def polygon(self, image: Any, corners: Array, colour: Array) -> None:
        """Fill a convex polygon (n, 2)."""
        tint = tuple(float(value) for value in np.clip(colour, 0, 255))
        corners = np.round(corners * 16).astype(np.int32)
        hull = self.cv2.convexHull(corners)
        self.cv2.fillConvexPoly(image, hull, tint, self.cv2.LINE_AA, FRACTION_BITS)

    def capsule(
        self, image: Any, ends: tuple[Array, Array], radii: tuple[float, float], colour: Array
    ) -> None:
        """Draw a limb: dark, and lighter on the side of the light."""
        thick = (radii[0] + radii[1]) / 2
        for share, tint in ((1.0, DARK * colour), (0.62, colour)):
            first, last = (end + self.light * (1 - share) * 0.9 * thick for end in ends)
            self.dot(image, first, radii[0] * share, tint)
            self.dot(image, last, radii[1] * share, tint)
            way = last - first
            length = float(np.linalg.norm(way))
            if length > 1e-3:
                across = share * np.array([-way[1], way[0]]) / length
                sides = (first, radii[0]), (last, radii[1]), (last, -radii[1]), (first, -radii[0])
                self.polygon(image, np.array([end + across * r for end, r in sides]), tint)

    def blob(self, image: Any, corners: Array, colour: Array, thick: float) -> None:
        """Draw the hull of some points (n, 2) as `capsule` draws a limb."""
        middle = corners.mean(0)
        for share, tint in ((1.0, DARK * colour), (DARK, colour)):
            offset = self.light * (1 - share) * thick
            self.polygon(image, middle + share * (corners - middle) + offset, tint)


def figure_parts(
    places: Array, depths: Array, metre: float, looks: Looks, brush: Brush
) -> list[Part]:
    """Return what one person is drawn of.

    Args:
        places: (17, 2), pixels.
        depths: (17,), metres, larger is farther.
        metre: pixels of a metre where the person stands.
    """
    wide = looks.width * metre
    parts: list[Part] = []

    def limb(
        depth: float, ends: tuple[Array, Array], radii: tuple[float, float], colour: Array
    ) -> None:
        parts.append((depth, lambda image: brush.capsule(image, ends, radii, colour)))

    toes = metre * (0.15 * facing(places, depths, metre)[:2] + (0, 0.06))
    for side in range(2):
        for (root, end), (thick, thin), cover in LIMBS:
            pair = [root + side, end + side]
            arm = 0.01 if cover in ("top", "forearms") else 0.0  # before the trunk where level
            limb(
                float(depths[pair].mean()) - arm,
                (places[pair[0]], places[pair[1]]),
                (thick * wide, thin * wide),
                looks.colour(cover),
            )
        ankle, wrist, elbow = 15 + side, 9 + side, 7 + side
        heel = places[ankle] + (0, 0.03 * metre)
        limb(
            float(depths[ankle]) - 0.02,
            (heel, places[ankle] + toes),
            (0.042 * metre, 0.035 * metre),
            looks.shoes,
        )
        fingers = places[wrist] + 0.28 * (places[wrist] - places[elbow])
        limb(
            float(depths[wrist]) - 0.02,
            (places[wrist], fingers),
            (0.035 * metre, 0.03 * metre),
            looks.skin,
        )

    shoulders, hips = places[[5, 6]], places[[11, 12]]
    trunk_depth = float(depths[[5, 6, 11, 12]].mean())
    parts.append((trunk_depth, lambda image: _trunk(image, shoulders, hips, metre, looks, brush)))

    head, neck = places[[3, 4]].mean(0) * 0.6 + places[:3].mean(0) * 0.4, shoulders.mean(0)
    head_depth = float(depths[:5].mean())
    limb(min(trunk_depth, head_depth), (neck, head), (0.05 * metre, 0.05 * metre), 0.9 * looks.skin)
    parts.append(
        (
            head_depth - 0.03,
            lambda image: _head(image, places, depths, head, neck, metre, looks, brush),
        )
    )
    return parts


def facing(places: Array, depths: Array, metre: float) -> Array:
    """Return where a body faces: right, down and away from the camera, of length 1."""
    left, right, high, low = [5, 11], [6, 12], [5, 6], [11, 12]

    def between(ends: list[int], starts: list[int]) -> Array:
        way = (places[ends].mean(0) - places[starts].mean(0)) / metre
        return np.array([*way, depths[ends].mean() - depths[starts].mean()])

    forward = np.cross(between(left, right), between(high, low))
    return np.asarray(forward / max(float(np.linalg.norm(forward)), 1e-6))


def _trunk(
    image: Any, shoulders: Array, hips: Array, metre: float, looks: Looks, brush: Brush
) -> None:
    radius = 0.06 * looks.width * metre
    hem = hips + 0.6 * looks.coat * (hips - shoulders)
    turns = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    rings = ((shoulders, 1.0), (hips, 1.15), (hem, 1.2))
    corners = [place + factor * radius * circle for pair, factor in rings for place in pair]
    brush.blob(image, np.concatenate(corners), looks.top, 0.08 * metre)
    if looks.belt:
        waist = (shoulders + hips) / 2
        brush.capsule(image, (waist[0], waist[1]), (0.03 * metre, 0.03 * metre), looks.legs)


def _head(
    image: Any,
    places: Array,
    depths: Array,
    head: Array,
    neck: Array,
    metre: float,
    looks: Looks,
    brush: Brush,
) -> None:
    radius = 0.105 * metre
    up = (head - neck) / max(float(np.linalg.norm(head - neck)), 1e-6)
    nose = places[0] - head
    back = head - 0.25 * nose + 0.03 * metre * up
    if looks.long_hair:
        brush.capsule(image, (back, back - 0.16 * metre * up), (radius, 0.8 * radius), looks.hair)
    brush.capsule(image, (back, back + 0.01 * metre * up), (radius, radius), looks.hair)
    ears = float(depths[[3, 4]].mean())
    if ears - depths[0] < -0.03:  # seen from behind
        return
    face = head + 0.22 * nose - 0.012 * metre * up
    brow, chin = face + 0.02 * metre * up, face - 0.05 * metre * up
    brush.capsule(image, (brow, chin), (0.86 * radius, 0.7 * radius), looks.skin)
    for eye in (1, 2):
        if depths[eye] < ears + 0.02:
            brush.dot(image, places[eye], 0.013 * metre, np.array([40.0, 30.0, 30.0]))
    brush.dot(image, places[0], 0.018 * metre, 0.75 * looks.skin)
    brush.dot(image, face - 0.055 * metre * up, 0.016 * metre, 0.6 * looks.skin)
    fringe = (back + 0.05 * metre * up, back + 0.06 * metre * up)
    brush.capsule(image, fringe, (0.75 * radius, 0.75 * radius), looks.hair)


def draw_backdrop(rng: Generator, cv2: Any) -> NDArray[np.float32]:
    """Draw a place (HEIGHT, WIDTH, 3), 0 to 255: a wall, a floor, up to 29 things, stains and
    texture."""
    H, W = HEIGHT, WIDTH
    wall = np.clip(rng.uniform(50, 215) + rng.normal(0, 9, 3), 0, 255)
    image = np.ones((H, W, 3), np.float32) * wall.astype(np.float32)
    floor = np.clip(wall + rng.normal(0, 40) + rng.normal(0, 8, 3), 0, 255)
    image[max(0, int(H * rng.uniform(-0.1, 0.65))) :] = floor
    image += rng.normal(0, 18) * np.linspace(-1, 1, H)[:, None, None]
    image += rng.normal(0, 18) * np.linspace(-1, 1, W)[None, :, None]

    for _ in range(rng.integers(0, 30)):
        shade = np.clip(wall + rng.normal(0, 50) + rng.normal(0, 14, 3), 0, 255)
        colour = tuple(float(value) for value in shade)
        x, y, kind = rng.uniform(0, W), rng.uniform(0, H), rng.random()
        if kind < 0.55:
            width, height = rng.uniform(0.02, 0.35) * W, rng.uniform(0.02, 0.4) * H
            corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
            corners += rng.normal(0, 0.03, (4, 2)) * (W, H)
            cv2.fillConvexPoly(image, corners.astype(np.int32), colour, cv2.LINE_AA)
        elif kind < 0.8:
            to_x = rng.uniform(0, W) if rng.random() < 0.4 else x
            end = (int(to_x), int(rng.uniform(0, H)))
            cv2.line(image, (int(x), int(y)), end, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
        else:
            axes = tuple(int(value) for value in rng.uniform(3, 0.15 * np.array([W, H])))
            angle = rng.uniform(0, 180)
            cv2.ellipse(image, (int(x), int(y)), axes, angle, 0, 360, colour, -1, cv2.LINE_AA)

    stains = rng.normal(0, 1, (H // 16 + 2, W // 16 + 2, 1))
    stains = stains + 0.2 * rng.normal(0, 1, (*stains.shape[:2], 3))
    image += cv2.resize(stains, (W, H), interpolation=cv2.INTER_CUBIC) * rng.uniform(0, 9)
    texture = rng.normal(0, 1, (H // 2 + 1, W // 2 + 1))
    image += cv2.resize(texture, (W, H))[..., None] * rng.uniform(0, 9)
    return np.clip(image, 0, 255)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """What a camera makes of a scene."""

    blur: float
    """Standard deviation in pixels."""
    reduced: float
    """Share of the pixels a side that are left, before the picture is enlarged again."""
    gamma: float
    gain: float
    lift: float
    grain: float
    """Standard deviation of the noise, of 255."""
    grey: bool
    jpeg_quality: int

    def take(self, image: Any, rng: Generator, cv2: Any) -> Picture:
        """Return the picture (H, W, 3) of a scene of the same size."""
        H, W = image.shape[:2]
        image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.reduced < 1:
            few = cv2.resize(
                image, None, fx=self.reduced, fy=self.reduced, interpolation=cv2.INTER_AREA
            )
            image = cv2.resize(few, (W, H), interpolation=cv2.INTER_LINEAR)
        image = 255 * np.clip(image / 255, 0, 1) ** self.gamma * self.gain + self.lift
        if self.grain:
            image = image + rng.normal(0, self.grain, image.shape)
        if self.grey:
            image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
        image = np.clip(image, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality]
        return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR))


def draw_camera(rng: Generator, actor_pixels: float) -> Camera:
    """Draw a camera; larger people are blurred a little more.

    Args:
        actor_pixels: height of the person who matters.
    """
    blur = np.exp(rng.uniform(np.log(0.3), np.log(1.8)))
    return Camera(
        blur=float(blur * (actor_pixels / 120) ** 0.35),
        reduced=float(rng.choice([1, 1, 1, 0.66, 0.5])),
        gamma=float(np.exp(rng.normal(0, 0.3))),
        gain=rng.uniform(0.55, 1.1),
        lift=rng.uniform(0, 40),
        grain=rng.uniform(0, 8) if rng.random() < 0.5 else 0.0,
        grey=rng.random() < 0.15,
        jpeg_quality=int(rng.uniform(12, 85)),
    )


def film(
    places: Sequence[Array], depths: Sequence[Array], distance: float, rng: Generator
) -> tuple[Picture, Array]:
    """Film people.

    Args:
        places: of each person (F, 17, 2), as `views.look` projects them; the first matters most.
        depths: of each person (F, 17), metres beyond the middle.
        distance: metres from the camera to that middle.

    Returns:
        Pictures (F, HEIGHT, WIDTH, 3), RGB, and where the keypoints are in them (F, N, 17, 2).
    """
    cv2 = import_extra("cv2", "mocap", "drawing people")
    size = np.array([WIDTH, HEIGHT])
    actor = places[0]
    share = np.exp(rng.uniform(*np.log(ACTOR_HEIGHT)))
    pixels = share * HEIGHT
    metre = pixels / max(float(np.percentile(np.ptp(actor, axis=1).max(-1), 90)), 1e-6)
    ends = np.stack([actor.min((0, 1)), actor.max((0, 1))])
    room = np.maximum((size - (ends[1] - ends[0]) * metre) / 2, 0.05 * pixels)
    centre = size / 2 + rng.uniform(-1, 1, 2) * rng.uniform(0.2, 1) * room
    shown = (np.stack(places, axis=1) - ends.mean(0)) * metre + centre  # (F, N, 17, 2)

    looks = [draw_looks(rng) for _ in places]
    brush = Brush(np.array([rng.choice([-1, 1]) * rng.uniform(0.3, 1), -rng.uniform(0.2, 1)]))
    backdrop = cv2.resize(draw_backdrop(rng, cv2), (WIDTH * FINE, HEIGHT * FINE))
    camera = draw_camera(rng, pixels)
    hides = rng.random() < 0.12
    middle = shown[:, 0].mean((0, 1)) + rng.uniform((-0.3, -0.2), (0.3, 0.5)) * pixels
    half = rng.uniform((0.05, 0.1), (0.3, 0.5)) * pixels
    cover = draw_cloth(rng)

    pictures = np.empty((len(actor), HEIGHT, WIDTH, 3), np.uint8)
    for moment in range(len(actor)):
        image = backdrop.copy()
        parts: list[Part] = []
        for person, who in enumerate(looks):
            here, deep = shown[moment, person] * FINE, depths[person][moment]
            near = distance / max(distance + float(deep.mean()), 0.3 * distance)
            unit = metre * FINE * near
            _shadow(image, here[[15, 16]].mean(0), unit, cv2)
            parts += figure_parts(here, deep, unit, who, brush)
        for _, draw in sorted(parts, key=lambda part: -part[0]):
            draw(image)
        if hides:
            corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + middle
            brush.polygon(image, corners * FINE, cover)
        small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        pictures[moment] = camera.take(small, rng, cv2)
    return pictures, shown


def _shadow(image: Any, feet: Array, metre: float, cv2: Any) -> None:
    """Darken the ground under somebody."""
    x, y = (
        int(np.clip(place, 0, side - 1))
        for place, side in zip(feet, image.shape[1::-1], strict=True)
    )
    tint = tuple(0.7 * float(value) for value in image[y, x])
    axes = (max(1, int(0.25 * metre)), max(1, int(0.07 * metre)))
    place = (int(feet[0]), int(feet[1] + 0.06 * metre))
    cv2.ellipse(image, place, axes, 0, 0, 360, tint, -1, cv2.LINE_AA)
