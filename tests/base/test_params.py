"""What ``params.yaml`` may hold, and how each mistake in it is told."""

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refashion.base import params
from refashion.base.errors import UserError
from refashion.data import catalogue
from refashion.training.settings import Settings

GOOD = """\
lr:
seed: 0
epochs: 10
batch_size: 256
weight_decay: 0.0
momentum: 0.0
device: auto
numerics: native
data:
  dataset: fashion_mnist
  limit:
  validation: 0.1
  seed: 0
variants:
  softmax:
    hidden: []
    lr: 0.1
  dropout:
    hidden: [256, 256]
    dropout: [0.2, 0.5]
    lr: 0.5
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write text as ``params.yaml`` and give its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "params.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def load(write: Any) -> Any:
    """Load the good settings with one piece of their text replaced."""

    def load(old: str = GOOD, new: str = GOOD) -> params.Params:
        assert GOOD.count(old) == 1
        return params.load(write(GOOD.replace(old, new)))

    return load


def test_reads_every_value(load: Any) -> None:
    p = load()
    assert p.lr is None
    assert (p.seed, p.epochs, p.batch_size) == (0, 10, 256)
    assert (p.weight_decay, p.momentum, p.device, p.numerics) == (0.0, 0.0, "auto", "native")
    assert p.data == params.DataParams(dataset="fashion_mnist", limit=None, validation=0.1, seed=0)
    assert list(p.variants) == ["softmax", "dropout"]
    assert p.variants["dropout"].dropout == (0.2, 0.5)


def test_committed_settings_are_legal_and_the_books() -> None:
    p = params.load()
    book = {"softmax": ((), (), 0.1), "mlp": ((256,), (0.0,), 0.1)}
    book["dropout"] = ((256, 256), (0.2, 0.5), 0.5)
    resolved = {name: p.resolved(name) for name in p.variants}
    assert {v: (r["hidden"], r["dropout"], r["lr"]) for v, r in resolved.items()} == book


def test_resolved_is_what_the_training_asks_for(load: Any) -> None:
    resolved = load().resolved("dropout")
    required = {f.name for f in dataclasses.fields(Settings) if f.default is dataclasses.MISSING}
    assert set(resolved) == required
    assert Settings(**resolved).widths == (784, 256, 256, 10)


def test_lr_of_all_variants_wins(load: Any) -> None:
    p = load("lr:\n", "lr: 0.2\n")
    assert {p.resolved(v)["lr"] for v in p.variants} == {0.2}


def test_integer_is_a_number(load: Any) -> None:
    lr = load("lr:\n", "lr: 1\n").lr
    assert type(lr) is float
    assert lr == 1.0


def test_dropout_left_out_is_zero_after_each_layer(load: Any) -> None:
    assert load("hidden: []", "hidden: [8, 4]").resolved("softmax")["dropout"] == (0.0, 0.0)


def test_unknown_variant_is_told_with_those_there_are(load: Any) -> None:
    with pytest.raises(UserError, match=r"'mpl' is not in params.yaml; there are softmax, dropout"):
        load().resolved("mpl")


def test_datasets_are_those_of_the_catalogue() -> None:
    assert set(get_args(params.Dataset)) == set(catalogue.DATASETS)


COUNT = "it must be an integer >= 1"
SEED = "it must be an integer from 0 to 2**63 - 1"
RATE = "it must be a number > 0, or empty"
DECAY = "it must be a number >= 0"
SHARE = "it must be a number in [0, 1)"
WIDTHS = "it must be a list of integers from 1 to 4096"
DROPOUT = "it must be a list of numbers in [0, 1), one for each hidden layer"
NAME = "is no legal name; it must be letters, digits, _ and -, a letter or digit first, 64 at most"
LAYERS = "variants.dropout: dropout has {} values and hidden has {}; give one dropout for each"
FIRST = "variants.softmax.hidden"
SECOND = "variants.dropout.dropout"

GATES = "    lr: 0.5\ngates:\n  mlp: "

MISTAKES = [
    # unknown and missing keys
    ("epochs: 10", "epoch: 10", "epoch: unknown key; did you mean epochs?"),
    ("epochs: 10", "epoch: 10", f"epochs is missing; {COUNT}"),
    ("seed: 0\nepochs", "sead: 0\nepochs", "sead: unknown key; did you mean seed?"),
    ("seed: 0\nepochs", "x: 0\nseed: 0\nepochs", "x: unknown key; there are lr, seed, epochs,"),
    ("limit:", "limits:", "data.limits: unknown key; did you mean limit?"),
    ("hidden: []", "hiden: []", "variants.softmax.hiden: unknown key; did you mean hidden?"),
    ("hidden: []", "hiden: []", f"{FIRST} is missing; {WIDTHS}"),
    ("lr:\n", "", f"lr is missing; {RATE}"),
    # wrong types
    ("epochs: 10", "epochs: ten", f"epochs is 'ten'; {COUNT}"),
    ("epochs: 10", "epochs: 10.0", f"epochs is 10.0; {COUNT}"),
    ("epochs: 10", "epochs: '10'", f"epochs is '10'; {COUNT}"),
    ("epochs: 10", "epochs: true", f"epochs is True; {COUNT}"),
    ("epochs: 10", "epochs: 1e1", f"epochs is '1e1'; {COUNT}"),
    ("epochs: 10", "epochs:", f"epochs is empty; {COUNT}"),
    ("epochs: 10", "epochs: [10]", f"epochs is [10]; {COUNT}"),
    ("lr:\n", "lr: true\n", f"lr is True; {RATE}"),
    ("lr:\n", "lr: fast\n", f"lr is 'fast'; {RATE}"),
    ("lr:\n", "lr: ''\n", f"lr is ''; {RATE}"),
    ("momentum: 0.0", "momentum:", f"momentum is empty; {SHARE}"),
    ("limit:", "limit: 1.5", "data.limit is 1.5; it must be an integer >= 1, or empty"),
    ("hidden: []", "hidden: 256", f"{FIRST} is 256; {WIDTHS}"),
    ("hidden: []", "hidden:", f"{FIRST} is empty; {WIDTHS}"),
    ("hidden: []", "hidden: [true]", f"{FIRST} is [True]; {WIDTHS}"),
    ("hidden: []", "hidden: [1.0]", f"{FIRST} is [1.0]; {WIDTHS}"),
    ("hidden: []", "hidden: {256: 1}", "a key that is not text; put it in quotes"),
    ("dropout: [0.2, 0.5]", "dropout: 0.2", f"{SECOND} is 0.2; {DROPOUT}"),
    ("dropout: [0.2, 0.5]", "dropout: [a, 0.5]", f"{SECOND} is ['a', 0.5]; {DROPOUT}"),
    ("device: auto", "device: [cpu]", "device is ['cpu']; it must be one of auto, cpu, cuda"),
    # not finite
    ("lr:\n", "lr: .nan\n", f"lr is nan; {RATE}"),
    ("lr:\n", "lr: nan\n", f"lr is 'nan'; {RATE}"),
    ("lr:\n", "lr: .inf\n", f"lr is inf; {RATE}"),
    ("lr:\n", "lr: 1e999\n", f"lr is '1e999'; {RATE}"),
    ("weight_decay: 0.0", "weight_decay: .inf", f"weight_decay is inf; {DECAY}"),
    ("momentum: 0.0", "momentum: .nan", f"momentum is nan; {SHARE}"),
    ("validation: 0.1", "validation: .nan", f"data.validation is nan; {SHARE}"),
    ("dropout: [0.2, 0.5]", "dropout: [0.2, .nan]", f"{SECOND} is [0.2, nan]; {DROPOUT}"),
    ("lr: 0.5", "lr: .inf", f"variants.dropout.lr is inf; {RATE}"),
    # out of range
    ("seed: 0\nepochs", "seed: -1\nepochs", f"seed is -1; {SEED}"),
    ("seed: 0\nepochs", f"seed: {2**63}\nepochs", f"seed is {2**63}; {SEED}"),
    ("  seed: 0", "  seed: -1", f"data.seed is -1; {SEED}"),
    ("epochs: 10", "epochs: 0", f"epochs is 0; {COUNT}"),
    ("epochs: 10", "epochs: -3", f"epochs is -3; {COUNT}"),
    ("batch_size: 256", "batch_size: 0", f"batch_size is 0; {COUNT}"),
    ("batch_size: 256", "batch_size: -256", f"batch_size is -256; {COUNT}"),
    ("lr:\n", "lr: 0\n", f"lr is 0; {RATE}"),
    ("lr:\n", "lr: -0.1\n", f"lr is -0.1; {RATE}"),
    ("lr: 0.5", "lr: -1e-05", f"variants.dropout.lr is -1e-05; {RATE}"),
    ("weight_decay: 0.0", "weight_decay: -0.1", f"weight_decay is -0.1; {DECAY}"),
    ("momentum: 0.0", "momentum: 1.0", f"momentum is 1.0; {SHARE}"),
    ("momentum: 0.0", "momentum: -0.1", f"momentum is -0.1; {SHARE}"),
    ("limit:", "limit: 0", "data.limit is 0; it must be an integer >= 1, or empty"),
    ("validation: 0.1", "validation: 1", f"data.validation is 1; {SHARE}"),
    ("validation: 0.1", "validation: -0.1", f"data.validation is -0.1; {SHARE}"),
    ("hidden: []", "hidden: [0]", f"{FIRST} is [0]; {WIDTHS}"),
    ("hidden: []", "hidden: [-1]", f"{FIRST} is [-1]; {WIDTHS}"),
    ("hidden: []", "hidden: [4097]", f"{FIRST} is [4097]; {WIDTHS}"),
    ("dropout: [0.2, 0.5]", "dropout: [0.2, 1.0]", f"{SECOND} is [0.2, 1.0]; {DROPOUT}"),
    ("dropout: [0.2, 0.5]", "dropout: [-0.1, 0]", f"{SECOND} is [-0.1, 0]; {DROPOUT}"),
    # lists of different lengths
    ("dropout: [0.2, 0.5]", "dropout: [0.2]", LAYERS.format(1, 2)),
    ("dropout: [0.2, 0.5]", "dropout: []", LAYERS.format(0, 2)),
    ("hidden: [256, 256]", "hidden: []", LAYERS.format(2, 0)),
    # unknown names
    ("device: auto", "device: gpu", "device is 'gpu'; it must be one of auto, cpu, cuda"),
    (
        "numerics: native",
        "numerics: fast",
        "numerics is 'fast'; it must be one of portable, native",
    ),
    (
        "dataset: fashion_mnist",
        "dataset: cifar10",
        "data.dataset is 'cifar10'; it must be one of fashion_mnist, mnist, kmnist, digits",
    ),
    # variants
    ("  softmax:", "  soft max:", f"variants: 'soft max' {NAME}"),
    ("    lr: 0.5\n", GATES + "3\n", "gates.mlp is 3; it must be a mapping from metrics"),
    (
        "    lr: 0.5\n",
        GATES + "{accuracy: 0.8}\n",
        "gates.mlp.accuracy is 0.8; it must be a mapping of at_least",
    ),
    (
        "    lr: 0.5\n",
        GATES + "{accuracy: {}}\n",
        "gates.mlp.accuracy: needs one bound; give at_least or at_most",
    ),
    (
        "    lr: 0.5\n",
        GATES + "{accuracy: {at_least: .nan}}\n",
        "gates.mlp.accuracy.at_least is nan; it must be a nu",
    ),
    (
        "    lr: 0.5\n",
        GATES + "{accuracy: {at_lest: 1.0}}\n",
        "gates.mlp.accuracy.at_lest: unknown key; did you mean",
    ),
    (
        "    lr: 0.5\n",
        GATES + "{accuracy: {at_most: 1.0, margin: -1.0}}\n",
        "gates.mlp.accuracy.margin is -1.0; it mu",
    ),
    ("  softmax:", "  a/b:", f"variants: 'a/b' {NAME}"),
    ("  softmax:", "  ..:", f"variants: '..' {NAME}"),
    ("  softmax:", "  a.b:", f"variants: 'a.b' {NAME}"),
    ("  softmax:", "  a@b:", f"variants: 'a@b' {NAME}"),
    ("  softmax:", "  -a:", f"variants: '-a' {NAME}"),
    ("  softmax:", "  '':", f"variants: '' {NAME}"),
    ("  softmax:", '  "a\\n":', f"variants: 'a\\n' {NAME}"),
    ("  softmax:", "  größe:", f"variants: 'größe' {NAME}"),
    ("  softmax:", f"  {'a' * 65}:", NAME),
    ("  softmax:", "  1:", "line 15: a key that is not text; put it in quotes"),
    ("  softmax:", "  on:", "line 15: a key that is not text; put it in quotes"),
    ("  softmax:", "  Dropout:", "variants: 'Dropout' and 'dropout' differ in case alone"),
    ("    lr: 0.5\n", "", "neither lr nor variants.dropout.lr is given; one of them must be"),
    ("  softmax:\n", "  lr: 1\n  softmax:\n", "variants.lr is 1; it must be a mapping of hidden,"),
    ("  softmax:\n", "  a:\n  softmax:\n", "variants.a is empty; it must be a mapping of hidden,"),
    # YAML that DVC reads as something else
    ("epochs: 10", "epochs: 010", "line 3: 010 is no plain decimal integer"),
    ("epochs: 10", "epochs: 1:30", "line 3: 1:30 is no plain decimal integer"),
    ("epochs: 10", "epochs: 10\nepochs: 11", "line 4: epochs stands here a second time"),
    ("  seed: 0", "  seed: 0\n  seed: 0", "line 14: seed stands here a second time"),
    ("  dropout:\n", "  softmax:\n", "line 18: softmax stands here a second time; remove one"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_mistake_is_told_in_one_line(load: Any, old: str, new: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load(old, new)
    lines = str(caught.value).splitlines()
    assert any(expected in line for line in lines)
    assert all(line.startswith("params.yaml: ") for line in lines)


def test_each_mistake_has_its_line(write: Any) -> None:
    text = GOOD.replace("epochs: 10", "epochs: 0").replace("auto", "gpu")
    with pytest.raises(UserError) as caught:
        params.load(write(text.replace("[256, 256]", "[0, 0]")))
    assert str(caught.value).splitlines() == [
        f"params.yaml: epochs is 0; {COUNT}",
        "params.yaml: device is 'gpu'; it must be one of auto, cpu, cuda",
        f"params.yaml: variants.dropout.hidden is [0, 0]; {WIDTHS}",
    ]


@pytest.mark.parametrize("value", ["", "{}", "[]", "mlp", "[softmax]"])
def test_no_variants(write: Any, value: str) -> None:
    text = GOOD[: GOOD.index("variants:")] + f"variants: {value}\n"
    with pytest.raises(UserError, match=r"^params.yaml: variants is .*; it must be a mapping from"):
        params.load(write(text))


@pytest.mark.parametrize("value", ["", "7", "[dataset, digits]"])
def test_data_is_no_mapping(write: Any, value: str) -> None:
    before, after = GOOD.index("data:"), GOOD.index("variants:")
    with pytest.raises(UserError, match=r"^params.yaml: data is .*; it must be a mapping of datas"):
        params.load(write(f"{GOOD[:before]}data: {value}\n{GOOD[after:]}"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "- lr\n", "lr\n", "7\n"])
def test_file_is_no_mapping(write: Any, text: str) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: holds .*; it must be a mapping of sett"):
        params.load(write(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr: 0.1\nseed: [0\nepochs: 1\n", "line 3: "),
        ("lr: 0.1\n\tseed: 0\n", "line 2: "),
        ("lr: &a\nseed: *b\n", "line 2: found undefined alias 'b'"),
        ("lr: !!python/object:os.system 1\n", "line 1: could not determine a constructor"),
        ("? [a]\n: 1\n", "line 1: a key that is not text; put it in quotes"),
        ("lr: 2026-13-45\n", "not legal YAML: month must be in 1..12"),
        ("lr: \x00\n", "not legal YAML: unacceptable character"),
        (b"lr: \xff\n", "not legal YAML: "),
    ],
)
def test_no_yaml(write: Any, text: str | bytes, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        params.load(write(text))
    assert str(caught.value).startswith(f"params.yaml: {expected}")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: no such file; bring it back with"):
        params.load(tmp_path / "params.yaml")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(UserError, match=r"^params.yaml: Is a directory; it must be a readable"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["1e-05", "'1e-05'", "1E-5", '"0.00001"'])
def test_number_in_text_is_taken_and_told(load: Any, capsys: Any, text: str) -> None:
    p = load("weight_decay: 0.0", f"weight_decay: {text}")
    assert p.weight_decay == 1e-05
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("params.yaml: weight_decay: the text ")
    assert " is taken for the number 1e-05; " in told[0]


def test_number_in_text_inside_a_list(load: Any, capsys: Any) -> None:
    p = load("dropout: [0.2, 0.5]", "dropout: [1e-05, 5e-1]")
    assert p.variants["dropout"].dropout == (1e-05, 0.5)
    assert "variants.dropout.dropout[1]: the text '5e-1'" in capsys.readouterr().err


def test_number_without_a_dot_is_silent_when_it_is_one(load: Any, capsys: Any) -> None:
    load("lr:\n", "lr: 1.0e-05\n")
    assert capsys.readouterr().err == ""


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_number_survives_being_written_by_dvc(lr: float) -> None:
    """DVC writes YAML 1.2: the shortest digits, with or without a dot."""
    text = GOOD.replace("lr:\n", f"lr: {lr!r}\n", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: text.encode())
        p = params.load(Path("params.yaml"))
    assert p.lr == lr
    assert math.isfinite(p.resolved("softmax")["lr"])


def test_settings_cannot_be_changed(load: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().lr = 0.1
