"""Draws the pictures: shapes on a 3x3 grid, printed numbers, printed words, handwritten digits.

A picture is a `Scene` (what is true of it) and a PIL image. Everything that matters lies in the central
square, because LLaVA's preprocessing cuts a centred square out of a non-square picture.
"""

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from words import WORDS

SHAPES = ["circle", "square", "triangle", "star", "heart", "diamond", "cross", "moon"]
COLORS = {
    "red": (218, 38, 38), "orange": (245, 138, 28), "yellow": (245, 214, 44), "green": (46, 160, 68),
    "blue": (42, 92, 214), "purple": (136, 58, 172), "pink": (246, 148, 190), "black": (22, 22, 24),
    "gray": (128, 128, 130), "white": (248, 248, 246),
}
BACKGROUNDS = {
    "white": [(250, 250, 250), (243, 243, 240)], "black": [(16, 16, 18), (30, 30, 32)],
    "gray": [(160, 160, 162), (122, 122, 124), (178, 178, 178)],
    "yellow": [(252, 240, 178), (248, 226, 120)], "green": [(200, 234, 200), (22, 74, 44)],
    "blue": [(198, 220, 246), (22, 40, 96)], "pink": [(252, 218, 230), (244, 190, 210)],
}
HELD_OUT_DIGITS = 360  # of the 1797 in scikit-learn, stratified by digit, split with a fixed seed


@dataclass(frozen=True)
class Item:
    """One shape: its name, its colour and the (row, column) of its cell in the 3x3 grid."""

    shape: str
    color: str
    cell: tuple


@dataclass
class Scene:
    """What is true of a picture. `kind` is shapes, number, word or handwriting; `text` what is written."""

    kind: str
    background: str
    items: list = field(default_factory=list)
    text: str = ""
    color: str = ""


@lru_cache(maxsize=1)
def digits():
    """The handwriting: (training images, training labels, held-out images, held-out labels), 8x8, 0..16."""
    data = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        data.images, data.target, test_size=HELD_OUT_DIGITS, random_state=0, stratify=data.target
    )
    return train_x, train_y, test_x, test_y


@lru_cache(maxsize=1)
def noise_bank():
    """Fixed standard normal noise, cut at random offsets; much cheaper than fresh noise per picture."""
    return np.random.default_rng(7).normal(0, 1, (640, 640, 3)).astype(np.float32)


@lru_cache(maxsize=256)
def font(size):
    """The typeface that ships inside Pillow, so no font file is needed."""
    return ImageFont.load_default(size)


def jitter(rng, rgb, amount):
    """A slightly different tone. Greys stay grey: a tinted grey would be another colour's name."""
    if max(rgb) - min(rgb) < 12:
        shift = rng.randint(-amount, amount)
        return tuple(min(255, max(0, c + shift + rng.randint(-2, 2))) for c in rgb)
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in rgb)


def random_size(rng):
    """(width, height) of an ordinary picture: half of them squares, the others up to 1.9 times as long as wide."""
    short = rng.randint(112, 360)
    long = short if rng.random() < 0.5 else int(short * rng.uniform(1.05, 1.9))
    return (short, long) if rng.random() < 0.5 else (long, short)


def canvas(rng, size=None):
    """A background: (image, its colour name, its mean tone, (left, top, side) of the central square)."""
    size = size or random_size(rng)
    width, height = size
    name = rng.choice(list(BACKGROUNDS))
    base = jitter(rng, rng.choice(BACKGROUNDS[name]), 5)
    style = rng.random()
    if style < 0.4:
        image = Image.new("RGB", size, base)
    else:  # a soft gradient (2x2), or blotches (more tones), between close tones of one colour
        n = 2 if style < 0.7 else rng.randint(4, 14)
        tones = Image.new("RGB", (n, n))
        for x in range(n):
            for y in range(n):
                shift = rng.randint(-9, 9)
                tones.putpixel((x, y), jitter(rng, tuple(c + shift for c in base), 3))
        image = tones.resize(size, Image.BILINEAR if style < 0.9 else Image.NEAREST)
    side = min(size)
    return image, name, base, ((width - side) // 2, (height - side) // 2, side)


def finish(rng, image):
    """Sensor-like flaws: a slight blur, noise, a change of brightness. Each only sometimes."""
    if rng.random() < 0.12:
        image = image.filter(ImageFilter.GaussianBlur(min(image.size) / 112 * rng.uniform(0.2, 0.6)))
    if rng.random() < 0.45:
        width, height = image.size
        bank = noise_bank()
        x, y = rng.randrange(max(1, 640 - width)), rng.randrange(max(1, 640 - height))
        cut = bank[y:y + height, x:x + width]
        if cut.shape[:2] != (height, width):
            cut = np.resize(bank, (height, width, 3))
        pixels = np.asarray(image, np.float32) + cut * rng.uniform(2, 14) + rng.uniform(-8, 8)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image


def pick_color(rng, background, tone, least=95, taken=()):
    """A (name, rgb) that stands out from the background and does not share its name."""
    while True:
        name = rng.choice(list(COLORS))
        rgb = jitter(rng, COLORS[name], 12)
        if name != background and name not in taken and math.dist(rgb, tone) >= least:
            return name, rgb


def outline(shape, rng):
    """The shape's corner points in a unit circle, y downwards."""
    def ring(n, radii, turn):
        return [
            (radii[i % len(radii)] * math.sin(turn + 2 * math.pi * i / n),
             -radii[i % len(radii)] * math.cos(turn + 2 * math.pi * i / n)) for i in range(n)
        ]

    turn = math.radians(rng.uniform(-10, 10))
    if shape == "circle":
        return ring(48, [1.0], 0)
    if shape == "square":
        return ring(4, [1.08], math.pi / 4 + turn)
    if shape == "triangle":
        return ring(3, [1.1], turn + (math.pi if rng.random() < 0.15 else 0))
    if shape == "star":
        return ring(10, [1.1, 0.44], turn)
    if shape == "diamond":
        return [(0.72 * x, 1.1 * y) for x, y in ring(4, [1.0], turn / 2)]
    if shape == "cross":
        a, points = 0.34, []
        for x, y in [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]:
            points.append((x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)))
        return points
    if shape == "heart":
        points = []
        for i in range(40):
            t = 2 * math.pi * i / 40
            y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
            points.append((16 * math.sin(t) ** 3 / 16, -y / 15.5 - 0.1))
        return points
    outer = [(math.cos(math.radians(d)), math.sin(math.radians(d))) for d in range(50, 311, 10)]
    inner = [(0.42 + 0.8 * math.cos(math.radians(d)), 0.8 * math.sin(math.radians(d))) for d in range(285, 74, -10)]
    flip = -1 if rng.random() < 0.3 else 1  # the moon: a big disc less a smaller one to its side
    return [(flip * (x + 0.2), y) for x, y in outer + inner]


