"""Trains the model from scratch on pictures drawn while it trains, and writes `model/`.

    python train.py        # about 9 minutes on one GPU with 16 CPU cores
"""

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import LlavaForConditionalGeneration

import vocabulary
from checkpoint import CONTEXT, IMAGE_TOKENS, MEAN, SIDE, STD, export, new_model
from pictures import model_pixels, picture
from questions import SYSTEM, any_question

HERE = Path(__file__).parent
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
    return model_pixels(image), *fitted


def chunk(rng, tokenizer, size, length, more=None):
    pixels = np.zeros((size, SIDE, SIDE, 3), np.uint8)
    ids = np.full((size, length), vocabulary.PAD, np.int64)
    answer = np.zeros((size, length), bool)
    for row in range(size):
        pixels[row], tokens, said = example(rng, tokenizer, length, more)
        ids[row, :len(tokens)] = tokens
        answer[row, :len(said)] = said
    return torch.from_numpy(pixels), torch.from_numpy(ids), torch.from_numpy(answer)


def logits_and_targets(model, batch, device):
    """Logits at the positions before each answer token, those tokens, and the row each belongs to."""
    pixels, ids, answer = batch
    mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=device).view(1, 3, 1, 1)
    values = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    hidden = model.model(input_ids=ids, pixel_values=values, use_cache=False).last_hidden_state
    said = answer[:, 1:]
    rows = said.nonzero()[:, 0]
    return model.lm_head(hidden[:, :-1][said]), ids[:, 1:][said], rows


def quick_accuracy(model, batches, device, precision):
    """Share of questions whose every answer token is the most likely one: what greedy decoding would say."""
    right = total = 0
    for batch in batches:
        with precision:
            logits, targets, _ = logits_and_targets(model, batch, device)
        good = (logits.argmax(-1) == targets).tolist()
        ends = (targets == vocabulary.EOS).tolist()
        whole = True
        for token, end in zip(good, ends):
            whole = whole and token
            if end:
                right, total, whole = right + whole, total + 1, True
    return right / max(1, total)


def optimizer_for(model, rate):
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-8, fused=torch.cuda.is_available())


def learning_rate(peak, done, step, warmup=300):
    """Linear warm-up, then a cosine over `done`, the share of the run that is over (0..1)."""
    return peak * min(1.0, (step + 1) / warmup) * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def compile_blocks(model, device, batch):
    """Compiles the transformer blocks one class at a time (seconds; the whole model takes minutes)."""
    blocks = [m for m in model.modules() if type(m).__name__ in ("CLIPEncoderLayer", "LlamaDecoderLayer")]
    for block in blocks:
        block.compile(dynamic=False)
    for size, length in ((batch, IMAGE_TOKENS + TEXT), (batch // 4, CONTEXT)):
        ids = torch.full((size, length), 40)
        ids[:, 3:3 + IMAGE_TOKENS] = vocabulary.IMAGE
        pixels = torch.zeros((size, SIDE, SIDE, 3), dtype=torch.uint8)
        with torch.autocast(device, torch.bfloat16):
            logits, _, _ = logits_and_targets(model, [t.to(device) for t in (pixels, ids, ids == 40)], device)
        logits.float().sum().backward()
    model.zero_grad(set_to_none=True)


def run(args):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = new_model(args.seed).to(device).train()
    start = time.time()
    if args.init:
        model.load_state_dict(LlavaForConditionalGeneration.from_pretrained(args.init, dtype=torch.float32).state_dict())
    if args.compile:
        compile_blocks(model, device, args.batch)
        print(f"compiled in {time.time() - start:.0f} s", flush=True)
    optimizer = optimizer_for(model, args.rate)
    precision = torch.autocast(device, torch.bfloat16)
    loader = iter(DataLoader(
        Chunks(args.seed, args.batch, {k: float(w) for k, w in (m.split("=") for m in args.more)}), batch_size=None, num_workers=args.workers,
        prefetch_factor=4 if args.workers else None, pin_memory=device == "cuda", persistent_workers=args.workers > 0,
    ))
    rng, tokenizer = random.Random(args.seed + 99), Tokenizer.from_file(str(HERE / "model" / "tokenizer.json"))
    held = [[t.to(device) for t in chunk(rng, tokenizer, args.batch, IMAGE_TOKENS + TEXT)]]
    kept, seen, waited, losses = [], 0, 0.0, []
    for step in range(args.steps):
        done = max(step / args.steps, (time.time() - start) / (args.minutes * 60))
        if done >= 1:
            break
        if step % args.reuse and len(kept) > 64:
            batch = rng.choice(kept)
        else:
            asked = time.time()
            batch = [t.to(device, non_blocking=True) for t in next(loader)]
            waited += time.time() - asked
            seen += len(batch[0])
            kept = (kept + [batch])[-args.keep:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.rate, done, step)
        with precision:
            logits, targets, _ = logits_and_targets(model, batch, device)
        loss = cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if (step + 1) % args.report == 0:
            mean, losses = torch.stack(losses).mean().item(), []
            accuracy = quick_accuracy(model, held, device, precision)
            print(f"step {step + 1} {time.time() - start:.0f}s done {done:.2f} pictures {seen} waited {waited:.0f}s loss {mean:.4f} accuracy {accuracy:.3f}", flush=True)
    del loader
    seconds = time.time() - start
    parameters = export(model, args.out)
    print(f"wrote {args.out}: {parameters} parameters, {step + 1} steps, {seen} pictures, {seconds:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.75, help="training ends by then, fully annealed")
    parser.add_argument("--steps", type=int, default=20000, help="ends earlier, if these are done first")
    parser.add_argument("--batch", type=int, default=256, help="pictures a step")
    parser.add_argument("--reuse", type=int, default=2, help="times a picture is used, on average")
    parser.add_argument("--keep", type=int, default=400, help="chunks kept for reuse")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=15, help="processes that draw")
    parser.add_argument("--init", help="a model folder to go on from, instead of fresh weights")
    parser.add_argument("--more", nargs="*", default=[], metavar="KIND=WEIGHT", help="other shares of kinds of questions")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--report", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=str(HERE / "model"))
    args = parser.parse_args()
    if not (HERE / "model" / "tokenizer.json").exists():
        (HERE / "model").mkdir(exist_ok=True)
        vocabulary.train().save(str(HERE / "model" / "tokenizer.json"))
    run(args)


if __name__ == "__main__":
    main()
