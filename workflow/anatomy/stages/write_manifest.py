"""Stage write_manifest: all run records of the study, bound together. It has no record of its own."""

import argparse
import sys
from pathlib import Path

from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.manifest import build_manifest, write_manifest


def main() -> None:
    """Re-hash every output and write results/<study>/manifest.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True)
    parser.add_argument("--lock", required=True)
    parser.add_argument("--records", type=Path, nargs="+", required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        entries = build_manifest(arguments.records)
        write_manifest(arguments.manifest, entries, study=arguments.study, lock=arguments.lock)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
