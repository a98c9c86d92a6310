"""Trains the model from scratch on pictures drawn while it trains, and writes `model/`.

    python train.py                                                # about 9 minutes on one GPU with 16 CPU cores
    python train.py --init model --seed 2 --rate 5e-4              # goes on from there for as long again
"""

import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "drawn"))

import vocabulary
from checkpoint import CONTEXT, MEAN, STD, TILE_TOKENS, export, load, new_model
from pictures import picture
from questions import SYSTEM, any_question
from tiles import SIDE, tiles, training_size
from training import compile_blocks, fit, normalized, parser, shares

LENGTH = 352  # tokens of an ordinary row: 180 for a picture of five tiles, the others for text
LONG_EVERY = 16  # one chunk in so many holds conversations that fill the context
TURNS = 10  # most turns of an ordinary row
# Of 256 pictures so many have this number of tiles, about as `training_size` makes them. The same in every chunk,
# so that all chunks have one shape and the compiler works once.
SHARES = {1: 24, 3: 68, 4: 8, 5: 156}


def mixture(size):
    """How many tiles each of `size` pictures has."""
    rest = [tiles for tiles, share in SHARES.items() for _ in range(round(share * size / 256))]
    return (rest + [5] * size)[:size]


class Chunks(IterableDataset):
    """Endless training chunks: (tiles uint8 [tiles of all rows,96,96,3], ids [n,length], is_answer [n,length])."""

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
            yield chunk(rng, tokenizer, self.size // 4 if long else self.size, CONTEXT if long else LENGTH, self.more)


def example(rng, tokenizer, length, wanted, more=None):
    """The tiles of one picture, `wanted` of them, and a conversation about it that fits into `length` tokens."""
    scene, image = picture(rng, size=training_size(rng, wanted))
    system = rng.choice(SYSTEM) if rng.random() < 0.06 else None
    language = rng.choice(["en", "zh", None])
    talk, turns = vocabulary.Conversation(tokenizer, wanted * TILE_TOKENS, system), 0
    while talk.add(*any_question(rng, scene, language, more), length):
        turns += 1
        if turns == TURNS and length < CONTEXT:
            break
    return tiles(image), talk.ids, talk.answer


def chunk(rng, tokenizer, size, length, more=None):
    pixels, ids, answer = [], np.full((size, length), vocabulary.PAD, np.int64), np.zeros((size, length), bool)
    for row, wanted in enumerate(mixture(size)):
        cut, tokens, said = example(rng, tokenizer, length, wanted, more)
        pixels.append(cut)
        ids[row, :len(tokens)] = tokens
        answer[row, :len(said)] = said
    return torch.from_numpy(np.concatenate(pixels)), torch.from_numpy(ids), torch.from_numpy(answer)


def forward(model, batch):
    """Logits at the positions before each answer token, and those tokens."""
    pixels, ids, answer = batch
    hidden = model.model(input_ids=ids, pixel_values=normalized(pixels, MEAN, STD), use_cache=False).last_hidden_state
    said = answer[:, 1:]
    return model.lm_head(hidden[:, :-1][said]), ids[:, 1:][said]


def blank(size, length, device):
    """A chunk of the right shapes for the compiler."""
    ids, wanted = torch.full((size, length), 40), mixture(size)
    for row, tiles_of_row in enumerate(wanted):
        ids[row, 16:16 + tiles_of_row * TILE_TOKENS] = vocabulary.IMAGE
    pixels = torch.zeros((sum(wanted), SIDE, SIDE, 3), dtype=torch.uint8)
    return [t.to(device) for t in (pixels, ids, ids == 40)]


@torch.no_grad()
def check(model, folder, batch):
    """The folder, loaded as others will, gives the logits of the trained model with its weights rounded as stored."""
    rounded = new_model(0).eval()
    rounded.load_state_dict({name: value.to("cpu", torch.bfloat16).float() for name, value in model.state_dict().items()})
    ours, theirs = (forward(m, [t.cpu() for t in batch])[0] for m in (rounded, load(folder)))
    assert torch.allclose(ours, theirs, atol=1e-5), (ours - theirs).abs().max()


def run(args):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    start = time.time()
    model = (load(args.init) if args.init else new_model(args.seed)).to(device).train()
    if args.compile:
        shapes = [blank(args.batch, LENGTH, device), blank(args.batch // 4, CONTEXT, device)]
        compile_blocks(model, ("InternVLVisionLayer", "Qwen2DecoderLayer"), forward, shapes, torch.autocast(device, torch.bfloat16))
        print(f"compiled in {time.time() - start:.0f} s", flush=True)
    rng, tokenizer = random.Random(args.seed + 99), Tokenizer.from_file(str(HERE / "model" / "tokenizer.json"))
    held = [[t.to(device) for t in chunk(rng, tokenizer, args.batch, LENGTH)]]
    steps, seen = fit(args, model, Chunks(args.seed, args.batch, shares(args)), held, forward, vocabulary.EOS, start, prefetch=2)
    seconds = time.time() - start
    parameters = export(model, args.out)
    print(f"wrote {args.out}: {parameters} parameters, {steps} steps, {seen} pictures, {seconds:.0f} s", flush=True)
    check(model, args.out, chunk(rng, tokenizer, 4, LENGTH))
    print("the exported model gives the same logits", flush=True)


if __name__ == "__main__":
    if not (HERE / "model" / "tokenizer.json").exists():
        vocabulary.train().save(str(HERE / "model" / "tokenizer.json"))
    run(parser(__doc__, HERE / "model", 8.5).parse_args())
