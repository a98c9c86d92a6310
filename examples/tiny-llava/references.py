"""Writes `references/` and `demo.png`: pictures, questions and what transformers answers, on a CPU in f32.

    python references.py
Another implementation that loads the same folder must give the same prompts, ids and greedy answers, and
the same tensors within rounding. Cases are searched until greedy decoding is nowhere near a tie.
"""

import json
import random
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from PIL import __version__ as pillow_version
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "drawn"))

from evaluate import load, messages
from pictures import handwriting_picture, shapes_picture, text_picture
from questions import any_question, ask

HERE = Path(__file__).parent
OUT = HERE / "references"
MARGIN, STEPS = 0.5, 64
# name, picture, kind of question, language, (width, height), how it is stored; tensors are kept for some
CASES = [
    ("count-en", "shapes", "count_all", "en", (224, 224), "RGB"),
    ("count-circles-zh", "shapes", "count_shape", "zh", (300, 200), "RGB"),
    ("color-en", "shapes", "color_of", "en", (112, 112), "RGB"),
    ("color-zh", "shapes", "color_of", "zh", (96, 96), "RGB"),
    ("where-en", "shapes", "where", "en", (180, 320), "RGB"),
    ("where-zh", "shapes", "where", "zh", (113, 112), "RGB"),
    ("at-zh", "shapes", "what_at", "zh", (150, 131), "RGB"),
    ("exists-en", "shapes", "exists", "en", (256, 256), "RGB"),
    ("relation-en", "shapes", "relation", "en", (200, 200), "RGB"),
    ("number-en", "number", "number", "en", (320, 180), "RGB"),
    ("number-zh", "number", "number", "zh", (160, 160), "P"),
    ("word-en", "word", "word", "en", (240, 160), "RGB"),
    ("word-zh", "word", "word", "zh", (200, 150), "RGB"),
    ("handwriting-en", "handwriting", "handwriting", "en", (128, 128), "L"),
    ("handwriting-zh", "handwriting", "handwriting", "zh", (210, 120), "RGB"),
    ("describe-en", "shapes", "describe", "en", (280, 210), "RGB"),
    ("describe-zh", "shapes", "describe", "zh", (224, 224), "RGB"),
    ("conversation", "shapes", None, None, (192, 192), "RGB"),
]
WITH_TENSORS = ["count-en", "where-en", "handwriting-en", "word-zh"]


class Tap:
    """Catches what goes into the projector and what comes out of it."""

    def __init__(self, model):
        self.seen = {}
        model.model.multi_modal_projector.register_forward_hook(self.keep)

    def keep(self, _, inputs, output):
        self.seen.update(vision_features=inputs[0].detach(), projected=output.detach())


def draw(rng, scene_kind, kind, size):
    """A calm picture (few tones, so that the PNG stays small) and what is true of it."""
    while True:
        if scene_kind == "shapes":
            count = rng.randint(3, 5) if kind == "describe" else rng.randint(2, 5)
            scene, image = shapes_picture(rng, count, size)
        elif scene_kind == "handwriting":
            scene, image = handwriting_picture(rng, held_out=True, size=size)
        else:
            scene, image = text_picture(rng, scene_kind, size=size)
        if image.getcolors(2500):
            return scene, image


def stored(image, mode):
    """The picture as its PNG holds it: grey, with a palette, or plain RGB."""
    if mode == "P":
        return image.quantize(128, dither=Image.Dither.NONE)
    return image.convert(mode)


@torch.no_grad()
def answer(processor, model, image, turns):
    """Greedy decoding: (prompt, inputs, ids, each step's margin, first logits, text)."""
    prompt = processor.apply_chat_template(messages(turns), add_generation_prompt=True)
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    out = model.generate(**inputs, do_sample=False, max_new_tokens=STEPS, return_dict_in_generate=True, output_logits=True)
    top = [step[0].topk(2).values for step in out.logits]
    margins = [round(float(a - b), 4) for a, b in top]
    greedy = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
    return prompt, inputs, greedy, margins, out.logits[0][0], processor.decode(greedy, skip_special_tokens=True)


