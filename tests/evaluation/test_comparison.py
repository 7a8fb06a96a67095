import io
from itertools import product

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from refashion.base.errors import UserError
from refashion.evaluation import comparison
from refashion.evaluation.predictions import Predictions


def answers(correct: np.ndarray) -> Predictions:
    """Answers to a test set of one class, right where told."""
    return Predictions(
        actual=("yes",) * len(correct),
        predicted=tuple("yes" if right else "no" for right in correct),
    )


@pytest.fixture
def correct() -> dict[str, np.ndarray]:
    """Two good variants and a bad one."""
    rng = np.random.default_rng(0)
    shares = {"softmax": 0.7, "mlp": 0.84, "dropout": 0.85}
    return {name: rng.random(1000) < share for name, share in shares.items()}


@pytest.fixture
def result(correct: dict[str, np.ndarray]) -> dict:
    return comparison.compare({name: answers(c) for name, c in correct.items()})


def test_variants_have_accuracy_and_interval(result: dict, correct: dict) -> None:
    assert list(result["variants"]) == sorted(correct)
    for name, variant in result["variants"].items():
        hits = int(correct[name].sum())
        interval = binomtest(hits, 1000).proportion_ci(method="wilson")
        assert variant == {
            "accuracy": hits / 1000,
            "low": pytest.approx(interval.low),
            "high": pytest.approx(interval.high),
            "correct": hits,
            "images": 1000,
        }


def test_pairs_count_and_test_disagreements(result: dict, correct: dict) -> None:
    assert list(result["pairs"]) == ["dropout vs mlp", "dropout vs softmax", "mlp vs softmax"]
    for names, pair in result["pairs"].items():
        a, b = (correct[name] for name in names.split(" vs "))
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert (pair["only_first"], pair["only_second"]) == (only_a, only_b)
        assert pair["p_value"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
        assert pair["p_value"] <= pair["p_holm"] <= 1


def test_only_what_is_significant_is_called_better(result: dict) -> None:
    better = {names: pair["better"] for names, pair in result["pairs"].items()}
    assert better == {
        "dropout vs mlp": None,
        "dropout vs softmax": "dropout",
        "mlp vs softmax": "mlp",
    }


def test_holm_can_take_significance_away() -> None:
    """8 against 1 is significant alone (p = 0.039), and not among three pairs."""
    a, b = np.ones(20, bool), np.ones(20, bool)
    a[:1] = False
    b[1:9] = False
    pair = comparison.compare({"a": answers(a), "b": answers(b)})["pairs"]["a vs b"]
    assert (pair["only_first"], pair["only_second"], pair["better"]) == (8, 1, "a")
    three = comparison.compare({"a": answers(a), "b": answers(b), "c": answers(a)})
    assert three["pairs"]["a vs b"]["better"] is None


def test_order_of_the_variants_is_of_no_account(correct: dict) -> None:
    forth = comparison.compare({name: answers(c) for name, c in correct.items()})
    back = comparison.compare({name: answers(c) for name, c in reversed(correct.items())})
    assert str(forth) == str(back)


def test_one_variant_needs_no_pairs() -> None:
    result = comparison.compare({"only": answers(np.ones(3, bool))})
    assert result["pairs"] == {}
    assert comparison.accuracies(result) == [["only", 1.0, result["variants"]["only"]["low"], 1.0]]
    assert len(list(comparison.tables(result))) == 1


def test_other_test_set_is_refused() -> None:
    one, other = answers(np.ones(3, bool)), answers(np.ones(4, bool))
    with pytest.raises(UserError, match="a and b: evaluated on different test sets"):
        comparison.compare({"a": one, "b": other})


def test_tables_tell_every_variant_and_pair(result: dict) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(*comparison.tables(result))
    text = screen.getvalue()
    assert all(f"{a} vs {b}" in text for a, b in product(result["variants"], repeat=2) if a < b)
    assert "may be luck" in text
