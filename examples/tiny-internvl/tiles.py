"""Dynamic tiling as InternVL's own `dynamic_preprocess` does it, with tiles of 96 pixels: uint8 in, uint8 out.

The picture is squeezed into the grid of one to four tiles whose shape is nearest to its own; where that is more
than one tile, the whole picture squeezed into one more tile, the thumbnail, comes last.
"""

from functools import lru_cache

import numpy as np
from PIL import Image

from pictures import random_size

SIDE, MOST = 96, 4
GRIDS = sorted(((c, r) for c in range(1, MOST + 1) for r in range(1, MOST + 1) if c * r <= MOST), key=lambda g: g[0] * g[1])


@lru_cache(maxsize=65536)
def grid(width, height):
    """(columns, rows) for a picture of this size. Of two grids that fit equally well, a big picture takes the larger."""
    best, least = (1, 1), float("inf")
    for columns, rows in GRIDS:
        off = abs(width / height - columns / rows)
        if off < least or (off == least and width * height > 0.5 * SIDE * SIDE * columns * rows):
            best, least = (columns, rows), off
    return best


def count(width, height):
    """Tiles that a picture of this size becomes, the thumbnail among them."""
    columns, rows = grid(width, height)
    return columns * rows + (columns * rows > 1)


def tiles(image):
    """The tiles of an RGB picture, row by row, the thumbnail last: uint8 [n, 96, 96, 3]."""
    columns, rows = grid(*image.size)
    whole = np.asarray(image.resize((columns * SIDE, rows * SIDE), Image.BICUBIC))
    cut = whole.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)
    if len(cut) == 1:
        return cut
    return np.concatenate([cut, np.asarray(image.resize((SIDE, SIDE), Image.BICUBIC))[None]])


def training_size(rng, wanted=None):
    """(width, height) of a picture to train on, of `wanted` tiles: mostly ordinary, some small, some long strips."""
    while True:
        chance = rng.random()
        if chance < 0.88:
            size = random_size(rng)
        else:
            short, ratio = (rng.randint(80, 135), rng.uniform(1, 1.4)) if chance < 0.93 else (rng.randint(100, 240), rng.uniform(1.9, 4.5))
            size = (short, int(short * ratio)) if rng.random() < 0.5 else (int(short * ratio), short)
        if wanted is None or count(*size) == wanted:
            return size
