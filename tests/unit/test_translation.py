"""Back-translation by two real models: what is drawn, what is kept, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from astraml_ray.cli.main import main
from astraml_ray.cli.s3_server import S3Server
from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.augmentation.texts import augment_texts
from astraml_ray.data.blocks import BlockReader, rows_of_block
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.microbatches import Position, local_blocks
from astraml_ray.data.plan import run_blocks
from astraml_ray.data.translation.candidates import candidates_of
from astraml_ray.data.translation.keep import Chunk, chunks_of
from astraml_ray.errors import InfrastructureError, MemoryExhaustedError, ModelError, RunStopped, SpecError
from astraml_ray.settings import load_settings
from astraml_ray.spec.augmentation import back_translation_of
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.placement import Placement
from astraml_ray.spec.text_augmentation import BackTranslation
from astraml_ray.training import runner
from astraml_ray.training.preparation import RunInputs, prepare, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import Watcher, run_attempts
from astraml_ray.training.stop import Stop
from astraml_ray.training.translation.chunks import ChunkWorker
from astraml_ray.training.translation.place import translation_keep
from astraml_ray.training.translation.stage import translate_here, translate_rows
from astraml_ray.training.translation.translator import Translator, check_translators, identity_of
from astraml_ray.training.worker import split_reader
from astraml_ray.tuning import sweep
from astraml_ray.tuning.session import Session
from astraml_ray.tuning.sweep import prepare_sweep
from astraml_ray.tuning.trials import goal_of, trial_inputs
from tests.translation import back_of, lexicon_texts, write_lexicon_dataset

PLACEMENT = Placement(1, 0, 1.0, 1)
CPU = torch.device("cpu")
ROWS = 400


def rule_of(translators: tuple[Path, Path], **fields: Any) -> BackTranslation:
    forward, backward = map(str, translators)
    return BackTranslation(type="back_translation", **{"forward": forward, "backward": backward, **fields})


def job(data: Path, rule: BackTranslation, **more: Any) -> dict[str, Any]:
    return {
        "dataset": {"path": str(data), **more.pop("dataset", {})},
        "model": "tiny-bert",
        "task": "text-classification",
        "hyperparams": {"batch_size": 16, "epochs": 2, "max_length": 16},
        "augmentation": [rule.model_dump(mode="json"), *more.pop("others", ())],
        "resources": {"gpus": 0},
        **more,
    }


def prepared(document: dict[str, Any], folder: Path) -> RunInputs:
    return replace(prepare(parse_spec(document), load_settings())[0], translations=str(folder))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For models as small as these, a second one is a hindrance."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def translator(translators: tuple[Path, Path]) -> Translator:
    return Translator(rule_of(translators), CPU)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fragments, of which one has two chunks."""
    return write_lexicon_dataset(tmp_path_factory.mktemp("lexicon") / "d", rows=ROWS, group=300)


