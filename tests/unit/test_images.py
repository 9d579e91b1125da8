"""Images: odd files, one size, the objective, a model that learns, and a resumed run with BatchNorm."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch.nn import functional

from astraml_ray.data.encoding.encoder import encoder_from_plain, encoder_to_plain
from astraml_ray.data.encoding.images import ImageEncoder, pixels_of
from astraml_ray.data.encoding.pixels import UnreadableImage, decode_image, header_of
from astraml_ray.data.images.faults import decode_fault, header_fault
from astraml_ray.data.microbatches import local_blocks, micro_batches
from astraml_ray.errors import DataError, ModelError, SpecError
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.batching import Cut
from astraml_ray.training.checkpoint import MemoryCheckpoints, weights_of
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows, evaluate
from astraml_ray.training.image_inputs import image_encoder, save_processor
from astraml_ray.training.loop import Outcome, train
from astraml_ray.training.models import Blueprint, build_model, find_blueprint, load_config
from astraml_ray.training.objectives.images import ImageClassification
from astraml_ray.training.preparation import RunInputs, load_inputs, prepare, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.tasks import objective_of
from astraml_ray.training.timetable import Timetable
from astraml_ray.training.worker import publish_model, split_reader
from tests.unit.images import drawing, encoded, image_rows, write_images
from tests.unit.test_loop import Log

RNG = np.random.default_rng(0)
PICTURE = drawing("disc", RNG, 48)
TINY = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "architectures": ["ResNetForImageClassification"],
}


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header tells of a huge image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def whole(data: bytes, side: int = 48) -> np.ndarray[Any, Any]:
    return decode_image(data, side, side, short_edge=side)


RGB = Image.fromarray(PICTURE)
KINDS: dict[str, bytes] = {
    "png": encoded(PICTURE),
    "palette": saved(RGB.quantize(16), "PNG"),
    "palette with transparency": saved(RGB.quantize(16), "PNG", transparency=0),
    "rgba": saved(RGB.convert("RGBA"), "PNG"),
    "jpeg": saved(RGB, "JPEG", quality=95, subsampling=0),
    "cmyk jpeg": saved(RGB.convert("CMYK"), "JPEG", quality=95, subsampling=0),
    "gif": saved(RGB.quantize(16), "GIF", save_all=True, append_images=[Image.new("P", (48, 48))] * 3),
    "webp": saved(RGB, "WEBP", lossless=True),
    "bmp": saved(RGB, "BMP"),
    "tiff": saved(RGB, "TIFF"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_picture(kind: str) -> None:
    pixels = whole(KINDS[kind])
    assert pixels.shape == (48, 48, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - PICTURE).mean() < 6
    assert kind not in ("png", "webp", "bmp", "tiff", "rgba") or np.array_equal(pixels, PICTURE)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = whole(saved(Image.fromarray(ramp), kind))
        assert np.array_equal(pixels[..., 0], (ramp / 257).round().astype(np.uint8))
    floats = whole(saved(Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF"))
    assert np.abs(floats[..., 1].astype(int) - ramp // 257).max() <= 1


def test_grey_and_two_level_images_have_three_channels() -> None:
    grey = RGB.convert("L")
    assert np.array_equal(whole(saved(grey, "PNG")), np.asarray(grey)[..., None].repeat(3, -1))
    assert set(np.unique(whole(saved(grey.convert("1"), "PNG")))) == {0, 255}
    assert np.array_equal(whole(saved(grey.convert("LA"), "PNG"))[..., 0], np.asarray(grey))


def test_exif_turns_the_image_upright_and_damaged_exif_does_not_matter() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = whole(saved(RGB.rotate(90), "PNG", exif=exif))
    assert np.array_equal(turned, PICTURE)
    assert whole(saved(RGB, "PNG", exif=b"Exif\x00\x00II*\x00rubbish")).shape == (48, 48, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image at all",
        KINDS["jpeg"][:-200],
        KINDS["png"][: len(KINDS["png"]) // 2],
        KINDS["webp"][:40],
        KINDS["gif"][:30],
        KINDS["png"].replace(b"IDAT", b"IDAX"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "cut webp", "cut gif", "png without data"],
)
def test_damaged_images_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"cannot be decoded|no format|is empty"):
        whole(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"<html>", "is of no format that can be read: it begins with b'<html>'"),
        (png_that_claims(9000, 9000), "claims 9000x9000 pixels, more than 64,000,000"),
        (png_that_claims(60_000, 60_000), "claims more than 64,000,000 pixels"),
    ],
    ids=["empty", "html", "large", "bomb"],
)
def test_a_run_tells_what_a_look_at_the_header_tells(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        whole(data)
    assert str(caught.value) == header_fault(data) == decode_fault(data) == why
    assert header_of(pa.py_buffer(data)) is None


@pytest.mark.parametrize("side", [9000, 14_000, 2_000_000])
def test_decompression_bombs_are_refused_by_their_header(side: int) -> None:
    with pytest.raises(UnreadableImage, match=r"claims|exceeds limit"):
        whole(png_that_claims(side, side))


def test_a_large_jpeg_and_a_strip_come_out_small() -> None:
    large = np.asarray(Image.fromarray(PICTURE).resize((2400, 2400), Image.Resampling.NEAREST))
    assert np.abs(whole(encoded(large, "JPEG")).astype(int) - PICTURE).mean() < 6
    strip = np.zeros((1, 60_000, 3), np.uint8)
    assert decode_image(encoded(strip), 224, 224, short_edge=256).shape == (224, 224, 3)


def test_the_centre_is_kept_or_everything_is_stretched() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    assert (decode_image(encoded(wide), 20, 20, short_edge=20) == 255).all()
    stretched = decode_image(encoded(wide), 20, 60, short_edge=None)
    assert np.array_equal(stretched, wide)
    assert decode_image(encoded(wide), 20, 20, short_edge=None).mean() < 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def inputs(folder: Path) -> RunInputs:
    return prepared(folder)


def prepared(folder: Path, model: Any = "vit-tiny", **fields: Any) -> RunInputs:
    hyper = {"batch_size": 16, **fields.pop("hyperparams", {})}
    spec = parse_spec({"dataset": str(folder), "model": model, "hyperparams": hyper, **fields})
    return prepare(spec, replace(load_settings(), cache=folder / "cache"))[0]


def test_a_damaged_image_is_named_with_its_object_and_row(folder: Path, tmp_path: Path) -> None:
    rows = image_rows(64, seed=5)
    images = rows["image"].to_pylist()
    images[41] = images[41][:60]
    pq.write_table(pa.table({"image": images, "label": rows["label"]}), tmp_path / "train.parquet", row_group_size=32)
    found = prepared(tmp_path)  # validation rows are split off: the row is counted in the file all the same
    split = "train" if 41 in rows_of(found, "train", images) else "validation"
    with pytest.raises(DataError, match="row 9: the image cannot be decoded") as caught:
        list(local_blocks(split_reader(found, split, 1)))
    assert caught.value.param is not None
    assert caught.value.param.endswith("train.parquet, row group 1")


def rows_of(inputs: RunInputs, split: str, images: list[bytes]) -> set[int]:
    from astraml_ray.data.rows import read_rows

    part = inputs.manifest.splits[split]
    held = {image for i in range(len(part.rows)) for image in read_rows(inputs.manifest, part, i)["image"].to_pylist()}
    return {index for index, image in enumerate(images) if image in held}


def test_the_task_the_classes_and_the_size_are_found(inputs: RunInputs) -> None:
    assert inputs.spec.task == "image-classification"
    assert inputs.tokenizer is None
    assert inputs.encoder == ImageEncoder(32, 32, ("bars", "columns", "disc"), short_edge=32)
    assert encoder_from_plain(json.loads(json.dumps(encoder_to_plain(inputs.encoder)))) == inputs.encoder
    assert inputs.config.id2label == {0: "bars", 1: "columns", 2: "disc"}


def test_inputs_survive_the_runs_folder(inputs: RunInputs, tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))
    store_inputs(inputs, run)
    again = load_inputs(run)
    assert (again.encoder, again.manifest, again.spec) == (inputs.encoder, inputs.manifest, inputs.spec)
    assert {**again.config.to_dict(), "_name_or_path": ""} == inputs.config.to_dict()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_workers_share_the_same_pixels(inputs: RunInputs, folder: Path, world_size: int) -> None:
    whole_table = pa.concat_tables(local_blocks(split_reader(inputs, "train", 1)))
    parts = pa.concat_tables(
        [
            t
            for rank in range(world_size)
            for t in local_blocks(split_reader(inputs, "train", world_size), world_rank=rank)
        ]
    ).sort_by("position")
    assert parts.equals(whole_table)
    assert whole_table.num_rows == 120


def test_pixels_are_those_of_the_files(inputs: RunInputs) -> None:
    table = pa.concat_tables(local_blocks(split_reader(inputs, "test", 1)))
    expected = image_rows(40, seed=3)
    for pixels, data in zip(pixels_of(table, "image", 32, 32), expected["image"].to_pylist(), strict=True):
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert [inputs.manifest.labels[i] for i in table["label"].to_pylist()] == expected["label"].to_pylist()
    assert pixels_of(table.slice(7, 3), "image", 32, 32).shape == (3, 32, 32, 3)


def test_batches_respect_the_cut_and_a_lone_image_gets_a_twin(inputs: RunInputs) -> None:
    objective = objective_of("image-classification", "abc", images=inputs.encoder)  # type: ignore[arg-type]
    table = pa.concat_tables(local_blocks(split_reader(inputs, "test", 1)))
    parts = objective.collate(table, Cut(0, 16))
    assert [part.shape[0] for part in parts] == [14, 13, 13]
    assert sum(map(objective.targets, parts)) == 40
    assert objective.collate(table.slice(0, 0), Cut(0, 16)) == []
    (lone,) = objective.collate(table.slice(0, 1), Cut(0, 16))
    assert (lone.shape[0], objective.targets(lone)) == (2, 1)
    assert objective.targets(objective.empty_batch()) == 0


class Fixed(torch.nn.Module):
    """Logits that are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.given = logits

    def forward(self, pixel_values: torch.Tensor) -> Any:
        from types import SimpleNamespace

        assert pixel_values.shape == (len(self.given), 3, 2, 2)
        self.seen = pixel_values
        return SimpleNamespace(logits=self.given)


