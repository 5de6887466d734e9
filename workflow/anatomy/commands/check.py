"""Everything about a study that can be wrong before its first job, found in under a second."""

from pathlib import Path
from typing import TYPE_CHECKING

from anatomy.spec.errors import SpecError
from anatomy.spec.read import load_study

if TYPE_CHECKING:
    from anatomy.spec.study import Study, WordList


def check_study(study: str, root: Path = Path()) -> "Study":
    """Read a study file and the word lists it names; nothing is written.

    The vocabularies are drawn as the stage `make_toy_data` draws them, so that a run never finds a word list
    wrong that this found right.

    Raises:
        SpecError: the study or one of its word lists cannot be used.
    """
    check_folder(root)
    spec = load_study(study, root)
    # pandas comes with it: a study file that is wrong is told without.
    from anatomy.data.lexicon import read_words, sample_lexicon

    lexicon = spec.toy.lexicon
    specials = {str(name): words for name, words in lexicon.specials.items()}
    for counts in spec.toy.language.subjects.values():
        sources: dict[str, WordList] = {name: getattr(lexicon, name) for name in sorted(counts)}
        for name, source in sources.items():
            _refuse_outside(root, source.path, f"config/{study}.yaml: toy.lexicon.{name}.path")
        lists = {name: read_words(root / source.path, source.column) for name, source in sources.items()}
        sample_lexicon(
            lists,
            specials,
            words=lexicon.words,
            max_letters=lexicon.max_letters,
            seed=lexicon.sample_seed,
            ambiguous=lexicon.ambiguous,
        )
    return spec


def _refuse_outside(root: Path, path: str, where: str) -> None:
    """A file elsewhere has no name that is true in another checkout, and no archive would hold it."""
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        link = "" if ".." in Path(path).parts or Path(path).is_absolute() else " (it is a link)"
        raise SpecError(f"{where}: {path} lies outside the project{link}; copy it below data/")


def check_folder(root: Path = Path()) -> None:
    """Refuse to work outside the repository, where every path would mean something else.

    Raises:
        SpecError: no Snakefile here.
    """
    if not (root / "Snakefile").is_file():
        raise SpecError(f"{root.absolute()}: no Snakefile here; go to the folder of the repository first")
