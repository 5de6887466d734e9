"""Which generation of results/{study} this code reads and writes: one integer in results/{study}/LAYOUT.

Raise LAYOUT when files move or a column changes its meaning. Digests have Snakemake make again what a rule
still knows; what no rule knows any more would stay behind and be read as if it belonged to the study.
"""

from pathlib import Path

from anatomy.provenance.digest import files_under, write_text_atomic
from anatomy.spec.errors import SpecError

LAYOUT = 1
LAYOUT_FILE = "LAYOUT"


def check_layout(study: str, root: Path = Path()) -> None:
    """Refuse results that are there and of another layout; nothing is written.

    Raises:
        SpecError: results/{study} holds artefacts and another layout number, or none.
    """
    home = root / "results" / study
    found = _layout_of(home)
    if found == str(LAYOUT) or not has_artefacts(home):
        return
    age = f"have layout {found}" if found else "have no layout number: an older version made them"
    raise SpecError(
        f"{home}: these results {age}; this version reads and writes layout {LAYOUT}. Nothing was touched. "
        f"Move them away (mv {home} {home}.old) or delete {home}, then give the same command again"
    )


def claim_layout(study: str, root: Path = Path()) -> None:
    """Say in results/{study}, before the first result is written, that its layout is this one.

    Raises:
        SpecError: as `check_layout` does.
        ArtifactError: the disk is full.
    """
    check_layout(study, root)
    home = root / "results" / study
    if _layout_of(home) != str(LAYOUT):
        write_text_atomic(home / LAYOUT_FILE, f"{LAYOUT}\n")


def _layout_of(home: Path) -> str:
    """What the layout file says, on one line; empty when there is none."""
    try:
        return " ".join((home / LAYOUT_FILE).read_text(encoding="utf-8", errors="replace").split())[:20]
    except OSError:
        return ""


def has_artefacts(home: Path) -> bool:
    """Whether results/{study} holds more than logs and hidden files, which is all that a run failing at once leaves."""
    inside = (file.relative_to(home).parts for file in files_under(home))
    return any(
        parts[0] != "logs" and parts != (LAYOUT_FILE,) and not any(part.startswith(".") for part in parts)
        for parts in inside
    )
