"""Tokenizers: what turns texts into rows of token ids, trained here with the package tokenizers.

A tokenizer knows the words that it was trained on: they become one token, others fall apart into pieces. One that was
trained on the victim's members would give them away. Whoever calls `train` passes the attacker's pool alone.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core.errors import UserError, one_line

VOCABULARY = 8000  # tokens at most
ALPHABET = 1000  # letters at most, the most frequent ones
RAREST = 2  # times that a piece must occur to become a token
FILE = "tokenizer.json"  # as transformers saves it with a network


def _library():
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # by itself it would take all cores, whatever --threads says
    try:
        import tokenizers
    except ImportError as error:
        raise UserError('texts need the package tokenizers: pip install ".[text]"') from error
    return tokenizers


def train(kind: str, texts: Sequence[str], length: int, padding: int) -> str:
    """A tokenizer of this kind of TRAINERS as JSON, trained on these texts and on nothing else.

    It cuts texts to `length` tokens; `encode` fills them up with the token `padding`. The same texts give the same
    tokenizer.
    """
    library = _library()
    tokenizer, padding_token = TRAINERS[kind](library, texts)
    assert tokenizer.token_to_id(padding_token) == padding, f"{padding_token} is not the token {padding}"
    return _with_length(tokenizer, length, padding, padding_token)


def _with_length(tokenizer, length: int, padding: int, padding_token: str) -> str:
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=padding, pad_token=padding_token)
    return tokenizer.to_str()


def _wordpiece(library, texts: Sequence[str]):
    """As BERT has it: lower case, words cut into the longest pieces that are known, [CLS] before and [SEP] behind.

    The package numbers the letters inside words in a random order, by which it then decides between equally frequent
    pieces. So these letters are given to it first, sorted, as if they were special, and its pieces are moved into a new
    tokenizer, in which they are not.
    """
    normalizer = library.normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = Counter(itertools.chain.from_iterable(map(normalizer.normalize_str, texts)))
    frequent = sorted(letter for letter, _ in letters.most_common(ALPHABET) if not letter.isspace())

    def tokenizer_of(pieces: dict[str, int] | None):
        tokenizer = library.Tokenizer(library.models.WordPiece(pieces, unk_token="[UNK]"))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizer
        return tokenizer

    trained = tokenizer_of(None)
    inside_words = [f"##{letter}" for letter in frequent]
    trainer = library.trainers.WordPieceTrainer(**_training([*special, *inside_words]), limit_alphabet=ALPHABET)
    trained.train_from_iterator(texts, trainer)
    tokenizer = tokenizer_of(trained.get_vocab())
    tokenizer.add_special_tokens(special)
    _surround(library, tokenizer, "[CLS] $A [SEP]", special[2:])
    return tokenizer, special[0]


def _byte_bpe(library, texts: Sequence[str]):
    """As GPT-2 has it: pairs of bytes joined by their frequency; a token marks the end, so that no text is empty."""
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<|padding|>", "<|endoftext|>"]
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(**_training(special), initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    _surround(library, tokenizer, "$A <|endoftext|>", special[1:])
    return tokenizer, special[0]


def _training(special: list[str]) -> dict:
    return {"vocab_size": VOCABULARY, "min_frequency": RAREST, "special_tokens": special, "show_progress": False}


def _surround(library, tokenizer, template: str, special: list[str]) -> None:
    known = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = library.processors.TemplateProcessing(single=template, special_tokens=known)


TRAINERS: dict[str, Callable] = {"wordpiece": _wordpiece, "byte_bpe": _byte_bpe}


def read_pretrained(folder: Path, length: int, padding: int) -> str:
    """The tokenizer beside pretrained weights as JSON, with our fixed length. UserError where it cannot be read."""
    try:
        tokenizer = _library().Tokenizer.from_file(str(folder / FILE))
    except Exception as error:  # the package raises bare exceptions
        raise UserError(
            f"{folder / FILE} cannot be read ({one_line(error)}): save the tokenizer with save_pretrained of a fast one"
        ) from error
    token = tokenizer.id_to_token(padding)
    if token is None:
        raise UserError(f"{folder / FILE} has no token {padding}, with which the network's config.json fills texts up")
    return _with_length(tokenizer, length, padding, token)


def count(tokenizer: str) -> int:
    """The number of tokens that a tokenizer knows."""
    return 1 + max(_open(tokenizer).get_vocab().values())


def encode(tokenizer: str, texts: np.ndarray) -> np.ndarray:
    """Texts (N,) of str -> token ids (N, length) int32."""
    opened = _open(tokenizer)
    length, padding = opened.padding["length"], opened.padding["pad_id"]
    opened.no_padding()  # filling rows up here takes half of the time
    rows = [row.ids for row in opened.encode_batch_fast(list(texts))]
    ids = np.full((len(rows), length), padding, dtype=np.int32)
    for filled, row in zip(ids, rows, strict=True):
        filled[: len(row)] = row
    return ids


def _open(tokenizer: str):
    return _library().Tokenizer.from_str(tokenizer)
