"""A user's sequence-to-sequence models that translate texts into another language and back."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from astraml_ray.data.storage.objects import join, list_objects, reading, resolve
from astraml_ray.errors import AstraError, DataError, MemoryExhaustedError, ModelError
from astraml_ray.spec.model import ModelSpec
from astraml_ray.spec.text_augmentation import BackTranslation
from astraml_ray.training.memory import memory_errors
from astraml_ray.training.models import MODEL_FILES, Blueprint, fetched, find_blueprint, load_config

__all__ = ["FIELD", "SIDES", "Translator", "check_translators", "identity_of"]

FIELD = "/augmentation/0"
"""Where the rule stands: it comes first."""
SIDES = ("forward", "backward")
_HINT = "check that config.json, the tokenizer's files and *.safetensors are there and whole"
_MEMORY_HINT = "lower its batch_size or num_beams, or use a smaller model"
Tell = Callable[[int, int], None]
"""Takes how many texts of how many are done."""


def check_translators(rule: BackTranslation) -> None:
    """Refuses models that are not there, or do not translate.

    Raises:
        ModelError: With its field.
    """
    for side in SIDES:
        identity_of(rule, side)


def identity_of(rule: BackTranslation, side: str) -> str:
    """What one of the two models is: its files, or its commit in the hub. No weights are read.

    Args:
        rule: From the spec.
        side: `forward` or `backward`.

    Raises:
        ModelError: It is not there, or is none that translates.
    """
    name = getattr(rule, side)
    with _about(f"{FIELD}/{side}", name):
        blueprint = _blueprint(name)
        place = blueprint.location or ""
        if not place.startswith("s3://") and not Path(place).is_dir():
            config = load_config(blueprint)
            _check_kind(config.model_type)
            return f"{place}@{getattr(config, '_commit_hash', None) or 'main'}"
        objects = [info for info in list_objects(place) if info.uri.endswith(MODEL_FILES)]
        if not any(info.uri.endswith(".safetensors") for info in objects):
            raise ModelError("has no *.safetensors", hint="save it with save_pretrained: other weights are not read")
        with reading(place):
            filesystem, path = resolve(join(place, "config.json"))
            fields = json.loads(filesystem.cat_file(path))
        _check_kind(fields.get("model_type"))
        files = sorted((info.uri.rsplit("/", 1)[-1], info.size, info.etag) for info in objects)
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()


class Translator:
    """Both models on a device. Greedy or beam search, so that what comes out follows from the texts and the models.

    Attributes:
        cut: How many texts were too long so far.
    """

    def __init__(self, rule: BackTranslation, device: torch.device) -> None:
        """Loads the models; one that is named twice, once.

        Args:
            rule: From the spec.
            device: Where they are to be.

        Raises:
            ModelError: One cannot be loaded, or does not know a language.
            MemoryExhaustedError: They do not fit into memory.
        """
        self.cut = 0
        self._rule = rule
        self._device = device
        self._rows = rule.batch_size
        self._sides: dict[str, _Side] = {}
        for names in [SIDES] if rule.forward == rule.backward else [(side,) for side in SIDES]:
            self._sides |= _Side.load(rule, names, device)

    def candidates(self, texts: list[str], tell: Tell = lambda done, total: None) -> list[list[str]]:
        """What came back of each text, the best first.

        Args:
            texts: Best sorted by length.
            tell: Told now and then how many texts are done.

        Raises:
            MemoryExhaustedError: Not even one text at a time fits into memory.
        """
        found: list[list[str]] = []
        while len(found) < len(texts):
            batch = texts[len(found) : len(found) + self._rule.batch_size]
            pivots = [
                list(dict.fromkeys(one for one in several if one.strip()))
                for several in self._translated("forward", batch, self._rule.candidates)
            ]
            wanted = sorted({one for several in pivots for one in several}, key=lambda text: (-len(text), text))
            by_pivot = dict(zip(wanted, self._translated("backward", wanted, 1), strict=True))
            found += [[by_pivot[one][0] for one in several] for several in pivots]
            tell(len(found), len(texts))
        return found

    def _translated(self, name: str, texts: list[str], count: int) -> list[list[str]]:
        """The best translations of each text, in batches that fit into memory."""
        side, found = self._sides[name], list[list[str]]()
        while len(found) < len(texts):
            batch = texts[len(found) : len(found) + self._rows]
            try:
                with memory_errors(lambda: "the translation did not fit into memory", param="/model"):
                    made, cut = side.translated(batch, count)
            except MemoryExhaustedError as error:
                if self._rows == 1:
                    error.message += ", one text at a time"
                    error.param, error.hint = f"{FIELD}/{name}", _MEMORY_HINT
                    raise
                self._rows = max(1, min(self._rows, len(batch)) // 2)
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            self.cut += cut if name == "forward" else 0
            found += made
        return found


@dataclass
class _Side:
    """One direction."""

    rule: BackTranslation
    name: str
    model: Any
    tokenizer: Any
    prefix: str
    limit: int
    begins_with: int | None

    @classmethod
    def load(cls, rule: BackTranslation, names: Sequence[str], device: torch.device) -> dict[str, _Side]:
        """The directions of one model; each has a tokenizer, since that has a language set."""
        where, uri = f"{FIELD}/{names[0]}", getattr(rule, names[0])
        with _about(where, uri), fetched(_blueprint(uri)) as location:
            config = AutoConfig.from_pretrained(location, trust_remote_code=False)
            _check_kind(config.model_type)
            with memory_errors(lambda: "the model did not fit into memory", param="/model"):
                model, report = AutoModelForSeq2SeqLM.from_pretrained(
                    location,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
                model = model.to(device).eval()
            if report["missing_keys"]:
                raise ModelError(f"its weights lack {min(report['missing_keys'])}", hint=_HINT)
            return {
                name: cls._of(rule, name, model, AutoTokenizer.from_pretrained(location, trust_remote_code=False))
                for name in names
            }

    @classmethod
    def _of(cls, rule: BackTranslation, name: str, model: Any, tokenizer: Any) -> _Side:
        languages = (rule.language, rule.pivot_language)
        source, target = languages if name == "forward" else languages[::-1]
        begins_with = _speaks(tokenizer, source, target) if source and target else None
        positions = getattr(model.config, "max_position_embeddings", None)
        limit = min(n for n in (rule.max_length, tokenizer.model_max_length, positions) if n)
        return cls(rule, name, model, tokenizer, getattr(rule, f"{name}_prefix"), int(limit), begins_with)

    def translated(self, texts: list[str], count: int) -> tuple[list[list[str]], int]:
        """The best `count` translations of each text, and how many texts were cut."""
        asked = [self.prefix + text for text in texts]
        whole = self.tokenizer(asked, truncation=False, verbose=False)["input_ids"]
        cut = sum(len(ids) > self.limit for ids in whole)
        inputs = self.tokenizer(asked, truncation=True, max_length=self.limit, padding=True, return_tensors="pt")
        given = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            made = self.model.generate(**given, generation_config=self._search(count))
        lines = [text.strip() for text in self.tokenizer.batch_decode(made, skip_special_tokens=True)]
        return [lines[i * count : (i + 1) * count] for i in range(len(texts))], cut

    def _search(self, count: int) -> Any:
        """The model's own settings, but for what the rule says; nothing is drawn at random."""
        settings = copy.deepcopy(self.model.generation_config)
        wanted = {
            "do_sample": False,
            "num_beams": max(count, self.rule.num_beams),
            "num_return_sequences": count,
            "max_length": None,
            "max_new_tokens": max(1, self.limit - 1),
        }
        for name in ("temperature", "top_p", "top_k", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_p"):
            setattr(settings, name, None)
        for name, value in wanted.items():
            setattr(settings, name, value)
        if self.begins_with is not None:
            settings.forced_bos_token_id = self.begins_with
        return settings


def _speaks(tokenizer: Any, source: str, target: str) -> int:
    """Sets the language that is read; returns the token that the other one's texts begin with."""
    for known in (source, target):
        if known not in _languages(tokenizer):
            message = f"does not know the language {known!r}"
            raise ModelError(
                message, hint="use the codes of its tokenizer; a model of one pair of languages takes none"
            )
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    by_code = getattr(tokenizer, "get_lang_id", tokenizer.convert_tokens_to_ids)
    return int(by_code(target))


def _languages(tokenizer: Any) -> set[str]:
    codes = getattr(tokenizer, "lang_code_to_token", None)  # of M2M, whose tokens are not the codes
    special = getattr(tokenizer, "all_special_tokens", ())
    return set(codes) if codes else {*special, *getattr(tokenizer, "get_added_vocab", dict)()}


def _blueprint(name: str) -> Blueprint:
    return find_blueprint(ModelSpec(name=name, init="pretrained"))


def _check_kind(model_type: str | None) -> None:
    if model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        hint = "give a sequence-to-sequence model of transformers: MarianMT, T5, M2M, BART ...; other code is not run"
        raise ModelError(f"{model_type or 'nameless'} models do not translate", hint=hint)


@contextlib.contextmanager
def _about(where: str, name: str) -> Iterator[None]:
    """Whatever goes wrong with a model is told of its field."""
    try:
        yield
    except MemoryExhaustedError as error:
        error.param, error.hint = where, _MEMORY_HINT
        raise
    except (ModelError, DataError) as error:
        named = "" if error.param in (None, name) or str(error.param).startswith("/model") else f" ({error.param})"
        raise ModelError(f"{name}: {error.message}{named}", param=where, hint=error.hint or _HINT) from error
    except AstraError:
        raise
    except Exception as error:  # safetensors, tokenizers and sentencepiece have errors of their own
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = _HINT
        if "trust_remote_code" in str(error):
            hint = "its code would have to be run, which is off; use a model that transformers knows"
        raise ModelError(f"{name}: cannot be loaded: {text}", param=where, hint=hint) from error
