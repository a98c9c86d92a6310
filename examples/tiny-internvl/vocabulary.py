"""The tokenizer: a byte-level BPE trained on the script's own questions and answers, digits one by one.

Run as a script, it writes `model/tokenizer.json`. As in InternVL's tokenizers, the six special tokens come last.
"""

import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.append(str(Path(__file__).resolve().parents[1] / "drawn"))

from pictures import picture
from questions import KINDS, SYSTEM, ask
from words import WORDS

SIZE = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
PAD, START, EOS, IMAGE_START, IMAGE_END, IMAGE = range(SIZE - len(SPECIAL), SIZE)
SYSTEM_MESSAGE = "Answer the questions about the picture."


def corpus(seed=11, pictures=5000):
    """Questions, answers, turns and every printed word in its three forms."""
    rng = random.Random(seed)
    yield from [f"system\n{text}" for text in [SYSTEM_MESSAGE] * 8 + SYSTEM] * 50
    for word in WORDS:
        for form in (word.lower(), word.upper(), word.title()):
            yield from [f'The word is "{form}".', f"单词是“{form}”。"] * 4
    for _ in range(pictures):
        scene, _ = picture(rng, size=(48, 48))  # only what is true of it is used
        for kind in KINDS:
            for language in ("en", "zh"):
                asked = ask(rng, scene, kind, language)
                if asked:
                    yield from (f"user\n{asked[0]}", f"assistant\n{asked[1]}")


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PAD, max_token_length=12, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [PAD, START, EOS, IMAGE_START, IMAGE_END, IMAGE]
    assert tokenizer.get_vocab_size() == SIZE, tokenizer.get_vocab_size()
    return tokenizer


def prompt(turns, pictures=1, system=None):
    """The text of the template `internvl2_5` for [(question, answer), …, (question, None)]; `<image>` is a picture."""
    text = f"<|im_start|>system\n{SYSTEM_MESSAGE if system is None else system}<|im_end|>\n"
    for n, (question, answer) in enumerate(turns):
        shown = "<image>\n" * pictures if n == 0 else ""
        text += f"<|im_start|>user\n{shown}{question}<|im_end|>\n<|im_start|>assistant\n"
        if answer is not None:
            text += f"{answer}<|im_end|>\n"
    return text


def expanded(text, image_tokens):
    """The prompt with the places of the pictures' features: `image_tokens` says how many for each `<image>`."""
    for n in image_tokens:
        text = text.replace("<image>", "<img>" + "<IMG_CONTEXT>" * n + "</img>", 1)
    return text


class Conversation:
    """Token ids of a growing conversation about one picture, and which of them are answers with their end.

    Equal to tokenizing the template's text as a whole: no token crosses a special token or a line's end.
    """

    def __init__(self, tokenizer, image_tokens, system=None):
        self.tokenizer = tokenizer
        self.ids = [START, *self.encode(f"system\n{SYSTEM_MESSAGE if system is None else system}"), EOS]
        self.answer = [False] * len(self.ids)
        self.picture = [IMAGE_START] + [IMAGE] * image_tokens + [IMAGE_END] + self.encode("\n")

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def add(self, question, answer, most):
        """Adds a turn, unless the whole would then be longer than `most` tokens: whether it fitted."""
        asked = self.encode("\n") + [START] + self.encode("user\n") + self.picture + self.encode(question)
        asked += [EOS, *self.encode("\n"), START, *self.encode("assistant\n")]
        said = [*self.encode(answer), EOS]
        if len(self.ids) + len(asked) + len(said) > most:
            return False
        self.ids += asked + said
        self.answer += [False] * len(asked) + [True] * len(said)
        self.picture = []
        return True


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "model")
    folder.mkdir(parents=True, exist_ok=True)
    train().save(str(folder / "tokenizer.json"))
