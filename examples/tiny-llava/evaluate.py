"""Scores the exported model as `transformers` loads it: greedy answers, exact match, fresh pictures.

    python evaluate.py                 # writes evaluation.json
"""

import argparse
import json
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import tokenizers
import torch
import transformers
from PIL import __version__ as pillow_version
from transformers import AutoProcessor, LlavaForConditionalGeneration

sys.path.append(str(Path(__file__).resolve().parents[1] / "drawn"))

from pictures import HELD_OUT_DIGITS, handwriting_picture, picture
from questions import KINDS, any_question, ask

HERE = Path(__file__).parent
SCENES = {"number": "number", "word": "word", "handwriting": "handwriting"}  # other kinds take any scene they fit
SEED = 2_000_003  # far from any seed that training derives


def load(folder, device="cpu"):
    """(processor, model): weights as stored in f16, computed in f32; the processor that works on PIL images."""
    try:
        processor = AutoProcessor.from_pretrained(folder, backend="pil")
    except (TypeError, ValueError):
        processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return processor, model.to(device).eval()


def user(question, image):
    return {"role": "user", "content": ([{"type": "image"}] if image else []) + [{"type": "text", "text": question}]}


def assistant(answer):
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}


def messages(turns):
    """A conversation whose last answer is still to come: [(question, answer), …, (question, None)]."""
    out = []
    for n, (question, answer) in enumerate(turns):
        out.append(user(question, n == 0))
        if answer is not None:
            out.append(assistant(answer))
    return out


def held_out_digit(index):
    """One case for each handwritten digit that training never saw."""
    rng = random.Random(SEED + 7_000_000 + index)
    scene, image = handwriting_picture(rng, index=index, held_out=True)
    language = "en" if index % 2 else "zh"
    question, answer = ask(rng, scene, "handwriting", language)
    return dict(kind="handwriting", language=language, image=image, turns=[(question, None)], answer=answer)


def drawn(job):
    """A fresh picture with a question of the wanted kind; `conversation` asks the third of three questions."""
    kind, index = job
    rng = random.Random(SEED + 100_000 * list(KINDS).index(kind) + index if kind in KINDS else SEED + 5_000_000 + index)
    language = "en" if index % 2 else "zh"
    while True:
        scene, image = picture(rng, SCENES.get(kind))
        if scene.kind == "handwriting":
            scene, image = handwriting_picture(rng, held_out=True)
        if kind == "conversation":
            turns = [any_question(rng, scene) for _ in range(3)]
            break
        asked = ask(rng, scene, kind, language)
        if asked:
            turns = [asked]
            break
    (question, answer) = turns[-1]
    return dict(kind=kind, language=language, image=image, turns=turns[:-1] + [(question, None)], answer=answer, shapes=len(scene.items))


def cases(per_kind, workers):
    kinds = [k for k in KINDS if k != "handwriting"] + ["conversation"]
    jobs = [(kind, i) for kind in kinds for i in range(per_kind)]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(drawn, jobs, chunksize=32)) + list(pool.map(held_out_digit, range(HELD_OUT_DIGITS), chunksize=32))


@torch.no_grad()
def answers(processor, model, batch):
    """Greedy answers to a batch of cases."""
    text = [processor.apply_chat_template(messages(c["turns"]), add_generation_prompt=True) for c in batch]
    inputs = processor(images=[c["image"] for c in batch], text=text, padding=True, return_tensors="pt").to(model.device)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=96)
    return [processor.decode(row, skip_special_tokens=True) for row in out[:, inputs["input_ids"].shape[1]:]]


def score(found):
    """Right and total for each kind and language, and over everything."""
    table = {}
    for case, answer in found:
        names = [case["kind"], "all drawn" if case["kind"] != "handwriting" else None]
        if case["kind"] == "relation":  # two shapes to find and compare: the more there are, the harder
            names.append("relation, 2-3 shapes" if case["shapes"] <= 3 else "relation, 4-9 shapes")
        for name in names:
            if name:
                row = table.setdefault(name, dict(right=0, total=0, en=[0, 0], zh=[0, 0]))
                good = answer == case["answer"]
                row["right"] += good
                row["total"] += 1
                if case["kind"] != "conversation":
                    row[case["language"]][0] += good
                    row[case["language"]][1] += 1
    for row in table.values():
        row["accuracy"] = round(row["right"] / row["total"], 4)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(HERE / "model"))
    parser.add_argument("--out", default=str(HERE / "evaluation.json"))
    parser.add_argument("--per-kind", type=int, default=300)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=15)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    started = time.time()
    todo = cases(args.per_kind, args.workers)
    print(f"drew {len(todo)} pictures in {time.time() - started:.0f} s", flush=True)
    processor, model = load(args.model, device)
    found = []
    for i in range(0, len(todo), args.batch):
        batch = todo[i:i + args.batch]
        found += list(zip(batch, answers(processor, model, batch)))
    table = score(found)
    misses = [dict(kind=c["kind"], question=c["turns"][-1][0], expected=c["answer"], said=said) for c, said in found if said != c["answer"]]
    report = dict(
        seed=SEED, weights="f16 as exported, computed in f32", decoding="greedy, exact match of the whole answer", device=device,
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, tokenizers=tokenizers.__version__, pillow=pillow_version),
        image_processor=type(processor.image_processor).__name__, kinds=table, misses=misses,
    )
    Path(args.out).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for name, row in table.items():
        print(f"{name:20s} {row['right']:5d}/{row['total']:5d}  {row['accuracy']:.4f}  en {row['en']} zh {row['zh']}")
    print(f"took {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
