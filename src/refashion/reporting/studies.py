"""Pages of the studies: what was asked, what came out, and the picture."""

from pathlib import Path

from rich.table import Table

from refashion import studies
from refashion.reporting import page
from refashion.tracking import results, study_figures
from refashion.tracking.results import ArmResults

TITLES = {
    "weight_decay": "Weight decay",
    "house_prices": "House prices",
    "initialisation": "Initialisation",
    studies.K_FOLD: "k-fold validation",
}

NOTES = {
    "weight_decay": (
        "Linear regression on fewer examples than inputs (book, section 4.5). Without a penalty it "
        "learns its examples by heart and nothing else; with one, the weights stay small and the "
        "error on new examples falls.",
        "Losses are half the squared error, means over the seeds; each seed has examples, initial "
        "weights and batches of its own.",
    ),
    "house_prices": (
        "Prices of houses in Ames, Iowa, from a table with missing values (book, section 4.10). "
        "Each model is trained on all folds but one and validated on that one, in turn.",
        "The error is the root mean squared error of the logarithm of the price. Features are "
        "standardised and encoded by what the training fold alone tells; the book uses the test "
        "houses too.",
    ),
    "initialisation": (
        "Networks of growing depth from five kinds of initial weights (book, section 4.8). From "
        "N(0, 0.01) gradients vanish with the depth, from N(0, 1) they explode; Xavier's and He's "
        "scales keep them.",
        "From constant weights all units of a layer stay equal: distinct_units is 1. The gradients "
        "that reach them at the start are zero but for rounding, since those of the classes add "
        "up to zero. A line ends where numbers went beyond all bounds.",
    ),
    studies.K_FOLD: (
        "Every variant, trained on all folds of the training and validation images but one and "
        "validated on that one, in turn (book, section 4.10). Folds have the same share of every "
        "class.",
    ),
}


def write(root: Path, study: str, path: Path, links: dict[str, str]) -> None:
    """Write a study's page to `path`.

    Parameters
    ----------
    root
        A checkout in which the study has run.
    study
        Its name.
    path
        Where to.
    links
        Names of all pages, from their files.

    Raises
    ------
    UserError
        If nothing can be written there.
    """
    arms = [arm for arm in results.arms(root, study) if arm.parent is None]
    picture = study_figures.draw(root, study)
    page.render(
        path,
        title=TITLES[study],
        links=links,
        notes=NOTES[study],
        tables=[table(arms)],
        sections=[f"<section>{page.picture(TITLES[study], picture)}</section>"],
    )


def table(arms: list[ArmResults]) -> Table:
    """Metrics of every arm, with their standard deviation where there are several trainings."""
    names = dict.fromkeys(name for arm in arms for name in arm.metrics)
    shown = [name for name in names if not name.endswith("_deviation")]
    found = Table("arm", *shown, title="After the last epoch: mean ± standard deviation")
    for arm in arms:
        found.add_row(arm.arm, *(_cell(arm.metrics, name) for name in shown))
    return found


def _cell(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return "-"
    deviation = metrics.get(f"{name}_deviation")
    return f"{metrics[name]:.4g}" + ("" if deviation is None else f" ± {deviation:.2g}")
