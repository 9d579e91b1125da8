"""The augmentations of words, characters, sentences and pairs of rows: what each does, and odd texts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from astraml_ray.data.augmentation.characters import OF_CHARACTERS
from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.augmentation.lexicons import read_lexicons
from astraml_ray.data.augmentation.texts import augment_texts, augment_words
from astraml_ray.data.augmentation.words import OF_WORDS
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.partners import partners
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.errors import DataError
from astraml_ray.spec.augmentation import Augmentation, augmentations_of, misfits
from astraml_ray.spec.text_augmentation import BackTranslation, TextAugmentation

ROWS = 200
TEXTS = [f"The quick brown fox number {i} jumps. Over the lazy dog! Does it? So it does." for i in range(ROWS)]
OTHERS = [f"one two three four five six seven eight nine ten eleven twelve t{i}" for i in range(ROWS)]
KEYS = row_keys(1, 2, np.arange(ROWS))
LEXICON = {"quick": ["fast", "swift"], "dog": ["hound"], "mask": ["veil"]}
MEANS = Means("[MASK]", "[UNK]", {"s3://b/l.json": LEXICON})
# A back-translation takes texts that models have made: test_translation.py.
KINDS = [kind for kind in get_args(TextAugmentation) if kind is not BackTranslation]
TYPES = [get_args(kind.model_fields["type"].annotation)[0] for kind in KINDS]
TASKS = ["text-classification", "text-regression", "token-classification", "causal-lm", "masked-lm"]


def rule(kind: str, **fields: Any) -> Augmentation:
    given = {"lexicon": "s3://b/l.json", **fields} if kind == "synonym" else fields
    return TypeAdapter(Augmentation).validate_json(json.dumps({"type": kind, **given}))


def apply(kind: str, texts: list[str] = TEXTS, **fields: Any) -> list[str]:
    return augment_texts(texts, KEYS[: len(texts)], [rule(kind, **fields)], MEANS, others=OTHERS[: len(texts)])


def test_every_type_of_the_spec_does_something_and_each_preset_is_of_such() -> None:
    assert set(TYPES) == {*OF_WORDS, *OF_CHARACTERS, "sentence_shuffle", "mix_texts"}
    for kind in TYPES:
        assert sum(a != b for a, b in zip(TEXTS, apply(kind, **_strong(kind)), strict=True)) > ROWS / 2, kind
    for task in TASKS:
        for name in ("light", "medium", "strong"):
            preset = augmentations_of(name, task)  # type: ignore[arg-type]
            assert preset
            assert misfits(preset, task, pairs=task == "text-classification") == []


def _strong(kind: str) -> dict[str, Any]:
    return {} if kind == "sentence_shuffle" else {"rate": 0.5}


@pytest.mark.parametrize("kind", TYPES)
def test_a_row_depends_on_its_key_alone(kind: str) -> None:
    """Not on the rows beside it, nor on their order."""
    whole = apply(kind, **_strong(kind))
    order = np.random.default_rng(0).permutation(ROWS)
    mixed = augment_texts(
        [TEXTS[i] for i in order],
        KEYS[order],
        [rule(kind, **_strong(kind))],
        MEANS,
        others=[OTHERS[i] for i in order],
    )
    assert mixed == [whole[i] for i in order]
    alone = [
        augment_texts([TEXTS[i]], KEYS[i : i + 1], [rule(kind, **_strong(kind))], MEANS, others=[OTHERS[i]])[0]
        for i in (0, 99)
    ]
    assert alone == [whole[0], whole[99]]


def test_both_texts_of_a_pair_change_each_in_its_own_way() -> None:
    rules = [rule("random_deletion", rate=0.3)]
    first, second = (augment_texts(TEXTS, KEYS, rules, MEANS, side=side) for side in (0, 1))
    assert sum(a != b for a, b in zip(first, second, strict=True)) > ROWS / 2


def test_insertion_adds_words_of_the_text_or_of_the_lexicon() -> None:
    for before, after in zip(TEXTS, apply("random_insertion", rate=0.2), strict=True):
        assert len(after.split()) == len(before.split()) + round(0.2 * len(before.split()))
        assert set(after.split()) == set(before.split())
    with_lexicon = apply("random_insertion", rate=1.0, lexicon={"fox": ["vixen"]})
    assert sum("vixen" in text.split() for text in with_lexicon) > ROWS / 4


def test_synonyms_keep_capitals_and_punctuation_and_leave_other_words() -> None:
    texts = ["Quick quick, (QUICK) fox [MASK] dog."] * ROWS
    changed = apply("synonym", texts, rate=1.0)
    assert set(changed) <= {
        f"{a} {b}, ({c}) fox [MASK] hound."
        for a in ("Fast", "Swift")
        for b in ("fast", "swift")
        for c in ("FAST", "SWIFT")
    }
    assert len(set(changed)) == 8


def test_spans_are_masked_word_by_word_or_as_one() -> None:
    texts = [" ".join(f"w{i}" for i in range(100))] * ROWS
    words = [text.split() for text in apply("span_mask", texts, rate=0.3, mean_length=4.0)]
    assert all(len(row) == 100 for row in words)
    masked = np.array([[word == "[MASK]" for word in row] for row in words])
    assert abs(masked.mean() - 0.3) < 0.01
    runs = (masked[:, 1:] & ~masked[:, :-1]).sum() + masked[:, 0].sum()
    assert 3.0 < masked.sum() / runs < 6.0  # means of 4, and what lies side by side or at the budget's end
    joined = [text.split() for text in apply("span_mask", texts, rate=0.3, mean_length=4.0, unit="span")]
    shown = [[word for word in row if word != "[MASK]"] for row in words]
    assert [[word for word in row if word != "[MASK]"] for row in joined] == shown
    assert not any(a == b == "[MASK]" for row in joined for a, b in itertools.pairwise(row))


def test_word_dropout_puts_the_unknown_token() -> None:
    words = [word for text in apply("word_dropout", rate=0.25) for word in text.split()]
    assert abs(words.count("[UNK]") / len(words) - 0.25) < 0.03


def test_typing_mistakes_are_of_neighbouring_keys_and_of_the_kinds_asked_for() -> None:
    text = "hello world " * 5
    near = {"h": "gjyubn", "e": "wr34sd", "l": "kop", "o": "ip90kl", "w": "qe23as", "r": "et45df", "d": "sferxc"}
    for changed in apply("keyboard_noise", [text] * ROWS, rate=0.2, edits=["substitute"]):
        assert len(changed) == len(text)
        assert all(a == b or b in near[a] for a, b in zip(text, changed, strict=True))
    for changed in apply("keyboard_noise", [text] * ROWS, rate=0.2, edits=["transpose"]):
        assert sorted(changed) == sorted(text)
        assert [len(word) for word in changed.split()] == [len(word) for word in text.split()]
    assert all(len(t) < len(text) for t in apply("keyboard_noise", [text] * ROWS, rate=0.3, edits=["delete"]))
    assert all(len(t) > len(text) for t in apply("keyboard_noise", [text] * ROWS, rate=0.3, edits=["insert"]))
    kept = apply("keyboard_noise", ["[MASK] a [UNK]"] * ROWS, rate=1.0)
    assert all(t.startswith("[MASK] ") and t.endswith(" [UNK]") for t in kept)


def test_recognition_mistakes_look_alike() -> None:
    changed = apply("ocr_noise", ["Oil 1 modem"] * ROWS, rate=0.5)
    assert len(set(changed)) > 20
    assert {"rn", "nn"} & {t.split()[2][:2] for t in changed}
    assert apply("ocr_noise", ["xxx ÄÖÜ 漢字"] * 5, rate=1.0) == ["xxx ÄÖÜ 漢字"] * 5


def test_sentences_change_places_and_stay_whole() -> None:
    for before, after in zip(TEXTS, apply("sentence_shuffle"), strict=True):
        ends = {"jumps.", "dog!", "it?", "does."}
        assert sorted(after.split()) == sorted(before.split())
        assert all(word[0].isupper() for a, word in itertools.pairwise(after.split()) if a in ends)
    assert set(apply("sentence_shuffle", ["一。二。三。"] * ROWS)) == {
        "一。二。三。", "一。三。二。", "二。一。三。", "二。三。一。", "三。一。二。", "三。二。一。"
    }  # fmt: skip


def test_mixing_takes_a_run_of_the_other_text() -> None:
    for before, other, after in zip(TEXTS, OTHERS, apply("mix_texts", rate=0.3), strict=True):
        own, new = before.split(), after.split()
        changed = [i for i, (a, b) in enumerate(zip(own, new, strict=True)) if a != b]
        assert len(changed) == round(0.3 * len(own))
        run = new[changed[0] : changed[-1] + 1]
        assert len(run) == len(changed)
        assert " ".join(run) in other


def test_partners_are_of_the_class_and_another_row_for_any_part_of_the_block() -> None:
    classes = np.array([0, 1, 0, 2, 1, 0] * 20)
    classes[7] = 3  # the only one of its class
    keys, own = row_keys(0, 0, np.arange(120)), np.arange(120)
    found = partners(own, keys, 120, classes)
    assert (classes[found] == classes).all()
    assert [i for i in own if found[i] == i] == [7]
    part = np.array([5, 100, 7, 44])
    assert (partners(part, keys[part], 120, classes) == found[part]).all()
    free = partners(own, keys, 120)
    assert (free != own).all()
    assert len(set(free.tolist())) > 60
    assert partners(np.array([0]), keys[:1], 1).tolist() == [0]


PIECES = ["😀", "👨‍👩‍👧", "שלום", "مرحبا", "a", "", " ", "\n", "\u2028", "[MASK]", "ß", "ŉ", "."]
ODD = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=20).map("".join))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(ODD, min_size=1, max_size=3), rate=st.sampled_from([0.01, 0.5, 1.0]), seed=st.integers(0, 1000))
def test_odd_texts_change_or_stay_and_never_vanish(texts: list[str], rate: float, seed: int) -> None:
    keys = row_keys(seed, 0, np.arange(len(texts)))
    for kind in TYPES:
        rules = [rule(kind, **({} if kind == "sentence_shuffle" else {"rate": rate}))]
        changed = augment_texts(texts, keys, rules, MEANS, others=texts[::-1])
        assert changed == augment_texts(texts, keys, rules, MEANS, others=texts[::-1])
        for before, after in zip(texts, changed, strict=True):
            assert bool(after.strip()) == bool(before.strip())
            assert after.encode().decode() == after  # no half of a surrogate pair is left
        if rules[0].keeps_words:
            rows = [text.split(" ") for text in texts]
            assert [len(row) for row in augment_words(rows, keys, rules, MEANS)] == [len(row) for row in rows]


@pytest.mark.parametrize("kind", TYPES)
def test_one_word_and_ten_thousand(kind: str) -> None:
    for text in ("word", "word " * 10_000, "x" * 10_000, ". " * 5_000):
        assert apply(kind, [text], **_strong(kind))[0].strip()


def test_tags_keep_their_words_or_the_spec_is_refused_and_told_what_fits() -> None:
    given = [rule(kind) for kind in TYPES] + [rule("span_mask", unit="span")]
    problems = misfits(tuple(given), "token-classification")
    refused = {given[int(problem.param.rsplit("/", 1)[1])].type for problem in problems}
    moving = {"random_deletion", "random_swap", "random_insertion", "sentence_shuffle", "mix_texts"}
    assert refused == {*moving, "synonym", "span_mask"}
    assert problems[-1].param == f"/augmentation/{len(TYPES)}"
    assert "case_noise" in (problems[0].hint or "")
    assert "random_swap" not in (problems[0].hint or "")
    mixing = (rule("case_noise"), rule("mix_texts"))
    assert misfits(mixing, "text-classification") == []
    for task, pairs in (("text-classification", True), ("text-regression", False), ("masked-lm", False)):
        assert [problem.param for problem in misfits(mixing, task, pairs=pairs)] == ["/augmentation/1"]


def test_words_keep_their_places() -> None:
    rows = [["EU", "rejects", "German", "call", "[MASK]", ""]] * ROWS
    rules = [rule(kind, rate=0.4) for kind in ("case_noise", "keyboard_noise", "word_dropout", "ocr_noise")]
    changed = augment_words(rows, KEYS, rules, MEANS)
    assert all(len(row) == 6 and row[5] in ("", "[UNK]") for row in changed)
    assert len({tuple(row) for row in changed}) > ROWS / 2


JSON_LEXICON = b'{"Quick": ["fast", "swift"], "dog": ["hound"]}'
TSV_LEXICON = "\ufeffquick\tfast\tswift\n\ndog\thound\n".encode()


@pytest.mark.parametrize(("name", "content"), [("l.json", JSON_LEXICON), ("l.tsv", TSV_LEXICON)])
def test_lexicons_are_read_once_and_kept(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    rules = [rule("synonym", lexicon=str(file), rate=1.0), rule("random_insertion", lexicon={"a": ["b"]})]
    lexicons = read_lexicons(rules, OWN)
    assert lexicons == {str(file): {"quick": ["fast", "swift"], "dog": ["hound"]}}
    file.unlink()
    assert augment_texts(["dog"], KEYS[:1], rules[:1], Means(lexicons=lexicons)) == ["hound"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"a": "b"}', b'{"a": []}', b"a b\n", b"\xff\xfe", b"{" * 100_000, b"x\ty\n" * 3_000_000]
)
def test_what_is_no_lexicon_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lexicon"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_lexicons([rule("synonym", lexicon=str(file))], OWN)
    assert caught.value.param == str(file)
    assert caught.value.hint
