"""The predictor gives the numbers of an evaluation, from the run folder alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import torchstone
from torchstone.core.errors import Damaged, UserError
from torchstone.data import Digits, StdlibText
from torchstone.experiment import load_experiment
from torchstone.ship import Predictor, load
from torchstone.ship.artifact import VERSION, candidates
from torchstone.tasks import Classify
from torchstone.train import folder
from torchstone.train.evaluate import evaluate

SHORT = ("run.epochs=1", "run.threads=1", "run.trackers=[]")
TINY_GPT = (
    "data.context=16",
    "data.max_bytes=4000",
    "depth=1",
    "dim=16",
    "num_heads=2",
    "run.steps=2",
    "run.batch_size=4",
    "run.threads=1",
    "run.trackers=[]",
    "evaluate_every=2",
)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mlp") / "run"
    torchstone.train(torchstone.recipes.digits_mini(), *SHORT, "run.epochs=2", out=out)
    return out


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Averaged weights, the best of them, in bf16, evaluated in batches that do not divide the split."""
    out = tmp_path_factory.mktemp("conv") / "run"
    edits = ("model.widths=[8,16]", "run.select=best", "run.precision=bf16", "run.evaluation_batch_size=100", "averaging=ema")
    torchstone.train(torchstone.recipes.digits(), *SHORT, *edits, "run.epochs=2", out=out)
    return out


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpt") / "run"
    torchstone.train(torchstone.recipes.gpt_bytes(), *TINY_GPT, out=out)
    return out


def digits_test() -> tuple[torch.Tensor, torch.Tensor]:
    split = Digits().open().test
    return split.fetch(np.arange(len(split)))


def evaluated_outputs(run: Path, predictor: Predictor) -> torch.Tensor:
    """Outputs of an evaluation of the run's own test split, in its own batches, with the training's parts."""
    experiment = load_experiment(run / folder.EXPERIMENT)
    kept: list = []
    evaluate(
        predictor.model,
        experiment.data.open().test,
        loss=experiment.method.loss,
        metrics=(),
        device=torch.device("cpu"),
        batch_size=experiment.run.evaluation_batch_size,
        precision=experiment.run.precision,
        sample_transforms=experiment.method.sample_transforms,
        batch_transforms=experiment.method.batch_transforms,
        forward=experiment.task.forward,
        keep=kept,
    )
    return torch.cat([outputs for _, outputs, _ in kept])