def draw_shape(draw, rng, item, rgb, center, radius):
    points = [(center[0] + radius * x, center[1] + radius * y) for x, y in outline(item.shape, rng)]
    draw.polygon(points, fill=rgb)
    if rng.random() < 0.2:
        edge = tuple(int(c * 0.72) for c in rgb)
        draw.line(points + points[:1], fill=edge, width=max(1, round(radius * 0.08)), joint="curve")


def shapes_picture(rng, count=None, size=None):
    """One to nine shapes, each in a cell of its own."""
    image, background, tone, (left, top, side) = canvas(rng, size)
    count = count or rng.choices(range(1, 10), [12, 16, 17, 16, 13, 10, 6, 5, 5])[0]
    cells = rng.sample([(r, c) for r in range(3) for c in range(3)], count)
    few_shapes = rng.sample(SHAPES, rng.choice([1, 2, 2, 3, 4, 8]))
    palette = []
    for _ in range(rng.choice([1, 2, 3, 4, 5, 6])):
        palette.append(pick_color(rng, background, tone))
    draw, items, third = ImageDraw.Draw(image), [], side / 3
    for row, column in sorted(cells):
        name, rgb = rng.choice(palette)
        item = Item(rng.choice(few_shapes), name, (row, column))
        big = count == 1 and rng.random() < 0.6
        radius = side * rng.uniform(0.16, 0.3) if big else third * rng.uniform(0.31, 0.43)
        slack = third / 2 * 0.8 if count == 1 else max(third / 2 - radius, 0) + third * 0.04
        center = []
        for offset, index in ((left, column), (top, row)):
            middle = third * (index + 0.5) + rng.uniform(-slack, slack)
            low = max(third * (index + 0.1), radius * 1.1)
            high = min(third * (index + 0.9), side - radius * 1.1)
            center.append(offset + min(max(middle, low), high))
        draw_shape(draw, rng, item, jitter(rng, rgb, 4), center, radius)
        items.append(item)
    return Scene("shapes", background, items), finish(rng, image)


def stamp(rng, image, square, mask, rgb):
    """Pastes colour through the mask, anywhere inside the central square where it fits."""
    left, top, side = square
    x = left + rng.randint(0, max(0, side - mask.width))
    y = top + rng.randint(0, max(0, side - mask.height))
    image.paste(Image.new("RGB", mask.size, rgb), (x, y), mask)


