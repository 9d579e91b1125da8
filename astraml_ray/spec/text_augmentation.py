"""Augmentations of texts, and of the words of a tagged row."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from astraml_ray.spec.augmentation_base import BaseAugmentation, Share

__all__ = [
    "TEXT_PRESETS",
    "BackTranslation",
    "CaseNoise",
    "KeyboardNoise",
    "MixTexts",
    "OcrNoise",
    "RandomDeletion",
    "RandomInsertion",
    "RandomMask",
    "RandomSwap",
    "SentenceShuffle",
    "SpanMask",
    "Synonym",
    "TextAugmentation",
    "WordDropout",
    "text_preset",
]

Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LexiconUri = Annotated[str, StringConstraints(min_length=1, max_length=2048, strip_whitespace=True)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=2048, strip_whitespace=True)]
Prefix = Annotated[str, StringConstraints(max_length=256)]
LanguageCode = Annotated[str, StringConstraints(min_length=1, max_length=32, strip_whitespace=True)]
Lexicon = dict[Word, Annotated[tuple[Word, ...], Field(min_length=1, max_length=1000)]]


class BackTranslation(BaseAugmentation):
    """Replaces a text by one that says the same: into another language and back, by two models of yours.

    Every training text is translated once, before the first step, on the devices that the run trains on; what came back
    is kept with the run, and on the machine for later runs. So it stands first in the list. Both models are
    sequence-to-sequence models of transformers (MarianMT, T5, M2M, BART ...), with their weights as safetensors.
    """

    type: Literal["back_translation"]
    forward: ModelName
    """The model into the other language: a folder, an s3:// prefix or a hub id, as `model.name`."""
    backward: ModelName
    """The model back; the same one, if it does both."""
    candidates: Annotated[int, Field(ge=1, le=16)] = 2
    """Texts to draw from, at most: the best so many translations of a text, each brought back. Those that are equal,
    or are the text itself, count once, or not at all; a row that has none stays as it is."""
    num_beams: Annotated[int, Field(ge=1, le=32)] = 4
    """Of the beam search; there are never fewer than `candidates`."""
    max_length: Annotated[int, Field(ge=4, le=4096)] = 256
    """Tokens of a text and of its translation at most, or what the model takes; a longer text is cut, and that is
    told."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Texts at a time on a device; fewer where they do not fit into its memory."""
    forward_prefix: Prefix = ""
    """What the forward model is asked, before each text: T5's "translate English to German: "."""
    backward_prefix: Prefix = ""
    """The same, of the backward model."""
    language: LanguageCode | None = None
    """The texts' language by the models' own code ("en", "eng_Latn"), where they translate between many."""
    pivot_language: LanguageCode | None = None
    """The other language's code; with `language`, and only with it."""


class RandomDeletion(BaseAugmentation):
    """Drops words; at least one stays."""

    type: Literal["random_deletion"]
    rate: Share = 0.1
    """Chance of each word to go."""


class RandomSwap(BaseAugmentation):
    """Swaps pairs of words."""

    type: Literal["random_swap"]
    rate: Share = 0.1
    """Swaps, as a share of the words; at least one."""


class RandomInsertion(BaseAugmentation):
    """Inserts words of the same text, or what a lexicon has for them, at random places."""

    type: Literal["random_insertion"]
    rate: Share = 0.1
    """Insertions, as a share of the words; at least one."""
    lexicon: LexiconUri | Lexicon | None = None
    """As of `synonym`; a word that it does not have is inserted itself."""


class Synonym(BaseAugmentation):
    """Replaces words by what a lexicon has for them; a first capital and commas and the like round a word stay."""

    type: Literal["synonym"]
    rate: Share = 0.1
    """Chance of each word that the lexicon has."""
    lexicon: LexiconUri | Lexicon
    """Words in lower case with what may stand for them: a mapping, or the URI of a JSON object `{"word": ["other"]}`
    or of a TSV file, `word<TAB>other<TAB>another`. It is read once, with the dataset's credentials, and kept with the
    run, so that a resumed run has the same; at most 8 MiB."""


class RandomMask(BaseAugmentation):
    """Replaces words by the tokenizer's mask token, or its unknown token where it has none."""

    keeps_words: ClassVar[bool] = True
    type: Literal["random_mask"]
    rate: Share = 0.1
    """Chance of each word to be masked."""


