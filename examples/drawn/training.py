"""The training loop of both tiny models: the optimizer, a schedule that follows the clock, reuse of drawn chunks.

A chunk is a tuple of tensors whose first two are the pictures and the token ids; what is in it besides, only the
model's own `forward(model, batch)` knows. That returns (logits before each answer token, those tokens).
"""

import argparse
import math
import random
import time

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader


def parser(description, folder, minutes):
    """The options that every training script has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--minutes", type=float, default=minutes, help="training ends by then, fully annealed")
    options.add_argument("--steps", type=int, default=20000, help="ends earlier, if these are done first")
    options.add_argument("--batch", type=int, default=256, help="pictures a step")
    options.add_argument("--reuse", type=int, default=2, help="times a picture is used, on average")
    options.add_argument("--keep", type=int, default=400, help="chunks kept for reuse")
    options.add_argument("--rate", type=float, default=1e-3)
    options.add_argument("--workers", type=int, default=15, help="processes that draw")
    options.add_argument("--init", help="a model folder to go on from, instead of fresh weights")
    options.add_argument("--more", nargs="*", default=[], metavar="KIND=WEIGHT", help="other shares of kinds of questions")
    options.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    options.add_argument("--report", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--out", default=str(folder))
    return options


def shares(args):
    """`--more` as numbers."""
    return {kind: float(weight) for kind, weight in (entry.split("=") for entry in args.more)}


def normalized(pixels, mean, std):
    """uint8 [n, side, side, 3] to the normalised f32 [n, 3, side, side] that the model takes."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (mean, std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def quick_accuracy(model, batches, forward, precision, eos):
    """Share of questions whose every answer token is the most likely one: what greedy decoding would say."""
    right = total = 0
    for batch in batches:
        with precision:  # with gradients: without, the compiler would compile all again
            logits, targets = forward(model, batch)
        good = (logits.argmax(-1) == targets).tolist()
        ends = (targets == eos).tolist()
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


def compile_blocks(model, names, forward, batches, precision):
    """Compiles the transformer blocks one class at a time (seconds; the whole model takes minutes)."""
    for block in model.modules():
        if type(block).__name__ in names:
            block.compile(dynamic=False)
    for batch in batches:
        with precision:
            logits, _ = forward(model, batch)
        logits.float().sum().backward()
    model.zero_grad(set_to_none=True)


def fit(args, model, chunks, held, forward, eos, start, prefetch=4):
    """Trains until the time is over: (steps done, pictures drawn). `held` are chunks for the progress lines."""
    device = next(model.parameters()).device
    optimizer, precision = optimizer_for(model, args.rate), torch.autocast(device.type, torch.bfloat16)
    loader = iter(DataLoader(
        chunks, batch_size=None, num_workers=args.workers, prefetch_factor=prefetch if args.workers else None,
        pin_memory=device.type == "cuda", persistent_workers=args.workers > 0,
    ))
    rng, kept, seen, waited, losses, step = random.Random(args.seed + 99), [], 0, 0.0, [], 0
    while step < args.steps:
        done = max(step / args.steps, (time.time() - start) / (args.minutes * 60))
        if done >= 1:
            break
        if step % args.reuse and len(kept) > 64:
            batch = rng.choice(kept)
        else:
            asked = time.time()
            batch = [t.to(device, non_blocking=True) for t in next(loader)]
            waited += time.time() - asked
            seen += len(batch[1])
            kept = (kept + [batch])[-args.keep:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.rate, done, step)
        with precision:
            logits, targets = forward(model, batch)
        loss = cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        step += 1
        if step % args.report == 0:
            mean, losses = torch.stack(losses).mean().item(), []
            accuracy = quick_accuracy(model, held, forward, precision, eos)
            print(f"step {step} {time.time() - start:.0f}s done {done:.2f} pictures {seen} waited {waited:.0f}s loss {mean:.4f} accuracy {accuracy:.3f}", flush=True)
    return step, seen