def text_mask(rng, text, width):
    """The text as a grey mask about `width` pixels wide, a little turned, sometimes bold or slanted."""
    points = max(8, round(width / max(1.0, font(40).getlength(text)) * 40))
    bold = rng.choice([0, 0, 1, 2]) * points / 44
    face, stroke = font(points), int(bold)
    box = face.getbbox(text, stroke_width=stroke)
    pad = max(2, points // 8)
    mask = Image.new("L", (box[2] - box[0] + 2 * pad, box[3] - box[1] + 2 * pad))
    ImageDraw.Draw(mask).text((pad - box[0], pad - box[1]), text, fill=255, font=face, stroke_width=stroke)
    if rng.random() < 0.25:
        slant = rng.uniform(-0.2, 0.25)
        wide = mask.width + int(abs(slant) * mask.height)
        shift = -slant * mask.height if slant > 0 else 0
        mask = mask.transform((wide, mask.height), Image.AFFINE, (1, slant, shift, 0, 1, 0), Image.BICUBIC)
    if rng.random() < 0.6:
        mask = mask.rotate(rng.uniform(-8, 8), Image.BICUBIC, expand=True)
    return mask


def text_picture(rng, kind, text=None, size=None):
    """A printed number of one to four digits, or a printed word."""
    if text is None and kind == "number":
        length = rng.choice([1, 2, 2, 3, 3, 4])
        text = str(rng.randint(10 ** (length - 1) if length > 1 else 0, 10**length - 1))
    elif text is None:
        text = rng.choice([str.lower, str.upper, str.title])(rng.choice(WORDS))
    image, background, tone, square = canvas(rng, size)
    name, rgb = pick_color(rng, background, tone, least=140)
    side = square[2]
    per_letter = rng.uniform(0.115, 0.24)  # of the square's side: never under 13 pixels of the model's 112
    width = side * min(0.86, max(per_letter * len(text), 0.1))
    mask = text_mask(rng, text, width)
    if max(mask.size) > side * 0.98:
        scale = side * 0.98 / max(mask.size)
        mask = mask.resize((max(1, int(mask.width * scale)), max(1, int(mask.height * scale))), Image.BICUBIC)
    stamp(rng, image, square, mask, rgb)
    return Scene(kind, background, text=text, color=name), finish(rng, image)


def warp(rng, mask, amount):
    """Moves the middle of the mask's sides and its centre a little: another hand wrote the same digit."""
    w, h = mask.size
    grid = [[(x * w / 2, y * h / 2) for x in range(3)] for y in range(3)]
    for row in range(3):
        for column in range(3):
            x, y = grid[row][column]
            grid[row][column] = (x + rng.uniform(-amount, amount) * w, y + rng.uniform(-amount, amount) * h)
    quads = []
    for row in range(2):
        for column in range(2):
            target = (column * w // 2, row * h // 2, (column + 1) * w // 2, (row + 1) * h // 2)
            a, b = grid[row][column], grid[row + 1][column]
            c, d = grid[row + 1][column + 1], grid[row][column + 1]
            quads.append((target, (*a, *b, *c, *d)))
    return mask.transform(mask.size, Image.MESH, quads, Image.BILINEAR)


def handwriting_picture(rng, index=None, held_out=False, size=None):
    """A real handwritten digit, enlarged, on a background. Training digits are also bent and stretched."""
    train_x, train_y, test_x, test_y = digits()
    pictures, labels = (test_x, test_y) if held_out else (train_x, train_y)
    index = rng.randrange(len(labels)) if index is None else index
    image, background, tone, square = canvas(rng, size)
    name, rgb = pick_color(rng, background, tone, least=140)
    span = int(square[2] * rng.uniform(0.45, 0.95))
    padded = np.pad(pictures[index] / 16 * 255, 1).astype(np.uint8)
    stretch = 1.0 if held_out else rng.uniform(0.82, 1.18)
    mask = Image.fromarray(padded).resize((max(12, int(span * min(1, stretch))), max(12, int(span / max(1, stretch)))), Image.BICUBIC)
    if not held_out:
        mask = warp(rng, mask, 0.05) if rng.random() < 0.7 else mask
        lean = rng.uniform(-0.2, 0.2)
        mask = mask.transform(mask.size, Image.AFFINE, (1, lean, -lean * mask.height / 2, 0, 1, 0), Image.BILINEAR)
        mask = mask.rotate(rng.uniform(-12, 12), Image.BILINEAR)
    gain, threshold = rng.uniform(1.2, 3.0), rng.uniform(70, 125)
    if rng.random() < 0.6:  # a pen with a sharper edge than the scan's grey
        mask = mask.point(lambda v: max(0, min(255, int((v - threshold) * gain + threshold))))
    stamp(rng, image, square, mask, rgb)
    return Scene("handwriting", background, text=str(labels[index]), color=name), finish(rng, image)


def picture(rng, kind=None, size=None):
    """A random (scene, image) of the training distribution, or of one kind or one (width, height) of it."""
    kind = kind or rng.choices(["shapes", "number", "word", "handwriting"], [50, 12, 21, 17])[0]
    if kind == "shapes":
        return shapes_picture(rng, size=size)
    if kind == "handwriting":
        return handwriting_picture(rng, size=size)
    return text_picture(rng, kind, size=size)


def centre_square(image, side=112):
    """The square that tiny-llava sees, as uint8: shortest edge resized to `side`, the centre cut out."""
    width, height = image.size
    if width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    image = image.resize(size, Image.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def contact_sheet(path, seed=1, columns=10, rows=8):
    """Writes a sheet of what tiny-llava would see, for a person to look at."""
    rng = random.Random(seed)
    sheet = Image.new("RGB", (columns * 116, rows * 116), (255, 0, 255))
    for i in range(columns * rows):
        _, image = picture(rng)
        sheet.paste(Image.fromarray(centre_square(image)), (i % columns * 116, i // columns * 116))
    sheet.save(path)


if __name__ == "__main__":
    contact_sheet("contact-sheet.png")