@torch.no_grad()
def check(model, inputs, greedy):
    """The same answer without a key-value cache: one pass over the prompt with the answer behind it."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([greedy])], 1)
    logits = model(input_ids=ids, pixel_values=inputs["pixel_values"], use_cache=False).logits[0]
    start = inputs["input_ids"].shape[1]
    assert logits[start - 1:-1].argmax(-1).tolist() == greedy


def find(processor, model, name, scene_kind, kind, language, size, mode):
    """The first seed whose answer is right and certain: (image, turns, expected answer, result of `answer`)."""
    for seed in range(1000):
        rng = random.Random(f"{name} {seed}")
        scene, image = draw(rng, scene_kind, kind, size)
        if kind is None:
            turns = [any_question(rng, scene, "en"), any_question(rng, scene, "zh"), ask(rng, scene, "describe", "en")]
        else:
            turns = [ask(rng, scene, kind, language)]
        if turns[-1] is None or not turns[-1][0].endswith((".", "?", "。", "？")):
            continue
        image = stored(image, mode)
        expected, asked = turns[-1][1], turns[:-1] + [(turns[-1][0], None)]
        made = answer(processor, model, image, asked)
        if made[5] == expected and min(made[3]) >= MARGIN:
            return image, asked, made
    raise SystemExit(f"no certain picture for {name}")


def find_demo(processor, model):
    """A tidy 512 x 512 picture with three circles among other shapes on white."""
    question = "How many circles are there?"
    for seed in range(100_000):
        rng = random.Random(f"demo {seed}")
        scene, image = shapes_picture(rng, 6, (512, 512))
        shapes, colors = [i.shape for i in scene.items], {i.color for i in scene.items}
        if shapes.count("circle") != 3 or len(set(shapes)) < 3 or len(colors) < 4 or scene.background != "white" or not image.getcolors(400):
            continue
        made = answer(processor, model, image, [(question, None)])
        if made[5] == "There are 3 circles." and min(made[3]) >= 2:
            return image, [(question, None)], made
    raise SystemExit("no demo picture")


def record(name, picture, kind, mode, turns, made):
    prompt, inputs, greedy, margins, _, text = made
    return dict(
        name=name, picture=picture, mode=mode, kind=kind or "conversation",
        question=turns[-1][0], history=[dict(question=q, answer=a) for q, a in turns[:-1]], prompt=prompt,
        input_ids=inputs["input_ids"][0].tolist(), answer=text, greedy_ids=greedy, margins=margins, min_margin=min(margins),
        prompt_tokens=inputs["input_ids"].shape[1], completion_tokens=len(greedy),
    )


def main():
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(exist_ok=True)
    processor, model = load(HERE / "model")
    tap, tensors, listed = Tap(model), {}, []
    todo = [("demo", None, "count_shape", "en", None, "RGB")] + CASES
    for name, scene_kind, kind, language, size, mode in todo:
        demo = name == "demo"
        image, turns, made = find_demo(processor, model) if demo else find(processor, model, name, scene_kind, kind, language, size, mode)
        picture = "../demo.png" if demo else f"{name}.png"
        image.save(OUT / picture, optimize=True)
        made = answer(processor, model, Image.open(OUT / picture), turns)  # again, from the file as written
        check(model, made[1], made[2])
        listed.append(record(name, picture, kind, mode, turns, made))
        tensors[f"{name}.logits"] = made[4]
        if name in WITH_TENSORS:
            tensors[f"{name}.pixel_values"] = made[1]["pixel_values"]
            tensors |= {f"{name}.{k}": v for k, v in tap.seen.items()}
        print(f"{name:18s} {image.size} margin {min(made[3]):.2f} {turns[-1][0]} -> {made[5]} [{len(made[2])}]", flush=True)
    about = dict(
        reference=f"transformers {transformers.__version__}, torch {torch.__version__}, CPU f32 from the f16 weights",
        image_processor=f"{type(processor.image_processor).__name__}, Pillow {pillow_version}",
        tensors="references.safetensors: NAME.logits (last position of the prompt); for some also NAME.pixel_values, NAME.vision_features (projector input), NAME.projected",
        steps=STEPS, cases=listed,
    )
    (OUT / "references.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    save_file({k: v.float().contiguous().clone() for k, v in sorted(tensors.items())}, OUT / "references.safetensors")


if __name__ == "__main__":
    main()
