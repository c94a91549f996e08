"""Generate the protobuf modules from the .proto files, or check that they are current.

``python -m tools.proto`` rewrites every ``*_pb2.py`` and ``*_pb2.pyi`` beside its .proto file.
``python -m tools.proto --check`` writes nothing and exits 1 naming each file that is missing,
stale or left over. Import paths follow the folders (``wire.orp.orp_pb2``). The output depends on
the .proto files and the locked grpcio-tools version only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDER = Path("wire")


class ProtocFailed(Exception):
    """protoc refused a .proto file; it has written the reason to standard error."""


def sources(root: Path) -> list[str]:
    """Every .proto file below the source folder, relative to `root`, sorted."""
    found = (root / SOURCE_FOLDER).rglob("*.proto")
    return sorted(path.relative_to(root).as_posix() for path in found)


def generate(root: Path) -> dict[Path, bytes]:
    """Run protoc over the .proto files below `root`.

    Returns:
        Content of every generated file by its path relative to `root`; nothing is written there.

    Raises:
        ProtocFailed: a .proto file has an error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        includes = [f"-I{root}", f"-I{files('grpc_tools').joinpath('_proto')}"]
        outputs = [f"--python_out={scratch}", f"--pyi_out={scratch}"]
        status = protoc.main(["protoc", *includes, *outputs, *sources(root)])
        if status != 0:
            raise ProtocFailed(f"protoc ended with status {status}")
        out = Path(scratch)
        written = sorted(path for path in out.rglob("*") if path.is_file())
        return {path.relative_to(out): path.read_bytes() for path in written}


def stale(root: Path, generated: dict[Path, bytes]) -> list[Path]:
    """Files below `root` that differ from `generated`, are missing, or have no .proto any more."""
    differing = {
        path
        for path, content in generated.items()
        if not (root / path).is_file() or (root / path).read_bytes() != content
    }
    present = {path.relative_to(root) for path in (root / SOURCE_FOLDER).rglob("*_pb2.py*")}
    left_over = {path for path in present - generated.keys() if path.suffix in {".py", ".pyi"}}
    return sorted(differing | left_over)


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Exit status: 0 written or current, 1 stale (with --check) or protoc failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.proto", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when generated code is stale")
    arguments = parser.parse_args(argv)
    try:
        generated = generate(root)
    except ProtocFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    outdated = stale(root, generated)
    if arguments.check:
        for path in outdated:
            sys.stderr.write(f"{path} is stale: run `make proto`\n")
        return 1 if outdated else 0
    for path in outdated:
        if path in generated:
            (root / path).write_bytes(generated[path])
        else:
            (root / path).unlink()
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
