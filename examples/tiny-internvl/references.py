"""Writes `references/` and `demo.png`: pictures, questions and what transformers answers, on a CPU in f32.

    python references.py
"""

import sys
from pathlib import Path

import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "drawn"))

from checkpoint import MEAN, STD
from evaluate import inputs_for, load
from reference_cases import Reference, write
from tiles import MOST, SIDE
from vocabulary import EOS, PAD, prompt

WITH_TENSORS = ["count-en", "where-en", "handwriting-en"]
MORE = [("where-strip-en", "shapes", "where", "en", (400, 130), "RGB")]  # three tiles in a row, and the thumbnail


class InternVl(Reference):
    """The template `internvl2_5` makes the prompt; transformers' own processor must make the same pixels."""

    weights, image_processor = "bf16", "GotOcr2ImageProcessorPil"

    def __init__(self, folder):
        self.tokenizer, model = load(folder)
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = EOS, PAD
        self.theirs = GotOcr2ImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD, crop_to_patches=True, min_patches=1, max_patches=MOST
        )
        super().__init__(model)

    def inputs(self, image, turns):
        inputs = inputs_for(self.tokenizer, [image], [turns])
        theirs = self.theirs(images=[image.convert("RGB")], return_tensors="pt").pixel_values
        assert torch.allclose(theirs, inputs["pixel_values"], atol=1e-5)
        return prompt(turns), dict(inputs, pixel_values=theirs)

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True)


if __name__ == "__main__":
    write(HERE, InternVl(HERE / "model"), WITH_TENSORS, MORE)
