"""Scores the exported model as `transformers` computes it: greedy answers, exact match, fresh pictures.

    python evaluate.py                 # writes evaluation.json
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "drawn"))

import checkpoint
from checkpoint import MEAN, STD, TILE_TOKENS
from evaluation import evaluate
from tiles import tiles
from training import normalized
from vocabulary import EOS, PAD, expanded, prompt


def load(folder, device="cpu"):
    """(tokenizer, model): weights as stored in bf16, computed in f32."""
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), checkpoint.load(folder).to(device)


def inputs_for(tokenizer, images, turns, device="cpu"):
    """What the model takes: prompts padded at the left, the tiles of all pictures one after another."""
    cut = [tiles(image.convert("RGB")) for image in images]
    texts = [expanded(prompt(t), [len(c) * TILE_TOKENS]) for t, c in zip(turns, cut)]
    rows = [tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    pixels = normalized(torch.cat([torch.from_numpy(c.copy()) for c in cut]), MEAN, STD)
    return {k: v.to(device) for k, v in dict(input_ids=ids, attention_mask=mask, pixel_values=pixels).items()}


@torch.no_grad()
def answers(loaded, batch):
    """Greedy answers to a batch of cases."""
    tokenizer, model = loaded
    inputs = inputs_for(tokenizer, [c["image"] for c in batch], [c["turns"] for c in batch], model.device)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=96, eos_token_id=EOS, pad_token_id=PAD)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in out[:, inputs["input_ids"].shape[1]:].tolist()]


if __name__ == "__main__":
    evaluate(__doc__, HERE, "bf16 as exported, computed in f32", load, answers)
