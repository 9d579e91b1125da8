"""Two real models, trained here in seconds: from some English words into a made-up language, and back to synonyms."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

__all__ = ["SYNONYMS", "back_of", "lexicon_texts", "train_translators", "write_lexicon_dataset"]

SYNONYMS = {"big": ("large", "huge"), "fast": ("quick", "swift"), "old": ("ancient", "aged"), "house": ("home", "home")}
"""What each word comes back as, by either of the two words that the made-up language has for it."""
_SAME = ("the", "runs", "dog")
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_LONGEST = 3
_STEPS = 200


def lexicon_texts(count: int, *, seed: int, longest: int = _LONGEST) -> list[str]:
    """Texts of words that both models know."""
    rng = random.Random(seed)
    words = [*SYNONYMS, *_SAME]
    return [" ".join(rng.choices(words, k=rng.randint(1, longest))) for _ in range(count)]


def back_of(text: str) -> set[str]:
    """What a text comes back as, without itself."""
    return {_home(" ".join(f"{manner}-{word}" for word in text.split())) for manner in "ab"} - {text}


def write_lexicon_dataset(folder: Path, *, rows: int, group: int, validation: bool = True) -> Path:
    """Texts with the class of what they are of, as Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", rows, 4), ("validation", 40, 5)):
        if name == "train" or validation:
            texts = lexicon_texts(count, seed=seed)
            table = pa.table({"text": texts, "label": ["dog" if "dog" in text else "none" for text in texts]})
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=group)
    return folder


def train_translators(folder: Path) -> tuple[Path, Path]:
    """Trains both; the folders of the one there and the one back."""
    there = [(text, _abroad(text, rng)) for rng in [random.Random(1)] for text in lexicon_texts(3000, seed=2)]
    back = [(foreign, _home(foreign)) for _, foreign in there]
    return _train(there, folder / "there"), _train(back, folder / "back")


def _abroad(text: str, rng: random.Random) -> str:
    """As a whole in one of the language's two manners."""
    manner = rng.choice("ab")
    return " ".join(f"{manner}-{word}" for word in text.split())


def _home(foreign: str) -> str:
    pairs = [word.split("-") for word in foreign.split()]
    return " ".join(SYNONYMS.get(word, (word, word))["ab".index(manner)] for manner, word in pairs)


def _train(pairs: list[tuple[str, str]], folder: Path) -> Path:
    words = sorted({word for pair in pairs for text in pair for word in text.split()})
    tokenizer = _tokenizer(words)
    torch.manual_seed(3)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_position_embeddings=24,
            dropout=0.0,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
            forced_bos_token_id=None,
        )
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them would only wait for each other
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(_STEPS):
        batch = [pairs[(step * 64 + i) % len(pairs)] for i in range(64)]
        given = tokenizer([source for source, _ in batch], padding=True, return_tensors="pt")
        labels = tokenizer([target for _, target in batch], padding=True, return_tensors="pt")["input_ids"]
        loss = model(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            labels=labels.masked_fill(labels == 0, -100),
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / _STEPS)
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )
