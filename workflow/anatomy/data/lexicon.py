"""Word lists of the toy languages: reading, checking, sampling."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from anatomy.spec.errors import SpecError

Lexicon = dict[str, list[str]]


def read_words(path: Path, column: str | None = None) -> list[str]:
    """Words of a list, in file order, lower-cased and without repeats.

    Args:
        path: one word per line, or a CSV file when `column` is given. Read as UTF-8.
        column: the CSV's column.
    Raises:
        SpecError: the file is missing, unreadable as UTF-8, empty, or lacks the column.
    """
    try:
        if column is None:
            raw = path.read_text(encoding="utf-8-sig").splitlines()
        else:
            import pandas as pd  # takes half a second, and most lists are plain text

            table = pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False)
            if column not in table:
                raise SpecError(f"{path}: no column {column!r}; the file has {', '.join(map(repr, table.columns))}")
            raw = table[column].astype(str).tolist()
    except SpecError:  # is a ValueError, and says already what is wrong
        raise
    except FileNotFoundError:
        raise SpecError(f"{path}: word list not found; expected a UTF-8 text file with one word per line") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 (byte {error.start}); save the word list as UTF-8") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read as a word list ({error})") from None
    words = list(dict.fromkeys(word.strip().lower() for word in raw if word.strip()))
    if not words:
        raise SpecError(f"{path}: holds no words; expected one word per line")
    return words


def sample_lexicon(
    lists: Mapping[str, Sequence[str]],
    specials: Mapping[str, Sequence[str]],
    *,
    words: int,
    max_letters: int,
    seed: int,
    ambiguous: str = "refuse",
) -> Lexicon:
    """Each sentiment's vocabulary: its specials first, then words of at most `max_letters`, drawn without replacement.

    The published study draws 245 words and adds 5 specials (lamparth: create_smalldata.ipynb, cells 2-3). There a
    special may also be among the 245; here every word is distinct, so that "250 words" means 250.

    Args:
        ambiguous: "drop" leaves out words that stand in the lists of two sentiments; "refuse" makes a drawn one an
            error.
    Raises:
        SpecError: too few words, a special twice, or a word in two sentiments.
    """
    rng = np.random.default_rng(seed)
    if ambiguous == "drop":
        times = Counter(chain.from_iterable({*lists[s], *specials[s]} for s in lists))
        lists = {s: [word for word in listed if times[word] == 1] for s, listed in lists.items()}
    lexicon: Lexicon = {}
    for sentiment, listed in lists.items():
        own = list(specials[sentiment])
        candidates = [w for w in listed if len(w) <= max_letters and " " not in w and w not in own]
        if len(set(own)) < len(own):
            raise SpecError(f"toy.lexicon.specials.{sentiment}: a word stands twice in {', '.join(own)}")
        wanted = words - len(own)
        if wanted < 0:
            raise SpecError(
                f"toy.lexicon.words: {words} is less than the {len(own)} specials of {sentiment}; raise it to at least "
                f"{len(own)}"
            )
        if len(candidates) < wanted:
            raise SpecError(
                f"toy.lexicon.{sentiment}: {len(candidates)} usable words of at most {max_letters} letters besides "
                f"the specials, {wanted} needed; lower toy.lexicon.words or bring a longer list"
            )
        drawn = rng.choice(len(candidates), size=wanted, replace=False)
        lexicon[sentiment] = own + [candidates[i] for i in sorted(drawn)]
    for (a, words_a), (b, words_b) in combinations(lexicon.items(), 2):
        if shared := sorted(set(words_a) & set(words_b)):
            raise SpecError(
                f"toy.lexicon: {', '.join(map(repr, shared[:5]))} in both {a} and {b}; "
                "a word must carry one sentiment: remove it from one list, or set toy.lexicon.ambiguous: drop"
            )
    return lexicon
