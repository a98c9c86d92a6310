#!/usr/bin/env python3
"""Speed of the reference's Python preprocessing beside ours, on the same pictures and one processor core.

    taskset -c 0 python runtime/benches/images.py -- cargo bench -p vlm-runtime --bench images --

runs the command after `--` with the directory of the pictures as its last argument, and writes
`results/images.json` and `results/images.md`. Needs torch, torchvision, transformers >= 5.20, pillow < 13.

The reference: transformers' processors over Pillow (`...Pil`), and for InternVL its model card's own tiling over
Pillow with torchvision's transforms. Beside them, transformers' processors over torchvision, whose pixels differ a
little from Pillow's. All are called as their documentation does, with tensors as the result.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

import numpy as np
import PIL
import torch
import torchvision.transforms as T
import transformers
from PIL import Image, features
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.llava.image_processing_llava import LlavaImageProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

torch.set_num_threads(1)
SIZES = [(336, 336), (1024, 768), (4000, 3000)]
RESULTS = Path(__file__).parent / "results"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SQUARE = dict(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
TILES = dict(size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12, image_mean=IMAGENET[0], image_std=IMAGENET[1])


def picture(width, height):
    """As detailed as a photo: smooth shapes, edges, and some noise."""
    random = np.random.default_rng(width)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = [127 + 80 * np.sin(9 * x + 5 * y * (c + 1)) * np.cos(23 * y * x + c) for c in range(3)]
    image = np.stack(planes, -1)
    image[(np.floor(x * 14) + np.floor(y * 14)) % 2 == 0] *= 0.7
    return Image.fromarray(np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8))


def internvl_card(most=12, side=448):
    """The tiling of InternVL's model cards, with the transforms that they apply to every tile."""
    grids = sorted({(c, r) for c in range(1, most + 1) for r in range(1, most + 1) if c * r <= most}, key=lambda g: g[0] * g[1])
    steps = [T.Lambda(lambda i: i.convert("RGB")), T.Resize((side, side), interpolation=T.InterpolationMode.BICUBIC), T.ToTensor(), T.Normalize(*IMAGENET)]
    transform = T.Compose(steps)

    def process(image):
        (width, height), best, least = image.size, (1, 1), float("inf")
        for c, r in grids:
            difference = abs(width / height - c / r)
            if difference < least:
                best, least = (c, r), difference
            elif difference == least and width * height > 0.5 * side * side * c * r:
                best = (c, r)
        c, r = best
        whole = image.resize((c * side, r * side), Image.BICUBIC)
        tiles = [whole.crop((x * side, y * side, (x + 1) * side, (y + 1) * side)) for y in range(r) for x in range(c)]
        if len(tiles) > 1:
            tiles.append(image.resize((side, side), Image.BICUBIC))
        return torch.stack([transform(tile) for tile in tiles])

    return process


def references():
    call = lambda processor: lambda image: processor(images=[image], return_tensors="pt").pixel_values
    return {
        "llava-1.5 crop": (call(CLIPImageProcessorPil(**SQUARE)), call(CLIPImageProcessor(**SQUARE))),
        "llava-1.5 pad": (call(LlavaImageProcessorPil(do_pad=True, **SQUARE)), call(LlavaImageProcessor(do_pad=True, **SQUARE))),
        "llava-1.6": (call(LlavaNextImageProcessorPil(**SQUARE)), call(LlavaNextImageProcessor(**SQUARE))),
        "internvl": (internvl_card(), call(GotOcr2ImageProcessor(**TILES))),
    }


def timed(run):
    """Middle of the repeats in milliseconds."""
    run()
    times, begun = [], time.perf_counter()
    while time.perf_counter() - begun < 0.7 or len(times) < 15:
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(times)


def decoded(path):
    with Image.open(path) as image:
        return image.convert("RGB")


def measure_references(directory):
    for width, height in SIZES:
        name = f"{width}x{height}"
        path = directory / f"{name}.jpg"
        image = decoded(path)
        yield {"picture": name, "family": "decode", "from": "jpeg", "by": "pillow", "ms": timed(lambda: decoded(path))}
        for family, processors in references().items():
            for by, process in zip(("pillow", "torchvision"), processors):
                yield {"picture": name, "family": family, "from": "pixels", "by": by, "ms": timed(lambda: process(image))}
                yield {"picture": name, "family": family, "from": "jpeg", "by": by, "ms": timed(lambda: process(decoded(path)))}


def table(rows, names):
    times = {(r["picture"], r["family"], r["from"], r["by"]): r["ms"] for r in rows}
    yield "| picture | family | from | reference | torchvision | ours | times faster |\n|---|---|---|---|---|---|---|"
    for (picture, family, source, by), ours in sorted(times.items(), key=lambda item: (names.index(item[0][0]), item[0][2] != "pixels", item[0][1])):
        if by == "ours":
            pillow, other = times[picture, family, source, "pillow"], times.get((picture, family, source, "torchvision"))
            beside = f"{other:.2f} ms" if other else ""
            yield f"| {picture} | {family} | {source} | {pillow:.2f} ms | {beside} | {ours:.2f} ms | {pillow / ours:.1f} |"


def main():
    command = sys.argv[sys.argv.index("--") + 1:]
    with tempfile.TemporaryDirectory() as directory:
        for width, height in SIZES:
            picture(width, height).save(Path(directory) / f"{width}x{height}.jpg", quality=90)
        output = subprocess.run([*command, directory], check=True, capture_output=True, text=True).stdout
        ours = [{**json.loads(line), "by": "ours"} for line in output.splitlines() if line.startswith("{")]
        rows = ours + list(measure_references(Path(directory)))
    processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    versions = f"Python {sys.version.split()[0]}, Pillow {PIL.__version__} (libjpeg-turbo {features.version('libjpeg_turbo')}), torch {torch.__version__}, transformers {transformers.__version__}"
    about = {"processor": processor, "versions": versions, "load": os.getloadavg()[0]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "images.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    text = f"""# Speed of preprocessing on one processor core

`taskset -c 0 python runtime/benches/images.py -- cargo bench -p vlm-runtime --bench images --`
{processor}, one core; {versions}; load {about['load']:.1f}.
Medians of the time that one picture takes. The rows from pixels compare what the reference's processor does: it is given decoded
pictures. In the rows from jpeg each side decodes the file first; "decode" is the JPEG decoder alone, Pillow's libjpeg-turbo (C and
assembly) beside the one of this server, which is Rust alone. JPEG files have quality 90 and halved chroma.

"""
    names = [f"{width}x{height}" for width, height in SIZES]
    (RESULTS / "images.md").write_text(text + "\n".join(table(rows, names)) + "\n")


if __name__ == "__main__":
    main()
