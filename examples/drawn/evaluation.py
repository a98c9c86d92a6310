"""The command line of a model's `evaluate.py`: scores the exported model as `transformers` computes it."""

import argparse
import json
import time
from pathlib import Path

import tokenizers
import torch
import transformers
from PIL import __version__ as pillow_version

from cases import SEED, cases, score


def evaluate(description, folder, weights, load, answers):
    """Draws the cases, asks in batches, writes `evaluation.json`.

    `load(folder, device)` gives what `answers(loaded, batch)` needs to answer a list of cases, greedily.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default=str(Path(folder) / "model"))
    parser.add_argument("--out", default=str(Path(folder) / "evaluation.json"))
    parser.add_argument("--per-kind", type=int, default=300)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=15)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    started = time.time()
    todo = cases(args.per_kind, args.workers)
    print(f"drew {len(todo)} pictures in {time.time() - started:.0f} s", flush=True)
    loaded, found = load(args.model, device), []
    for i in range(0, len(todo), args.batch):
        found += list(zip(todo[i:i + args.batch], answers(loaded, todo[i:i + args.batch])))
    table = score(found)
    misses = [dict(kind=c["kind"], question=c["turns"][-1][0], expected=c["answer"], said=said) for c, said in found if said != c["answer"]]
    report = dict(
        seed=SEED, weights=weights, decoding="greedy, exact match of the whole answer", device=device,
        versions=dict(torch=torch.__version__, transformers=transformers.__version__, tokenizers=tokenizers.__version__, pillow=pillow_version),
        kinds=table, misses=misses,
    )
    Path(args.out).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for name, row in table.items():
        print(f"{name:20s} {row['right']:5d}/{row['total']:5d}  {row['accuracy']:.4f}  en {row['en']} zh {row['zh']}")
    print(f"took {time.time() - started:.0f} s")
