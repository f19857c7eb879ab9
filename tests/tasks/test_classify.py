"""Classification: what it accepts, how it decodes, what its pictures show."""

import numpy as np
import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, TokenShape, VectorShape
from torchstone.losses import CrossEntropy
from torchstone.metrics import Matthews, RocAuc, Youden, choose, fit_temperature
from torchstone.tasks import Classify
from torchstone.tasks.classify import RIGHT, WRONG

FACTS = Facts(inputs=ImageShape(1, 8, 8), classes=("cat", "dog", "eel"), class_counts=(3, 2, 1))


def test_from_facts_to_parts() -> None:
    task = Classify()
    task.accepts(FACTS)
    assert task.outputs(FACTS) == 3
    assert task.default_loss(FACTS) == CrossEntropy()
    results = {}
    for metric in task.metrics(FACTS):
        results |= metric.result(metric.measure(torch.eye(3), torch.arange(3), torch.ones(3), torch.zeros(3)))
    assert set(results) == {"loss", "accuracy", "balanced_accuracy", "macro_f1", "per_class", "calibration_error", "confusion"}
    assert [row["class"] for row in results["per_class"]] == ["cat", "dog", "eel"]
    assert task.selection[0] in results


def test_top_5_is_measured_where_it_says_something() -> None:
    names = {}
    for classes in (5, 6):
        facts = Facts(inputs=VectorShape(4), classes=tuple(map(str, range(classes))))
        names[classes] = {type(metric).__name__ for metric in Classify().metrics(facts)}
    assert names[6] - names[5] == {"TopK"}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (Facts(inputs=TokenShape(256, 8)), "task=language fits"),
        (Facts(inputs=VectorShape(4)), "these have none"),
        (Facts(inputs=VectorShape(4), classes=("only",)), "these have only one: only"),
    ],
)
def test_what_it_refuses(facts: Facts, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classify().accepts(facts)


def test_views_need_pictures() -> None:
    Classify(views="flip").accepts(FACTS)
    with pytest.raises(UserError, match="task.views=flip mirrors pictures"):
        Classify(views="flip").accepts(Facts(inputs=VectorShape(4), classes=("a", "b")))


def test_decode() -> None:
    p = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    first, second = Classify().decode(p.log(), FACTS)
    assert (first["label"], second["label"]) == ("dog", "cat")
    assert list(first["probabilities"]) == ["cat", "dog", "eel"]
    assert first["probabilities"]["dog"] == pytest.approx(0.5)
    assert sum(second["probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert Classify().decode(torch.zeros(0, 3), FACTS) == []


def test_decode_with_a_threshold() -> None:
    """The second class is said from its probability on, however little that is; the probabilities stay."""
    two = Facts(inputs=VectorShape(4), classes=("no", "yes"))
    p = torch.tensor([[0.7, 0.3], [0.75, 0.25], [0.1, 0.9]]).double()
    plain, cut = Classify().decode(p.log(), two), Classify(threshold=0.3 - 1e-9).decode(p.log(), two)
    assert [each["label"] for each in plain] == ["no", "no", "yes"]
    assert [each["label"] for each in cut] == ["yes", "no", "yes"]
    assert [each["probabilities"] for each in cut] == [each["probabilities"] for each in plain]
    assert Classify(threshold=0.0).labels(p).tolist() == [1, 1, 1] and Classify(threshold=1.0).labels(p).tolist() == [0, 0, 0]


def test_two_classes_and_more_metrics() -> None:
    two = Facts(inputs=VectorShape(4), classes=("no", "yes"))
    kinds = lambda task: [type(metric).__name__ for metric in task.metrics(two)]
    usual = kinds(Classify())
    assert {"RocAuc", "AveragePrecision"} <= set(usual) and "AtThreshold" not in usual
    assert "AtThreshold" in kinds(Classify(threshold=0.4))
    assert kinds(Classify(also=(RocAuc(), Matthews()))) == [*usual, "Matthews"]  # none twice


def test_temperature_divides_what_is_judged_and_1_is_the_model_itself() -> None:
    model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
    assert torch.equal(Classify().forward(model, x), model(x))
    assert torch.equal(Classify(temperature=2.0).forward(model, x), model(x) / 2)
    half = Classify(temperature=3.0).forward(model.bfloat16(), x.bfloat16())
    assert half.dtype == torch.float32


def test_settled() -> None:
    g = torch.Generator().manual_seed(0)
    outputs, target = 3 * torch.randn(50, 2, generator=g), torch.randint(0, 2, (50,), generator=g)
    assert not Classify().settles and Classify().settled(outputs, target) == Classify() and Classify().fitted == {}
    warm = Classify(calibration="temperature", temperature=2.0)
    assert warm.settled(outputs, target).temperature == 2 * fit_temperature(outputs, target)
    cut = Classify(threshold_by=Youden(), threshold=0.7)
    chosen = choose(Youden(), outputs.double().softmax(1)[:, 1].numpy(), (target == 1).numpy())
    assert cut.settles and cut.settled(outputs, target).fitted == {"threshold": chosen}
    assert cut.settled(outputs, torch.zeros_like(target)) == cut  # one class alone says nothing: as it was


def test_picture_is_the_image_enlarged() -> None:
    image = torch.arange(64.0).view(1, 8, 8) / 63
    picture = Classify().picture((image, torch.tensor(1)))
    assert picture is not None
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert (picture[0, 0] == 0).all()
    assert (picture[-1, -1] == 255).all()
    np.testing.assert_array_equal(picture[4::8, 4::8, 0], np.rint(image[0].numpy() * 255))


def test_bytes_are_shown_as_they_are() -> None:
    image = torch.randint(0, 256, (3, 64, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(Classify().picture((image, torch.tensor(0))), image.permute(1, 2, 0).numpy())


def test_the_frame_says_right_or_wrong() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2  # normalized
    soft = torch.tensor([0.1, 0.2, 0.7])
    for output, color in ((torch.tensor([0.0, 0.0, 1.0]), RIGHT), (torch.tensor([1.0, 0.0, 0.0]), WRONG)):
        for target in (torch.tensor(2), soft):
            picture = Classify().picture((image, target), output)
            assert picture is not None
            assert picture.shape == (70, 70, 3)
            for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
                assert (edge == color).all()


def test_a_vector_has_no_picture() -> None:
    assert Classify().picture((torch.zeros(5), torch.tensor(0))) is None
