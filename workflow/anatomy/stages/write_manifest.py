"""Stage write_manifest: all run records of the study, bound together. It has no record of its own."""

import argparse
import sys
from pathlib import Path

from anatomy.provenance.audit_ledger import withheld_paths
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
        # The mark of a restore is no input of the rule: the same lines come out with and without it.
        entries = build_manifest(arguments.records, withheld_paths(arguments.study))
        write_manifest(arguments.manifest, entries, study=arguments.study, lock=arguments.lock)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
