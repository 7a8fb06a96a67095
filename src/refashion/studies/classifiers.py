"""The classifiers of images: softmax regression, perceptrons, dropout (book, chapters 3, 4)."""

from dataclasses import asdict

from refashion.base.params import Params
from refashion.base.workspace import Workspace
from refashion.runs import write
from refashion.runs.record import Record
from refashion.studies import study
from refashion.training.loop import Model
from refashion.training.portable import CONTRACT
from refashion.training.settings import Settings
from refashion.training.workers import ALONE, Workers


def settings(params: Params, name: str) -> Settings:
    """Settings of one variant's training; `UserError` if there is no such variant.

    The learning rate of all variants wins over its own.
    """
    variant = params.variant(name)
    lr = variant.lr if params.lr is None else params.lr
    assert lr is not None  # params are refused where both are empty
    return Settings(
        hidden=variant.hidden,
        dropout=variant.dropout or (),
        lr=lr,
        seed=params.seed,
        epochs=params.epochs,
        batch_size=params.batch_size,
        weight_decay=params.weight_decay,
        momentum=params.momentum,
        numerics=params.numerics,
    )


def run(workspace: Workspace, params: Params, name: str, workers: Workers = ALONE) -> None:
    """Train one variant on the training set, and evaluate it on the validation set every epoch.

    The first of the workers writes the run. `UserError` if there is no such variant, its data are
    missing, it diverges, or the workers differ in settings or data.
    """
    chosen = settings(params, name)
    splits, inputs = study.splits(workspace)
    workers.agree({"numerics contract": CONTRACT, **chosen.as_dict(), **inputs})
    model = Model(settings=chosen, **study.examples(splits))
    with study.checkpoint(
        workspace, name, chosen, params.device, inputs=inputs, workers=workers
    ) as checkpoint:
        (trained,) = study.train(
            name, [model], params.device, checkpoint=checkpoint, workers=workers
        )
        if workers.rank:
            return
        training = trained.training
        record = Record(
            name=name,
            experiment=params.data.dataset,
            stage=f"evaluate@{name}",
            folders=tuple(map(workspace.relative, workspace.variant_folders(name))),
            contract=trained.contract,
            data=params.data.model_dump(),
            inputs=inputs,
            params=chosen.as_dict(),
        )
        history = [
            {k: v for k, v in asdict(row).items() if k not in ("model", "epoch")}
            for row in training.history
        ]
        write.write(
            workspace,
            record,
            history,
            digest=training.digest,
            weights=training.weights,
            timings=study.timings([trained]),
        )