def test_metrics_top5_and_smoothing_agree_with_torch() -> None:
    encoder = ImageEncoder(2, 2, tuple("abcdefg"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    images = RNG.integers(0, 256, (50, 2, 2, 3)).astype(np.uint8)
    labels = torch.from_numpy(RNG.integers(0, 7, 50))
    model = Fixed(torch.randn(50, 7, generator=torch.Generator().manual_seed(0)))
    objective = ImageClassification(7, encoder, smoothing=0.1)
    table = pa.table(
        {"image": pa.array([i.tobytes() for i in images], pa.binary(12)), "label": pa.array(labels.numpy(), pa.int32())}
    )
    (batch,) = objective.collate(table, Cut(0, 50))
    spread = 0.9 * functional.one_hot(labels, 7) + 0.1 / 7
    assert objective.loss_sum(model, batch).item() == pytest.approx(
        float(-(spread * model.given.log_softmax(-1)).sum()), rel=1e-5
    )
    found = objective.metrics(objective.score(model, batch))
    best = model.given.topk(5).indices
    assert found["top5_accuracy"] == pytest.approx((best == labels[:, None]).any(-1).float().mean().item())
    assert found["accuracy"] == pytest.approx((model.given.argmax(-1) == labels).float().mean().item())
    assert found["loss"] == pytest.approx(functional.cross_entropy(model.given, labels).item(), rel=1e-5)
    assert set(found) == {"loss", "accuracy", "f1_macro", "matthews", "top5_accuracy"}
    expected = (images[3, 1, 0] / 255 - encoder.mean) / encoder.std
    assert model.seen[3, :, 1, 0].numpy() == pytest.approx(expected, rel=1e-5)


def fit(inputs: RunInputs, *, world: World | None = None, **more: Any) -> tuple[Outcome, torch.nn.Module, Log]:
    """Trains without Ray."""
    torch.set_num_threads(1)
    spec, world = inputs.spec, world or World()
    blueprint = Blueprint(None, None, True, TINY)
    config = load_config(blueprint)
    config.num_labels = len(inputs.manifest.labels)
    model = build_model(spec.task, config, blueprint, seed=spec.seed)
    timetable = Timetable.of(spec.hyperparams, inputs.train_rows)
    reader, log = split_reader(inputs, "train", world.world_size), Log()
    outcome = train(
        model,
        lambda position: micro_batches(
            local_blocks(reader, epochs=timetable.epochs, world_rank=world.world_rank, position=position),
            schema=inputs.encoder.schema,
            rows_per_epoch=timetable.rows,
            batch_size=timetable.batch_size,
            epochs=timetable.epochs,
            world_rank=world.world_rank,
            world_size=world.world_size,
            position=position,
        ),
        timetable=timetable,
        hyper=spec.hyperparams,
        objective=more.pop("objective", None) or objective_of(spec.task, "abc", images=inputs.encoder),  # type: ignore[arg-type]
        validation=EvaluationRows(split_reader(inputs, "validation", world.world_size), world.world_rank),
        checkpoints=more.pop("checkpoints", None) or MemoryCheckpoints(),
        reporter=log,
        world=world,
        seed=spec.seed,
        **more,
    )
    return outcome, model, log


def test_a_small_resnet_learns_the_shapes(folder: Path) -> None:
    found = prepared(folder, hyperparams={"lr": 5e-3, "epochs": 8, "eval_every": "1 epoch"})
    outcome, _, _ = fit(found)
    assert outcome.progress.best_metrics["accuracy"] > 0.9


def test_a_resumed_run_is_bit_identical_with_batchnorm(inputs: RunInputs) -> None:
    spec = inputs.spec.model_copy(
        update={"hyperparams": inputs.spec.hyperparams.model_copy(update={"epochs": 2, "lr": 1e-3})}
    )
    found = replace(inputs, spec=spec)
    _, undisturbed, _ = fit(found)
    checkpoints = MemoryCheckpoints()
    fit(found, checkpoints=checkpoints, stop_after=5)
    assert checkpoints.saved[-1][0].step == 5
    _, resumed, _ = fit(found, checkpoints=checkpoints)
    names = weights_of(undisturbed)
    assert sum("running_var" in name for name in names) >= 5
    for name, tensor in weights_of(resumed).items():
        assert torch.equal(tensor, names[name]), name


def _worker(rank: int, inputs: RunInputs, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/r", rank=rank, world_size=2)
    outcome, model, _ = fit(inputs, world=World(rank, 2))
    torch.save((outcome.progress.best_metrics, model.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_score_and_save_one_model_also_when_one_is_idle(folder: Path, tmp_path: Path) -> None:
    """The last micro-batch of an epoch has one row: the second worker has none, and takes part all the same."""
    hyper = {"batch_size": 17, "epochs": 1, "lr": 1e-3, "eval_every": "1 epoch"}
    inputs = prepared(folder, hyperparams=hyper)
    multiprocessing.set_forkserver_preload([__name__])
    mp.start_processes(_worker, (inputs, str(tmp_path)), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]
    (metrics, state), (others, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert metrics == others
    assert all(torch.equal(state[name], other[name]) for name in state)
    blueprint = Blueprint(None, None, True, TINY)
    config = load_config(blueprint)
    config.num_labels = 3
    model = build_model("image-classification", config, blueprint, seed=0)
    model.load_state_dict(state)
    rows = EvaluationRows(split_reader(inputs, "validation", 1), 0)
    objective = objective_of("image-classification", "abc", images=inputs.encoder)  # type: ignore[arg-type]
    alone = evaluate(model, rows, objective, World(), cut=Cut(0, 17), autocast=contextlib.nullcontext)
    assert alone == pytest.approx(metrics, rel=1e-5)


def test_a_published_model_is_read_by_transformers(inputs: RunInputs, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = build_model(inputs.spec.task, inputs.config, inputs.blueprint, seed=0).eval()
    publish_model(model, inputs, RunFolder(str(tmp_path / "run")))
    path = tmp_path / "run" / "model"
    published = AutoModelForImageClassification.from_pretrained(path)
    pixels = AutoImageProcessor.from_pretrained(path)(Image.fromarray(drawing("bars", RNG)), return_tensors="pt")
    assert torch.allclose(published(**pixels).logits, model(**pixels).logits, atol=1e-5)
    assert published.config.id2label == {0: "bars", 1: "columns", 2: "disc"}


def test_nothing_but_data_moves_batchnorms_statistics() -> None:
    config = load_config(Blueprint(None, None, True, TINY))
    model = build_model("image-classification", config, Blueprint(None, None, True, TINY), seed=0)
    assert all(float(b.abs().sum()) == 0 for name, b in model.named_buffers() if name.endswith("running_mean"))
    assert model.training


@pytest.mark.parametrize(("alias", "side"), [("vit-tiny", 32), ("resnet-18", 64)])
def test_the_aliases_build_from_scratch(alias: str, side: int) -> None:
    blueprint = find_blueprint(parse_spec({"dataset": "d", "model": alias}).model)
    config = load_config(blueprint)
    encoder = image_encoder(config, blueprint, parse_spec({"dataset": "d", "model": alias}).hyperparams, ("a", "b"))
    assert (encoder.height, encoder.width) == (side, side)
    config.num_labels = 2
    model = build_model("image-classification", config, blueprint, seed=0)
    assert model(pixel_values=torch.zeros(2, 3, side, side)).logits.shape == (2, 2)
    assert all(p.requires_grad for name, p in model.named_parameters() if "mask_token" not in name)


def test_a_published_processor_is_followed(tmp_path: Path) -> None:
    config = load_config(Blueprint(None, None, True, TINY))
    config.save_pretrained(tmp_path)
    settings = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3, "image_mean": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    hyper = parse_spec({"dataset": "d", "model": "m"}).hyperparams
    encoder = image_encoder(config, Blueprint(str(tmp_path), None, False), hyper, ("a",))
    assert (encoder.height, encoder.short_edge, encoder.resample) == (224, 256, 3)
    assert encoder.mean == (0.1, 0.2, 0.3)
    smaller = image_encoder(
        config, Blueprint(str(tmp_path), None, False), hyper.model_copy(update={"image_size": 96}), ("a",)
    )
    assert (smaller.height, smaller.short_edge) == (96, 96)


@pytest.mark.parametrize("short_edge", [None, 40])
def test_transformers_reads_the_processor_and_treats_images_alike(tmp_path: Path, short_edge: int | None) -> None:
    from transformers import AutoImageProcessor

    encoder = ImageEncoder(32, 32, ("a",), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), short_edge=short_edge)
    save_processor(encoder, tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(RGB, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    pixels = decode_image(encoded(PICTURE), 32, 32, short_edge=short_edge)
    assert np.abs(theirs - (pixels / 255 - encoder.mean) / encoder.std).mean() < 0.02
    hyper = parse_spec({"dataset": "d", "model": "m"}).hyperparams
    config = load_config(Blueprint(None, None, True, TINY))
    config.save_pretrained(tmp_path)
    assert image_encoder(config, Blueprint(str(tmp_path), None, False), hyper, ("a",)) == encoder


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda config, fields: setattr(config, "num_channels", 1), "three channels"),
        (lambda config, fields: fields.update(image_size=30), "patches of 4"),
    ],
)
def test_models_that_do_not_suit_are_refused(change: Callable[[Any, Any], None], error: str) -> None:
    spec = parse_spec({"dataset": "d", "model": "vit-tiny"})
    blueprint, fields = find_blueprint(spec.model), {}
    config = load_config(blueprint)
    change(config, fields)
    with pytest.raises(ModelError, match=error):
        image_encoder(config, blueprint, spec.hyperparams.model_copy(update=fields), ("a",))


def test_settings_of_another_task_are_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match="top5_accuracy") as caught:
        prepared(folder, hyperparams={"early_stopping": {"monitor": "validation/top7_accuracy"}})
    assert caught.value.problems[0].param == "/hyperparams/early_stopping/monitor"
