"""Stage write_crate: the manifest and the run records once more, as an RO-Crate. It has no record of its own."""

import argparse
import sys
from pathlib import Path

from anatomy.provenance.crate import build_crate, given_agent, read_citation, read_records
from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.provenance.manifest import read_manifest


def main() -> None:
    """Write results/<study>/ro-crate-metadata.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--citation", type=Path, required=True)
    parser.add_argument("--crate", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        manifest = read_manifest(arguments.manifest)
        citation = read_citation(arguments.citation)
        text = build_crate(manifest, read_records(manifest), citation, given_agent())
        write_text_atomic(arguments.crate, text)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
