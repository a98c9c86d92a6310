"""The tokenizer: a byte-level BPE trained on the script's own questions and answers, digits one by one.

Run as a script, it writes `model/tokenizer.json`. Ids: 0 <pad>, 1 <s>, 2 </s>, 3 <image>.
"""

import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

sys.path.append(str(Path(__file__).resolve().parents[1] / "drawn"))

from pictures import picture
from questions import KINDS, SYSTEM, ask
from words import WORDS

SIZE = 2048
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]
PAD, BOS, EOS, IMAGE = range(4)


def corpus(seed=11, pictures=9000):
    """Questions, answers, turns and every printed word in its three forms."""
    rng = random.Random(seed)
    yield from SYSTEM * 50
    for word in WORDS:
        for form in (word.lower(), word.upper(), word.title()):
            yield from [f'The word is "{form}".', f"单词是“{form}”。"] * 4
    for _ in range(pictures):
        scene, _ = picture(rng)
        for kind in KINDS:
            for language in ("en", "zh"):
                asked = ask(rng, scene, kind, language)
                if asked:
                    yield f"USER: {asked[0]} ASSISTANT: {asked[1]}"


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    # The answer follows "ASSISTANT:" with a space, which is no part of the text: the decoder takes it off.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    special = [AddedToken(t, special=True, normalized=False) for t in SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=special, max_token_length=12, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [PAD, BOS, EOS, IMAGE]
    assert tokenizer.get_vocab_size() == SIZE, tokenizer.get_vocab_size()
    return tokenizer


def conversation(tokenizer, turns, image_tokens, system=""):
    """Token ids of a conversation about one picture, and which of them are answers (with their </s>).

    `turns` is a list of (question, answer). Equal to tokenizing the chat template's text as a whole.
    """
    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    tokens = [BOS] + ids(f"{system} USER: " if system else "USER: ") + [IMAGE] * image_tokens
    answer = [False] * len(tokens)
    for n, (question, said) in enumerate(turns):
        asked = ids(("\n" if n == 0 else "USER: ") + question + " ASSISTANT:")
        reply = ids(" " + said) + [EOS]
        tokens += asked + reply
        answer += [False] * len(asked) + [True] * len(reply)
    return tokens, answer


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "model")
    folder.mkdir(parents=True, exist_ok=True)
    train().save(str(folder / "tokenizer.json"))