@pytest.fixture(scope="module")
def seen_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every picture is looked at from both sides, in evaluation and in prediction."""
    out = tmp_path_factory.mktemp("flip") / "run"
    torchstone.train(torchstone.recipes.digits(), *SHORT, "model.widths=[8]", "task.views=flip", out=out)
    return out


def test_views_are_averaged_in_prediction(seen_twice: Path) -> None:
    predictor = load(seen_twice)
    images = digits_test()[0][:40]
    probabilities = [[row["probabilities"][str(label)] for label in range(10)] for row in predictor.predict(images)]
    plain = replace(predictor, artifact=replace(predictor.artifact, task=Classify()))
    both = (plain.logits(images).double().softmax(1) + plain.logits(images.flip(-1)).double().softmax(1)) / 2
    torch.testing.assert_close(torch.tensor(probabilities, dtype=torch.float64), both, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(plain.logits(images).double().softmax(1), both, rtol=1e-3)


@pytest.mark.parametrize("name", ["mlp", "conv", "seen_twice"])
def test_predictions_reproduce_the_run_s_test_accuracy_and_logits(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    predictor = load(run)
    experiment = load_experiment(run / folder.EXPERIMENT)
    predictor = replace(predictor, artifact=replace(predictor.artifact, batch_size=experiment.run.evaluation_batch_size))
    inputs, target = digits_test()
    answers = predictor.predict(inputs)
    right = sum(answer["label"] == str(label) for answer, label in zip(answers, target.tolist(), strict=True))
    assert right / len(target) == json.loads((run / "metrics.json").read_text())["final"]["accuracy"]
    logits = predictor.logits(inputs)
    expected = evaluated_outputs(run, predictor)
    assert logits.dtype == expected.dtype
    assert torch.equal(logits, expected)
    assert [answer["input"] for answer in answers] == list(range(len(target)))
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


def test_language_logits_equal_the_evaluation_s(gpt: Path) -> None:
    predictor = load(gpt)
    experiment = load_experiment(gpt / folder.EXPERIMENT)
    predictor = replace(predictor, artifact=replace(predictor.artifact, batch_size=experiment.run.evaluation_batch_size))
    test = StdlibText(context=16, max_bytes=4000).open().test
    tokens, _ = test.fetch(np.arange(len(test)))
    assert torch.equal(predictor.logits(tokens), evaluated_outputs(gpt, predictor))


def test_every_form_of_the_same_samples_gives_the_same(mlp: Path, tmp_path: Path) -> None:
    predictor = load(mlp)
    inputs, _ = digits_test()
    inputs = inputs[:5]
    x = inputs.numpy()
    expected = predictor.logits(inputs)
    for form in (x, x[:, 0], x.astype(np.float64), x[:, 0, :, :, None], x.tolist()):
        assert torch.equal(predictor.logits(form), expected)
    np.savez(tmp_path / "a.npz", x_test=x)
    np.save(tmp_path / "a.npy", x)
    assert torch.equal(predictor.logits(tmp_path / "a.npz"), expected)
    assert torch.equal(predictor.logits([str(tmp_path / "a.npy")]), expected)
    assert predictor.predict(tmp_path / "a.npy")[3]["input"] == f"{tmp_path / 'a.npy'}:3"
    assert torch.equal(predictor.logits(x[0, 0]), predictor.logits(x[:1]))


def test_bytes_are_scaled_as_the_data_scale_them(mlp: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    scaled = torch.from_numpy(levels[:, None]).to(torch.float32).div_(255)
    torch.testing.assert_close(load(mlp).logits(levels), load(mlp).logits(scaled))


@pytest.mark.parametrize(
    "inputs, message",
    [
        (np.zeros((2, 3, 8, 8)), r"shape \[2, 3, 8, 8\]; the model reads \[N, 1, 8, 8\]"),
        (np.zeros((2, 9, 9)), r"shape \[2, 9, 9\]"),
        (np.zeros((0, 8, 8)), "shape"),
        (np.full((2, 8, 8), np.nan), "row 0: holds a NaN"),
        (np.array([["a"]]), "samples are numbers"),
        (np.array([object()]), "samples are numbers"),
        ([[1, 2], [3]], "no array"),
        (7, "samples are an array"),
        ("no/such.png", "no such file"),
        ([], "shape"),
    ],
)
def test_what_is_no_sample_is_refused(mlp: Path, inputs: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(mlp).predict(inputs)


def test_files_that_are_no_arrays_are_refused(mlp: Path, tmp_path: Path) -> None:
    predictor = load(mlp)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npy").write_text("no array")
    whole = tmp_path / "whole.npy"
    np.save(whole, np.zeros((4, 8, 8)))
    (tmp_path / "torn.npy").write_bytes(whole.read_bytes()[:-100])
    np.savez(tmp_path / "other.npz", y=np.zeros(3))
    for name, message in {
        "objects.npy": "Python objects are never read",
        "text.npy": "no array of numbers",
        "torn.npy": "no array of numbers",
        "other.npz": "no array x or x_test; found y",
    }.items():
        with pytest.raises(UserError, match=message):
            predictor.predict(tmp_path / name)
    with pytest.raises(UserError, match="holds no pictures"):
        predictor.predict(tmp_path)


def test_texts_are_continued_as_a_function_of_the_options(gpt: Path) -> None:
    predictor = load(gpt)
    (one,) = predictor.predict("def ", count=12, seed=3)
    assert one["input"] == "def " and one["text"]
    assert predictor.predict(["x", "def "], count=12, seed=3)[1] == one
    assert predictor.continue_text("def ", count=12, seed=4) != one["text"]
    greedy = predictor.continue_text("import ", count=8, temperature=0)
    assert greedy == predictor.continue_text("import ", count=8, temperature=0, seed=9)
    for options in ({"count": -1}, {"temperature": -0.5}, {"top_k": -2}):
        with pytest.raises(UserError, match="must be >= 0"):
            predictor.predict("a", **options)
    with pytest.raises(UserError, match="prompt is empty"):
        predictor.predict("")


def test_options_of_a_language_model_are_refused_elsewhere(mlp: Path) -> None:
    with pytest.raises(UserError, match="option of language models"):
        load(mlp).predict(np.zeros((1, 8, 8)), count=3)
    with pytest.raises(UserError, match="only a language model"):
        load(mlp).continue_text("a")


def test_loading_and_predicting_move_no_generator(mlp: Path) -> None:
    before = torch.get_rng_state()
    load(mlp).predict(np.zeros((1, 8, 8)))
    assert torch.equal(torch.get_rng_state(), before)


# --- folders that are not as they should be --------------------------------------------------------------------------


@pytest.fixture
def copy(mlp: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mlp, tmp_path / "copy"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_this_code_reads_the_layout_that_training_writes() -> None:
    assert VERSION == folder.VERSION


def test_a_damaged_checkpoint_falls_back_and_says_so(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest, older = candidates(copy, "last")[:2]
    flip(newest / "model.safetensors")
    assert load(copy).checkpoint == older
    message = capsys.readouterr().err
    assert message.startswith("warning: ") and message.count("\n") == 1
    assert "model.safetensors" in message and "tensor" in message and older.name in message
    flip(older / "model.safetensors")
    with pytest.raises(Damaged, match="no good checkpoint is left"):
        load(copy)


def test_pointers_that_lie_are_survived(copy: Path) -> None:
    last = copy / "checkpoints" / "last"
    newest = load(copy).checkpoint
    for text in ("../../etc", "", "step-999", "step-1/../../x"):
        last.write_text(text)
        try:
            assert load(copy).checkpoint == newest
        except UserError as error:
            assert text == "step-999" and "no such checkpoint" in str(error)
    last.unlink()
    assert load(copy).checkpoint == newest


def test_what_is_no_run_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a run folder, artifact.json is missing"):
        load(tmp_path / "empty")
    path = copy / "artifact.json"
    document = json.loads(path.read_text())
    for changed, message in [
        ({"version": 99}, "another version of torchstone"),
        ({"task": {"kind": "fly"}}, "no kind"),
        ({"surprise": 1}, "surprise"),
        ({"model": {"kind": "mlp", "hidden": [1]}}, "the model's is"),
        ({"weights": {"checkpoint": "last", "file": "average"}}, "average"),
    ]:
        path.write_text(json.dumps({**document, **changed}))
        with pytest.raises(UserError, match=message):
            load(copy)
    for text in ("{", "[]", ""):
        path.write_text(text)
        with pytest.raises(UserError, match="artifact.json"):
            load(copy)
    path.write_text(json.dumps(document))
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint yet"):
        load(copy)


@pytest.mark.parametrize("name", ["tpu", "cuda:77", "meta"])
def test_a_device_that_is_not_there_is_refused(mlp: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name}"):
        load(mlp, device=name)
