"""Trains the model from scratch on pictures drawn while it trains, and writes `model/`.

    python train.py        # about 9 minutes on one GPU with 16 CPU cores
"""

import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info
from transformers import LlavaForConditionalGeneration

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "drawn"))

import vocabulary
from checkpoint import CONTEXT, IMAGE_TOKENS, MEAN, SIDE, STD, export, new_model
from pictures import centre_square, picture
from questions import SYSTEM, any_question
from training import compile_blocks, fit, normalized, parser, shares

TEXT = 156  # tokens of text beside the picture in an ordinary chunk
LONG_EVERY = 16  # one chunk in so many holds conversations that fill the context


class Chunks(IterableDataset):
    """Endless training chunks: (pixels uint8 [n,112,112,3], ids [n,length], is_answer [n,length])."""

    def __init__(self, seed, size, more):
        self.seed, self.size, self.more = seed, size, more

    def __iter__(self):
        worker = get_worker_info()
        torch.set_num_threads(1)
        rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        tokenizer = Tokenizer.from_file(str(HERE / "model" / "tokenizer.json"))
        count = rng.randrange(LONG_EVERY)
        while True:
            count += 1
            long = count % LONG_EVERY == 0
            size, length = (self.size // 4, CONTEXT) if long else (self.size, IMAGE_TOKENS + TEXT)
            yield chunk(rng, tokenizer, size, length, self.more)


def example(rng, tokenizer, length, more=None):
    """One picture and a conversation about it that fits into `length` tokens."""
    scene, image = picture(rng)
    system = rng.choice(SYSTEM) if rng.random() < 0.06 else ""
    language = rng.choice(["en", "zh", None])
    turns, fitted = [], None
    while True:
        turns.append(any_question(rng, scene, language, more))
        ids, answer = vocabulary.conversation(tokenizer, turns, IMAGE_TOKENS, system)
        if len(ids) > length:
            break
        fitted = ids, answer
        if length < CONTEXT and len(turns) >= 8:
            break
        if length == CONTEXT:  # grow fast: tokenizing the whole again for every turn would be slow
            turns += [any_question(rng, scene, language, more) for _ in range(3)]
    if fitted is None:
        return example(rng, tokenizer, length, more)
    return centre_square(image), *fitted


def chunk(rng, tokenizer, size, length, more=None):
    pixels = np.zeros((size, SIDE, SIDE, 3), np.uint8)
    ids = np.full((size, length), vocabulary.PAD, np.int64)
    answer = np.zeros((size, length), bool)
    for row in range(size):
        pixels[row], tokens, said = example(rng, tokenizer, length, more)
        ids[row, :len(tokens)] = tokens
        answer[row, :len(said)] = said
    return torch.from_numpy(pixels), torch.from_numpy(ids), torch.from_numpy(answer)


def forward(model, batch):
    """Logits at the positions before each answer token, and those tokens."""
    pixels, ids, answer = batch
    hidden = model.model(input_ids=ids, pixel_values=normalized(pixels, MEAN, STD), use_cache=False).last_hidden_state
    said = answer[:, 1:]
    return model.lm_head(hidden[:, :-1][said]), ids[:, 1:][said]


def blank(size, length, device):
    """A chunk of the right shapes for the compiler."""
    ids = torch.full((size, length), 40)
    ids[:, 3:3 + IMAGE_TOKENS] = vocabulary.IMAGE
    pixels = torch.zeros((size, SIDE, SIDE, 3), dtype=torch.uint8)
    return [t.to(device) for t in (pixels, ids, ids == 40)]


def run(args):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = new_model(args.seed).to(device).train()
    start = time.time()
    if args.init:
        model.load_state_dict(LlavaForConditionalGeneration.from_pretrained(args.init, dtype=torch.float32).state_dict())
    if args.compile:
        shapes = [blank(args.batch, IMAGE_TOKENS + TEXT, device), blank(args.batch // 4, CONTEXT, device)]
        compile_blocks(model, ("CLIPEncoderLayer", "LlamaDecoderLayer"), forward, shapes, torch.autocast(device, torch.bfloat16))
        print(f"compiled in {time.time() - start:.0f} s", flush=True)
    rng, tokenizer = random.Random(args.seed + 99), Tokenizer.from_file(str(HERE / "model" / "tokenizer.json"))
    held = [[t.to(device) for t in chunk(rng, tokenizer, args.batch, IMAGE_TOKENS + TEXT)]]
    steps, seen = fit(args, model, Chunks(args.seed, args.batch, shares(args)), held, forward, vocabulary.EOS, start)
    seconds = time.time() - start
    parameters = export(model, args.out)
    print(f"wrote {args.out}: {parameters} parameters, {steps} steps, {seen} pictures, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    if not (HERE / "model" / "tokenizer.json").exists():
        (HERE / "model").mkdir(exist_ok=True)
        vocabulary.train().save(str(HERE / "model" / "tokenizer.json"))
    run(parser(__doc__, HERE / "model", 8.75).parse_args())
