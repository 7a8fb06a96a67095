"""What a ``dvc.lock`` tells of stages and of their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refashion.base import files
from refashion.base.errors import UserError


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Stages of a ``dvc.lock``, by name; none, if there is no such file.

    `UserError` if it is damaged.
    """
    if not file.exists():
        return {}
    stages = stages_of(files.read_bytes(file, "mend that"))
    if stages is None:
        raise UserError(f"{file}: is damaged; run `refashion mend`")
    return stages


def stages_of(lock: bytes) -> dict[str, dict[str, Any]] | None:
    """Stages in the content of a ``dvc.lock``, by name; None if it is damaged.

    It is sound if it has stages and DVC itself accepts it.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    try:
        content = COMPILED_LOCKFILE_SCHEMA(parse_yaml(lock.decode(), "dvc.lock"))
        return dict(content["stages"])
    except (YAMLFileCorruptedError, Invalid, ValueError, KeyError):
        return None


def outputs(lock: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Digest of every output that a ``dvc.lock`` tells of, by path, in the stages' order.

    An output that was never committed has none, nor has one that DVC knows by another hash; they
    are left out.
    """
    outs = [out for stage in lock.values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if out.get("md5")}
