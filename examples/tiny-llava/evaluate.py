"""Scores the exported model as `transformers` loads it: greedy answers, exact match, fresh pictures.

    python evaluate.py                 # writes evaluation.json
"""

import sys
from pathlib import Path

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "drawn"))

from evaluation import evaluate


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


@torch.no_grad()
def answers(loaded, batch):
    """Greedy answers to a batch of cases."""
    processor, model = loaded
    text = [processor.apply_chat_template(messages(c["turns"]), add_generation_prompt=True) for c in batch]
    inputs = processor(images=[c["image"] for c in batch], text=text, padding=True, return_tensors="pt").to(model.device)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=96)
    return [processor.decode(row, skip_special_tokens=True) for row in out[:, inputs["input_ids"].shape[1]:]]


if __name__ == "__main__":
    evaluate(__doc__, HERE, "f16 as exported, computed in f32", load, answers)