class SpanMask(BaseAugmentation):
    """Masks runs of words, whose lengths are geometric (SpanBERT, T5)."""

    keeps_words: ClassVar[bool] = True
    type: Literal["span_mask"]
    rate: Share = 0.15
    """Words in masked runs, as a share; at least one."""
    mean_length: Annotated[float, Field(ge=1, le=100)] = 3.0
    """Words of a run, on average; none is longer than 10, or than five times that."""
    unit: Literal["word", "span"] = "word"
    """`word` puts one mask for each word, `span` one for each run, as T5 does. Only the first fits
    token-classification."""


class WordDropout(BaseAugmentation):
    """Replaces words by the tokenizer's unknown token, or its mask token where it has none (Bowman et al. 2016)."""

    keeps_words: ClassVar[bool] = True
    type: Literal["word_dropout"]
    rate: Share = 0.1
    """Chance of each word to be dropped."""


class CaseNoise(BaseAugmentation):
    """Flips the case of letters."""

    keeps_words: ClassVar[bool] = True
    type: Literal["case_noise"]
    rate: Share = 0.1
    """Chance of each letter to flip."""


class KeyboardNoise(BaseAugmentation):
    """Typing mistakes: a letter is left out, doubled by a neighbour's, replaced by a neighbour's, or comes too early.

    Neighbours are those on a US keyboard (QWERTY); letters that it does not have stay.
    """

    keeps_words: ClassVar[bool] = True
    type: Literal["keyboard_noise"]
    rate: Share = 0.03
    """Chance of each letter to be mistyped."""
    edits: Annotated[
        tuple[Literal["insert", "delete", "substitute", "transpose"], ...], Field(min_length=1, max_length=4)
    ] = ("insert", "delete", "substitute", "transpose")
    """The kinds of mistakes, all equally likely."""


class OcrNoise(BaseAugmentation):
    """Replaces characters by what text recognition takes them for: O by 0, l by 1, m by rn ..."""

    keeps_words: ClassVar[bool] = True
    type: Literal["ocr_noise"]
    rate: Share = 0.05
    """Chance of each character that is often taken for another."""


class SentenceShuffle(BaseAugmentation):
    """Puts the sentences of a text in another order. A sentence ends with one of .!?…。！？ or a line's end."""

    type: Literal["sentence_shuffle"]


class MixTexts(BaseAugmentation):
    """Replaces a run of words by a run of another row's, one of the same class and shuffle block.

    For text-classification of single texts alone: elsewhere the label would not stay true.
    """

    type: Literal["mix_texts"]
    rate: Share = 0.3
    """Words of the run, as a share; at least one."""


TextAugmentation = (
    BackTranslation
    | RandomDeletion
    | RandomSwap
    | RandomInsertion
    | Synonym
    | RandomMask
    | SpanMask
    | WordDropout
    | CaseNoise
    | KeyboardNoise
    | OcrNoise
    | SentenceShuffle
    | MixTexts
)


def _preset(rate: float, probability: float) -> tuple[TextAugmentation, ...]:
    return (
        RandomDeletion(type="random_deletion", rate=rate, probability=probability),
        RandomSwap(type="random_swap", rate=rate, probability=probability),
        CaseNoise(type="case_noise", rate=rate / 2, probability=probability),
    )


def _tagged_preset(rate: float, probability: float) -> tuple[TextAugmentation, ...]:
    """What leaves each word its place."""
    return (
        CaseNoise(type="case_noise", rate=rate / 2, probability=probability),
        KeyboardNoise(type="keyboard_noise", rate=rate / 5, probability=probability),
        WordDropout(type="word_dropout", rate=rate, probability=probability),
    )


def _language_preset(rate: float, probability: float) -> tuple[TextAugmentation, ...]:
    """A language model has to learn the language as it is written: hardly more than typing mistakes."""
    return (
        CaseNoise(type="case_noise", rate=rate / 5, probability=probability),
        KeyboardNoise(type="keyboard_noise", rate=rate / 10, probability=probability),
    )


TEXT_PRESETS: dict[str, tuple[TextAugmentation, ...]] = {
    "light": _preset(0.05, 0.3),
    "medium": _preset(0.1, 0.5),
    "strong": (*_preset(0.2, 0.8), RandomMask(type="random_mask", rate=0.1, probability=0.5)),
}
"""By name, of text-classification and text-regression."""

_STRENGTHS = {"light": (0.05, 0.3), "medium": (0.1, 0.5), "strong": (0.2, 0.8)}
_OTHERS = {"token-classification": _tagged_preset, "causal-lm": _language_preset, "masked-lm": _language_preset}


def text_preset(name: str, task: str) -> tuple[TextAugmentation, ...]:
    """What a preset's name stands for in a task."""
    return _OTHERS[task](*_STRENGTHS[name]) if task in _OTHERS else TEXT_PRESETS[name]