@pytest.fixture(scope="module")
def inputs(translators: tuple[Path, Path], dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    """Translated."""
    found = prepared(job(dataset, rule_of(translators, probability=0.5)), tmp_path_factory.mktemp("run"))
    translate_here(found, PLACEMENT)
    return found


def test_texts_come_back_as_what_the_models_have_learnt(translator: Translator) -> None:
    texts = lexicon_texts(100, seed=11)
    assert [set(found) for found in candidates_of(texts, translator.candidates)] == [back_of(text) for text in texts]


def test_one_candidate_is_the_best_one(translators: tuple[Path, Path], translator: Translator) -> None:
    texts = sorted(lexicon_texts(40, seed=12))
    one = Translator(rule_of(translators, candidates=1), CPU)
    assert one.candidates(texts) == [found[:1] for found in translator.candidates(texts)]


def test_equal_texts_are_translated_once_and_nothing_useless_is_kept() -> None:
    asked: list[list[str]] = []

    def translate(texts: list[str]) -> list[list[str]]:
        asked.append(texts)
        return [[text, f"  {text} ", "", " ", "new  one", "new one", "other"] for text in texts]

    texts = ["a b", "", "longer text", "  ", "a b", "new one"]
    assert candidates_of(texts, translate) == [
        ["new  one", "other"],
        [],
        ["new  one", "other"],
        [],
        ["new  one", "other"],
        ["other"],
    ]
    assert asked == [["longer text", "new one", "a b"]]
    assert candidates_of(["", " "], translate) == [[], []]
    assert len(asked) == 1


def test_a_row_takes_each_candidate_as_often_and_stays_without_any() -> None:
    rule = rule_of((Path("f"), Path("b")), probability=0.6)
    keys = row_keys(3, 0, np.arange(6000))
    candidates = [["one", "two", "three"], []] * 3000
    found = augment_texts(["text"] * 6000, keys, [rule], Means(), candidates=candidates)
    assert set(found[1::2]) == {"text"}
    counts = Counter(found[::2])
    assert counts.pop("text") == pytest.approx(0.4 * 3000, rel=0.1)
    assert all(count == pytest.approx(0.2 * 3000, rel=0.15) for count in counts.values())
    assert found == augment_texts(["text"] * 6000, keys, [rule], Means(), candidates=candidates)


@pytest.mark.parametrize("policy", ["whole", "split", "bad rows", "bad rows and split"])
def test_candidates_are_those_of_their_own_row(
    policy: str, translators: tuple[Path, Path], dataset: Path, tmp_path: Path
) -> None:
    """Whichever rows a manifest leaves out, of a fragment or of its chunks."""
    folder = tmp_path / "d"
    shutil.copytree(dataset, folder)
    if "bad" in policy:
        table = pq.read_table(folder / "train.parquet")
        labels = [None if row in (0, 7, 255, 256, 300, 399) else x for row, x in enumerate(table["label"].to_pylist())]
        pq.write_table(pa.table({"text": table["text"], "label": labels}), folder / "train.parquet", row_group_size=300)
    if "split" in policy:
        (folder / "validation.parquet").unlink()
    bad = {"on_bad_row": "skip", "max_bad_fraction": 0.5} if "bad" in policy else {}
    inputs = prepared(job(folder, rule_of(translators), dataset=bad), tmp_path / "run")
    translate_here(inputs, PLACEMENT)
    reader = split_reader(inputs, "train", 1)
    split = reader.split
    assert split.total_rows < ROWS or policy == "whole"
    seen = 0
    for block in run_blocks(split.rows, split.sizes, seed=0, epochs=1, block_bytes=1):
        table, _ = rows_of_block(reader.manifest, split, block, None, reader.translations)
        for text, candidates in zip(table["text"].to_pylist(), table["text_candidates"].to_pylist(), strict=True):
            assert set(candidates) == back_of(text)
        seen += table.num_rows
    assert seen == split.total_rows


def texts_by_position(reader: BlockReader, *, epochs: int, position: Position | None = None) -> dict[int, list[int]]:
    """Token ids by place in the whole run."""
    total, found = reader.split.total_rows, {}
    for rank in range(reader.world_size):
        before, epoch = -1, position.epoch if position else 0
        for table in local_blocks(reader, epochs=epochs, world_rank=rank, position=position):
            for place, ids in zip(table["position"].to_pylist(), table["input_ids"].to_pylist(), strict=True):
                epoch += place < before
                before = place
                found[epoch * total + place] = ids
    return found


def test_batches_depend_neither_on_the_workers_nor_on_where_a_run_went_on(inputs: RunInputs) -> None:
    whole = texts_by_position(split_reader(inputs, "train", 1), epochs=2)
    assert len(whole) == 2 * ROWS
    assert texts_by_position(split_reader(inputs, "train", 3), epochs=2) == whole
    rest = texts_by_position(split_reader(inputs, "train", 2), epochs=2, position=Position(1, 160))
    assert rest == {place: ids for place, ids in whole.items() if place >= ROWS + 160}
    plain = replace(split_reader(inputs, "train", 1), augmentations=(), translations=None)
    original = texts_by_position(plain, epochs=2)
    changed = sum(ids != original[place] for place, ids in whole.items())
    assert 0.3 * len(whole) < changed < 0.55 * len(whole)
    assert whole != {place: whole[(place + ROWS) % (2 * ROWS)] for place in whole}  # epochs differ


def test_later_augmentations_work_on_what_came_back(
    translators: tuple[Path, Path], dataset: Path, tmp_path: Path
) -> None:
    synonym = {"type": "synonym", "rate": 1.0, "lexicon": {"huge": ["enormous"], "large": ["enormous"]}}
    document = job(dataset, rule_of(translators), others=[synonym])
    inputs = prepared(document, tmp_path)
    translate_here(inputs, PLACEMENT)
    reader = split_reader(inputs, "train", 1)
    encoder: Any = reader.encoder
    block = next(iter(run_blocks(reader.split.rows, reader.split.sizes, seed=0, epochs=1)))
    table, _ = rows_of_block(reader.manifest, reader.split, block, None, reader.translations)
    keys = row_keys(0, 0, np.arange(table.num_rows))
    (texts,) = (encoder._content(table, keys, reader.augmentations),)
    for before, after in zip(table["text"].to_pylist(), texts, strict=True):
        assert ("enormous" in after) == ("big" in before.split())


def test_validation_rows_are_never_touched(inputs: RunInputs) -> None:
    assert split_reader(inputs, "validation", 1).translations is None
    assert split_reader(inputs, "train", 1).translations is not None


def test_a_second_run_translates_nothing(inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And needs no Ray for it; another probability or batch size makes no other texts, another search does."""
    monkeypatch.setattr("astraml_ray.training.translation.chunks.Translator", lambda *_: pytest.fail("loaded"))
    watcher = Watcher(lambda event: pytest.fail(str(event)), Stop())
    rule = inputs.spec.augmentation[0]
    for fields in ({"probability": 0.1}, {"batch_size": 3}):
        changed = rule.model_copy(update=fields)  # type: ignore[union-attr]
        spec = inputs.spec.model_copy(update={"augmentation": (changed,)})
        again = replace(inputs, spec=spec, translations=str(tmp_path / "-".join(fields)))
        assert translate_rows(again, PLACEMENT, watcher)
        assert len(list((tmp_path / "-".join(fields) / "translations").glob("*.texts"))) == 3
        assert texts_by_position(split_reader(again, "train", 1), epochs=1)
    changed = rule.model_copy(update={"num_beams": 3})  # type: ignore[union-attr]
    other = replace(inputs, spec=inputs.spec.model_copy(update={"augmentation": (changed,)}))
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        translate_here(other, PLACEMENT)


def test_what_is_damaged_is_read_from_the_run_or_made_anew(
    inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts_by_position(split_reader(inputs, "train", 1), epochs=1)
    monkeypatch.setenv("ASTRAML_CACHE", str(tmp_path / "cache"))
    again = replace(inputs, translations=str(tmp_path / "run"))
    shutil.copytree(inputs.translations or "", tmp_path / "run")
    assert texts_by_position(split_reader(again, "train", 1), epochs=1) == expected
    files = sorted((tmp_path / "cache" / "translations").glob("*.texts"))
    assert len(files) == 3
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.unlink()  # the old one is mapped
        file.write_bytes(data)
    assert texts_by_position(split_reader(again, "train", 1), epochs=1) == expected

    shutil.rmtree(tmp_path / "cache")
    damaged = tmp_path / "run" / "translations" / files[0].name
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(InfrastructureError, match="damaged") as caught:
        texts_by_position(split_reader(again, "train", 1), epochs=1)
    assert caught.value.param == str(damaged)
    with pytest.raises(InfrastructureError, match="not there"):
        texts_by_position(split_reader(again, "train", 1), epochs=1)
    made: list[Chunk] = []
    real = ChunkWorker.translate
    monkeypatch.setattr(
        ChunkWorker, "translate", lambda worker, chunk, name: (made.append(chunk), real(worker, chunk, name))
    )
    translate_here(again, PLACEMENT)
    assert len(made) == 1
    assert texts_by_position(split_reader(again, "train", 1), epochs=1) == expected


def test_in_a_bucket(translators: tuple[Path, Path], dataset: Path, s3: S3Server, tmp_path: Path) -> None:
    """Models and run folder: the models as those of `model`, and nothing of them stays on the disk."""
    for name, folder in zip(("there", "back"), translators, strict=True):
        shutil.copytree(folder, s3.folder / "bucket" / "models" / name)
    uris = [Path("s3://bucket/models/there"), Path("s3://bucket/models/back")]
    rule = rule_of((uris[0], uris[1]), forward="s3://bucket/models/there", backward="s3://bucket/models/back")
    place = f"s3://bucket/runs/{tmp_path.name}"
    inputs = replace(prepared(job(dataset, rule), tmp_path), translations=place)
    before = set(Path("/tmp").glob("astraml-model-*"))
    translate_here(inputs, PLACEMENT)
    assert set(Path("/tmp").glob("astraml-model-*")) <= before
    assert len([name for name in RunFolder(place).names("translations") if name.endswith(".texts")]) == 3
    table, _ = rows_of_block(
        inputs.manifest,
        inputs.manifest.splits["train"],
        next(iter(run_blocks((300, 100), (1, 1), seed=0, epochs=1))),
        None,
        translation_keep(inputs),
    )
    rows = zip(table["text"].to_pylist(), table["text_candidates"].to_pylist(), strict=True)
    assert all(set(candidates) == back_of(text) for text, candidates in rows)


def test_models_that_change_in_the_middle_are_told_of(
    translators: tuple[Path, Path], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRAML_CACHE", str(tmp_path / "cache"))
    copies = tuple(tmp_path / name for name in ("there", "back"))
    for source, copy in zip(translators, copies, strict=True):
        shutil.copytree(source, copy)
    inputs = prepared(job(dataset, rule_of((copies[0], copies[1]))), tmp_path / "run")
    translate_here(inputs, PLACEMENT)
    shutil.rmtree(copies[1])
    shutil.copytree(translators[0], copies[1])
    (copies[1] / "config.json").write_text((copies[1] / "config.json").read_text() + "\n")
    translate_here(inputs, PLACEMENT)  # nothing is missing, so nothing is asked of them
    assert texts_by_position(split_reader(inputs, "train", 1), epochs=1)
    shutil.rmtree(tmp_path / "cache")
    next((tmp_path / "run" / "translations").glob("*.texts")).unlink()
    with pytest.raises(ModelError, match="has changed since the run began") as caught:
        translate_here(inputs, PLACEMENT)
    assert caught.value.param == "/augmentation/0/backward"


def test_a_stop_before_anything_is_translated(
    inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No attempt is made, no checkpoint claimed; the folder says how to go on."""
    monkeypatch.setenv("ASTRAML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runner, "remove_orphans", lambda: 0)
    stop, events = Stop(), list[str]()

    def take(event: dict[str, Any]) -> None:
        events.append(event["event"])
        stop.request("keep_best")

    folder = RunFolder(str(tmp_path / "run"))
    with pytest.raises(RunStopped, match="before the first checkpoint"):
        run_attempts(replace(inputs, translations=None), folder, PLACEMENT, Watcher(take, stop))
    assert events == ["attempt_started"]
    assert [name for name in folder.names("translations") if name.endswith(".texts")] == []


def test_texts_that_are_too_long_are_cut_and_counted(translators: tuple[Path, Path]) -> None:
    translator = Translator(rule_of(translators, max_length=4), CPU)
    found = translator.candidates(["big big big big", "big big big", "big"])
    assert translator.cut == 1
    assert len(found[0][0].split()) <= 3
    assert set(found[2]) == {"large", "huge"}
    assert all(side.limit == 4 for side in translator._sides.values())
    assert all(side.limit == 24 for side in Translator(rule_of(translators), CPU)._sides.values())


def test_batches_that_do_not_fit_are_halved(translators: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own generate, with a memory of three texts; the result is the same."""
    translator = Translator(rule_of(translators, batch_size=16), CPU)
    texts = sorted(lexicon_texts(30, seed=13), key=len)
    expected, sizes, room = translator.candidates(texts), list[int](), 3
    for side in translator._sides.values():
        real = side.model.generate

        def generate(*, input_ids: torch.Tensor, real: Any = real, **rest: Any) -> Any:
            sizes.append(len(input_ids))
            if len(input_ids) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate memory")
            return real(input_ids=input_ids, **rest)

        monkeypatch.setattr(side.model, "generate", generate)
    assert translator.candidates(texts) == expected
    assert sizes[:4] == [16, 8, 4, 2]
    room = 0
    with pytest.raises(MemoryExhaustedError, match="one text at a time") as caught:
        translator.candidates(texts)
    assert (caught.value.param, "batch_size" in (caught.value.hint or "")) == ("/augmentation/0/forward", True)


REFUSED = [
    ([{"type": "random_swap"}, {}], "/augmentation/1", "comes first, and once"),
    ([{}, {}], "/augmentation/1", "comes first, and once"),
    ([{"language": "en"}], "/augmentation/0/pivot_language", "told both"),
    ([{"pivot_language": "de"}], "/augmentation/0/language", "told both"),
    ([{"candidates": 0}], "/augmentation/0/candidates", "greater than or equal"),
    ([{"candidates": 17}], "/augmentation/0/candidates", "less than or equal"),
    ([{"forward": " "}], "/augmentation/0/forward", "at least 1"),
]


@pytest.mark.parametrize(("augmentations", "param", "message"), REFUSED)
def test_specs_that_are_refused(augmentations: list[dict[str, Any]], param: str, message: str) -> None:
    own = {"type": "back_translation", "forward": "a/b", "backward": "b/a"}
    document = {
        "dataset": "d",
        "model": "m",
        "task": "text-classification",
        "augmentation": [{**own, **one} if "type" not in one else one for one in augmentations],
    }
    with pytest.raises(SpecError) as caught:
        parse_spec(document)
    (problem,) = caught.value.problems
    assert (problem.param, message in problem.message) == (param, True), problem


@pytest.mark.parametrize(
    ("task", "message"),
    [("token-classification", "moves words from their tags"), ("image-classification", "is for texts")],
)
def test_tasks_that_have_none(task: str, message: str) -> None:
    rule = {"type": "back_translation", "forward": "a/b", "backward": "b/a"}
    with pytest.raises(SpecError, match=message):
        parse_spec({"dataset": "d", "model": "m", "task": task, "augmentation": [rule]})


FAULTS = ["gone", "no config", "no json", "other kind", "own code", "no weights", "old weights", "broken", "lacking"]


@pytest.mark.parametrize("fault", FAULTS)
def test_models_that_are_refused(fault: str, translators: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(translators[1], folder)
    weights = folder / "model.safetensors"
    early = fault not in ("broken", "lacking")
    if fault == "gone":
        shutil.rmtree(folder)
    elif fault == "no config":
        (folder / "config.json").unlink()
    elif fault == "other kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif fault == "own code":
        own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForSeq2SeqLM": "mine.Model"}}
        (folder / "config.json").write_text(json.dumps(own))
        (folder / "mine.py").write_text("raise SystemExit('it was run')")
    elif fault == "no json":
        (folder / "config.json").write_text("{")
    elif fault == "no weights":
        weights.unlink()
    elif fault == "old weights":
        torch.save(safetensors.torch.load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif fault == "broken":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        tensors = safetensors.torch.load_file(weights)
        tensors.pop("model.encoder.layers.0.fc1.weight")
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
    rule = rule_of((translators[0], folder))
    with pytest.raises(ModelError) as caught:
        check_translators(rule) if early else Translator(rule, CPU)
    assert caught.value.param == "/augmentation/0/backward"
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_a_model_is_found_by_what_it_is(translators: tuple[Path, Path], tmp_path: Path) -> None:
    """Not by where it lies; and a run of a spec with a wrong one never begins."""
    shutil.copytree(translators[0], tmp_path / "copy")
    rule = rule_of(translators)
    assert identity_of(rule, "forward") == identity_of(rule_of((tmp_path / "copy", translators[1])), "forward")
    assert identity_of(rule, "forward") != identity_of(rule, "backward")
    with pytest.raises(ModelError, match=r"no config\.json") as caught:
        prepared(job(write_lexicon_dataset(tmp_path / "d", rows=20, group=20), rule_of((tmp_path, tmp_path))), tmp_path)
    assert caught.value.param == "/augmentation/0/forward"


def test_pairs_have_candidates_of_both_texts(translators: tuple[Path, Path], tmp_path: Path) -> None:
    texts, columns = lexicon_texts(120, seed=21), {"columns": {"text": "text", "text_pair": "text_pair"}}
    table = pa.table({"text": texts[:60], "text_pair": texts[60:], "label": ["a", "b"] * 30})
    for name in ("train", "validation"):
        (tmp_path / "d").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "d" / f"{name}.parquet")
    inputs = prepared(job(tmp_path / "d", rule_of(translators), dataset=columns), tmp_path / "run")
    translate_here(inputs, PLACEMENT)
    reader = split_reader(inputs, "train", 1)
    block = next(iter(run_blocks(reader.split.rows, reader.split.sizes, seed=0, epochs=1)))
    table, _ = rows_of_block(reader.manifest, reader.split, block, None, reader.translations)
    for role in ("text", "text_pair"):
        rows = zip(table[role].to_pylist(), table[f"{role}_candidates"].to_pylist(), strict=True)
        assert all(set(found) == back_of(text) for text, found in rows)
    assert texts_by_position(reader, epochs=1)


def test_a_preview_shows_what_comes_back(translators: tuple[Path, Path], dataset: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(job(dataset, rule_of(translators, probability=0.5), seed=5)))
    done = CliRunner().invoke(main, ["data", "preview", "-f", str(spec), "-n", "24", "--output", "json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert all(row["after"] == row["before"] or row["after"] in back_of(row["before"]) for row in rows)
    assert 4 < sum(row["after"] != row["before"] for row in rows) < 20


def test_chunks_cover_every_row_once() -> None:
    split = type("Split", (), {"rows": (256, 0, 257, 1, 600)})()
    covered = [(c.fragment, row) for c in chunks_of(split) for row in range(c.start, c.start + c.rows)]
    assert covered == [(fragment, row) for fragment, rows in enumerate(split.rows) for row in range(rows)]
    assert [c.rows for c in chunks_of(split, {2})] == [256, 1]


def test_nothing_is_said_on_the_console(translators: tuple[Path, Path]) -> None:
    """A warning of transformers at each batch would be thousands."""
    translator, said = Translator(rule_of(translators), CPU), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")  # it passes nothing on
    logger.addHandler(handler)
    try:
        translator.candidates(["big house", "old dog"])
        logger.warning("heard")
    finally:
        logger.removeHandler(handler)
    assert said == ["heard"]


def test_a_sweep_translates_for_every_choice_and_a_trial_what_is_still_missing(
    translators: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRAML_CACHE", str(tmp_path / "cache"))
    data = write_lexicon_dataset(tmp_path / "d", rows=60, group=60)
    rules = [rule_of(translators, candidates=count).model_dump(mode="json") for count in (1, 2)]
    document = job(data, rule_of(translators))
    document["hyperparams"] |= {"epochs": 1, "eval_every": "1 epochs"}
    document["sweep"] = {"parameters": {"augmentation": {"choice": ["none", [rules[0]], [rules[1]]]}}}
    spec = parse_spec(document)
    inputs = replace(prepare_sweep(spec, load_settings())[0], translations=str(tmp_path / "sweep"))
    asked: list[tuple[int | None, int]] = []

    def translate(variant: RunInputs, placement: Placement, watcher: Watcher) -> bool:
        found = back_translation_of(variant.spec.augmentation)
        asked.append((found and found.candidates, placement.workers))
        assert variant.translations == str(tmp_path / "sweep")
        return len(asked) < 3

    monkeypatch.setattr(sweep, "translate_rows", translate)
    with pytest.raises(RunStopped, match="before the first trial"):
        sweep._translate(inputs, spec.canonical(), Placement(4, 0, 1.0, 1), Watcher(print, Stop()))
    assert asked == [(None, 4), (1, 4), (2, 4)]

    values = {"augmentation": [rules[0]]}
    trial = trial_inputs(inputs, spec.canonical(), values, goal_of(spec), load_settings())
    assert trial.translations == inputs.translations
    folder = RunFolder(str(tmp_path / "sweep" / "trials" / "t0000"))
    store_inputs(trial, folder)
    session = Session(trial, folder, "validation/loss", threads=1, ship=lambda lines: None)
    kinds = [session.next(60.0).kind for _ in range(2)]
    session.end()
    assert kinds == ["evaluation", "finished"]
    assert len(list((tmp_path / "sweep" / "translations").glob("*.texts"))) == 1
