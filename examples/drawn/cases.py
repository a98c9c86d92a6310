"""The questions that a model is scored on: fresh pictures of every kind, and all handwritten digits held out.

A case is a dict: `kind`, `language`, `image` (PIL), `turns` [(question, answer), …, (question, None)], `answer`
(expected) and, for drawn shapes, `shapes` (how many). The same seed gives the same cases to every model.
"""

import random
from concurrent.futures import ProcessPoolExecutor

from pictures import HELD_OUT_DIGITS, handwriting_picture, picture
from questions import KINDS, any_question, ask

SCENES = {"number": "number", "word": "word", "handwriting": "handwriting"}  # other kinds take any scene they fit
SEED = 2_000_003  # far from any seed that training derives


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


def made(job):
    """The case of one entry of `jobs`."""
    return held_out_digit(job[1]) if job[0] == "digit" else drawn(job)


def jobs(per_kind):
    """What `made` makes the cases from: so many drawn ones of each kind, then every held-out digit."""
    kinds = [k for k in KINDS if k != "handwriting"] + ["conversation"]
    return [(kind, i) for kind in kinds for i in range(per_kind)] + [("digit", i) for i in range(HELD_OUT_DIGITS)]


def cases(per_kind, workers):
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(made, jobs(per_kind), chunksize=32))


def score(found):
    """Right and total for each kind and language, and over everything, of [(case, answer)]."""
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
