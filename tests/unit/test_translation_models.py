"""Models of the kinds that people have: MarianMT and M2M with sentencepiece, tiny and untrained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
)

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.errors import ModelError
from astraml_ray.spec.text_augmentation import BackTranslation
from astraml_ray.training.translation.translator import Translator, check_translators
from tests.translation import lexicon_texts

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "texts").write_text("\n".join(lexicon_texts(1000, seed=1)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts"),
        model_prefix=str(folder / "m"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "m.model"


def vocabulary(pieces: Path, *first: str) -> dict[str, int]:
    known = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    names = [*first, *(known.id_to_piece(index) for index in range(3, known.get_piece_size())), "<pad>"]
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


@pytest.fixture(scope="module")
def marian(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, words = tmp_path_factory.mktemp("marian"), vocabulary(pieces, "</s>", "<unk>")
    (folder / "v.json").write_text(json.dumps(words))
    torch.manual_seed(0)
    pad = words["<pad>"]
    config = MarianConfig(
        vocab_size=len(words),
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        forced_eos_token_id=0,
        **SIZES,
    )
    MarianMTModel(config).save_pretrained(folder / "model")
    for name in ("source.spm", "target.spm"):
        shutil.copy(pieces, folder / name)
    MarianTokenizer(
        source_spm=str(folder / "source.spm"), target_spm=str(folder / "target.spm"), vocab=str(folder / "v.json")
    ).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def many(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, words = tmp_path_factory.mktemp("m2m"), vocabulary(pieces, "<s>", "<pad>", "</s>", "<unk>")
    (folder / "v.json").write_text(json.dumps(words))
    torch.manual_seed(0)
    M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(words) + 110, **SIZES)).save_pretrained(folder / "model")
    M2M100Tokenizer(vocab_file=str(folder / "v.json"), spm_file=str(pieces)).save_pretrained(folder / "model")
    return folder / "model"


def rule(folder: str | Path, **fields: Any) -> BackTranslation:
    return BackTranslation(type="back_translation", forward=str(folder), backward=str(folder), **fields)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_marian_model_with_its_two_sentencepiece_files(place: str, marian: Path, s3: S3Server) -> None:
    shutil.copytree(marian, s3.folder / "bucket" / "marian", dirs_exist_ok=True)
    asked = rule(marian if place == "folder" else "s3://bucket/marian", num_beams=2)
    check_translators(asked)
    translator = Translator(asked, CPU)
    there, back = (translator._sides[name] for name in ("forward", "backward"))
    assert there.model is back.model  # named twice, loaded once
    assert there.limit == 16
    assert there.begins_with is None
    found = translator.candidates(["big house", "old dog"])
    assert found == translator.candidates(["big house", "old dog"])
    assert [len(one) <= 2 for one in found] == [True, True]


def test_a_model_of_many_languages_is_told_which_two(many: Path) -> None:
    translator = Translator(rule(many, language="en", pivot_language="fr", num_beams=2), CPU)
    there, back = (translator._sides[name] for name in ("forward", "backward"))
    english, french = (there.tokenizer.get_lang_id(code) for code in ("en", "fr"))
    assert english != french
    assert (there.tokenizer("big")["input_ids"][0], there.begins_with) == (english, french)
    assert (back.tokenizer("big")["input_ids"][0], back.begins_with) == (french, english)
    made = there.model.generate(
        **there.tokenizer("big house", return_tensors="pt"), generation_config=there._search(2)
    ).tolist()
    assert [row[:2] for row in made] == [[2, french], [2, french]]
    assert translator.candidates(["big house"])


def test_a_prefix_is_put_before_each_text(marian: Path) -> None:
    translator = Translator(rule(marian, forward_prefix="big ", max_length=8, num_beams=1, candidates=1), CPU)
    plain = Translator(rule(marian, max_length=8, num_beams=1, candidates=1), CPU)
    there = [one._sides["forward"].translated for one in (translator, plain)]
    assert there[0](["house"], 1) == there[1](["big house"], 1)
    assert translator._sides["backward"].prefix == ""


def test_languages_that_a_model_does_not_know(many: Path, marian: Path) -> None:
    for folder, codes in ((many, ("en", "xx")), (many, ("xx", "en")), (marian, ("en", "de"))):
        with pytest.raises(ModelError, match="does not know the language") as caught:
            Translator(rule(folder, language=codes[0], pivot_language=codes[1]), CPU)
        assert caught.value.param == "/augmentation/0/forward"
        assert "codes" in (caught.value.hint or "")
