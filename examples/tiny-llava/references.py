"""Writes `references/` and `demo.png`: pictures, questions and what transformers answers, on a CPU in f32.

    python references.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "drawn"))

from evaluate import load, messages
from reference_cases import Reference, write

WITH_TENSORS = ["count-en", "where-en", "handwriting-en", "word-zh"]


class Llava(Reference):
    """Its processor makes the prompt and the pixels."""

    weights = "f16"

    def __init__(self, folder):
        self.processor, model = load(folder)
        self.image_processor = type(self.processor.image_processor).__name__
        super().__init__(model)

    def inputs(self, image, turns):
        prompt = self.processor.apply_chat_template(messages(turns), add_generation_prompt=True)
        return prompt, self.processor(images=image, text=prompt, return_tensors="pt")

    def decode(self, ids):
        return self.processor.decode(ids, skip_special_tokens=True)


if __name__ == "__main__":
    write(HERE, Llava(HERE / "model"), WITH_TENSORS)
