"""Chooses pictures and questions for `references/`, and records what a model answers: the file's form, for any model.

Another implementation that loads the same folder must give the same prompts, ids and greedy answers, and the same
tensors within rounding. Cases are searched until greedy decoding is nowhere near a tie.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from PIL import Image
from PIL import __version__ as pillow_version
from safetensors.torch import save_file

from pictures import handwriting_picture, shapes_picture, text_picture
from questions import any_question, ask

MARGIN, STEPS = 0.5, 64
# name, picture, kind of question, language, (width, height), how it is stored
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
DEMO = ("demo", None, "count_shape", "en", None, "RGB")


@dataclass
class Made:
    """What the model made of a picture and a conversation. `margins` is each step's distance of first and second."""

    prompt: str
    input_ids: list
    pixel_values: torch.Tensor
    greedy: list
    margins: list
    logits: torch.Tensor
    text: str


class Reference:
    """A model in transformers, on a CPU in f32. Each example's `references.py` says how its inputs are made."""

    weights = image_processor = None

    def __init__(self, model):
        self.model, self.seen = model, {}
        model.model.multi_modal_projector.register_forward_hook(self.keep)

    def keep(self, _, inputs, output):
        self.seen.update(vision_features=inputs[0].detach(), projected=output.detach())

    def inputs(self, image, turns):
        """(prompt text, inputs of the model)."""
        raise NotImplementedError

    def decode(self, ids):
        raise NotImplementedError

    @torch.no_grad()
    def answer(self, image, turns):
        """Greedy decoding of the answer to the last question of `turns`."""
        prompt, inputs = self.inputs(image, turns)
        out = self.model.generate(**inputs, do_sample=False, max_new_tokens=STEPS, return_dict_in_generate=True, output_logits=True)
        top = [step[0].topk(2).values for step in out.logits]
        margins = [round(float(a - b), 4) for a, b in top]
        asked = inputs["input_ids"][0].tolist()
        greedy = out.sequences[0, len(asked):].tolist()
        return Made(prompt, asked, inputs["pixel_values"], greedy, margins, out.logits[0][0], self.decode(greedy))

    @torch.no_grad()
    def check(self, made):
        """The same answer without a key-value cache: one pass over the prompt with the answer behind it."""
        ids = torch.tensor([made.input_ids + made.greedy])
        logits = self.model(input_ids=ids, pixel_values=made.pixel_values, use_cache=False).logits[0]
        assert logits[len(made.input_ids) - 1:-1].argmax(-1).tolist() == made.greedy


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


def find(reference, name, scene_kind, kind, language, size, mode):
    """The first seed whose answer is right and certain: (image, turns)."""
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
        made = reference.answer(image, asked)
        if made.text == expected and min(made.margins) >= MARGIN:
            return image, asked
    raise SystemExit(f"no certain picture for {name}")


def find_demo(reference):
    """A tidy 512 x 512 picture with three circles among other shapes on white."""
    question = "How many circles are there?"
    for seed in range(100_000):
        rng = random.Random(f"demo {seed}")
        scene, image = shapes_picture(rng, 6, (512, 512))
        shapes, colors = [i.shape for i in scene.items], {i.color for i in scene.items}
        if shapes.count("circle") != 3 or len(set(shapes)) < 3 or len(colors) < 4 or scene.background != "white" or not image.getcolors(400):
            continue
        made = reference.answer(image, [(question, None)])
        if made.text == "There are 3 circles." and min(made.margins) >= 2:
            return image, [(question, None)]
    raise SystemExit("no demo picture")


def record(name, picture, kind, mode, turns, made):
    return dict(
        name=name, picture=picture, mode=mode, kind=kind or "conversation",
        question=turns[-1][0], history=[dict(question=q, answer=a) for q, a in turns[:-1]], prompt=made.prompt,
        input_ids=made.input_ids, answer=made.text, greedy_ids=made.greedy, margins=made.margins, min_margin=min(made.margins),
        prompt_tokens=len(made.input_ids), completion_tokens=len(made.greedy),
    )


def write(folder, reference, with_tensors, more=()):
    """Writes `references/` and `demo.png` under `folder`; tensors besides logits for the cases `with_tensors`."""
    torch.use_deterministic_algorithms(True)
    out = Path(folder) / "references"
    out.mkdir(exist_ok=True)
    tensors, listed = {}, []
    for name, scene_kind, kind, language, size, mode in [DEMO, *CASES, *more]:
        demo = name == DEMO[0]
        image, turns = find_demo(reference) if demo else find(reference, name, scene_kind, kind, language, size, mode)
        picture = "../demo.png" if demo else f"{name}.png"
        image.save(out / picture, optimize=True)
        made = reference.answer(Image.open(out / picture), turns)  # again, from the file as written
        tensors[f"{name}.logits"] = made.logits
        if name in with_tensors:
            tensors[f"{name}.pixel_values"] = made.pixel_values
            tensors |= {f"{name}.{k}": v for k, v in reference.seen.items()}
        reference.check(made)
        listed.append(record(name, picture, kind, mode, turns, made))
        print(f"{name:18s} {image.size} margin {min(made.margins):.2f} {turns[-1][0]} -> {made.text} [{len(made.greedy)}]", flush=True)
    about = dict(
        reference=f"transformers {transformers.__version__}, torch {torch.__version__}, CPU f32 from the {reference.weights} weights",
        image_processor=f"{reference.image_processor}, Pillow {pillow_version}",
        tensors="references.safetensors: NAME.logits (last position of the prompt); for some also NAME.pixel_values, NAME.vision_features (projector input), NAME.projected",
        steps=STEPS, cases=listed,
    )
    (out / "references.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    save_file({k: v.float().contiguous().clone() for k, v in sorted(tensors.items())}, out / "references.safetensors")
