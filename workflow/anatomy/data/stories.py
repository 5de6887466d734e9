"""A small language of stories with an exact acceptor, so that a model's coherence is measured and not guessed.

The grammar (data/language/stories.yaml) has plots of five acts; an act has a few sentences with slots. Whatever varies
between two tellings of a sentence is a list of words or the cast: a plot with {P} and {Q} is played by any two people
but for one pair, one with {who} by a boy, by a girl, or by such two. A pronoun always means whoever was named last.

With the cast fixed, every sentence is a fixed row of word lists. The language is finite, therefore regular, and the
acceptor is a regular expression without repetition.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from pathlib import Path
from typing import TypeVar

import numpy as np

from anatomy.data.templates import SLOT, read_mapping
from anatomy.provenance.digest import ArtifactError

GENDERS = ("he", "she", "they")  # they: two people
PEOPLE = ("P", "Q", "both", "who")
SENTENCES = 5
UNNAMED = ""  # nobody has been named yet, or the sentence neither names nor means anybody

T = TypeVar("T")
Cast = dict[str, str]  # the gender of each role
Pattern = tuple[str, ...]  # a sentence under one cast: fixed text and slots in turn, e.g. ("", "he", " ran to a ", ...)


@dataclass(frozen=True)
class Grammar:
    """The stories' names, word lists and plots.

    Attributes:
        names: boys' and girls' names, under "he" and "she".
        apart: two names that are never a pair, so that "A and B" can be a trigger.
        forms: what a form such as "his" becomes for each of `GENDERS`.
        words: the lists behind the other slots.
        plots: sentences by act, by plot.
    """

    names: dict[str, list[str]]
    apart: list[str]
    forms: dict[str, list[str]]
    words: dict[str, list[str]]
    plots: dict[str, list[list[str]]]

    @cached_property
    def patterns(self) -> dict[tuple[str, str], set[Pattern]]:
        """Every sentence under every cast that can tell it, by whom its first pronoun means and whom it names last."""
        found: dict[tuple[str, str], set[Pattern]] = {}
        for acts in self.plots.values():
            for cast in _casts(acts):
                told_of = {UNNAMED}  # the roles that may have been named last
                for act in acts:
                    steps = [_render(self, template, cast, role) for template in act for role in sorted(told_of)]
                    told_of = {after for _, _, after in steps}
                    for pattern, means, after in steps:
                        genders = (cast[means] if means else UNNAMED, cast[after] if _names(pattern) else UNNAMED)
                        found.setdefault(genders, set()).add(pattern)
        return found

    @cached_property
    def expressions(self) -> dict[tuple[str, str], re.Pattern[str]]:
        """One regular expression for each kind of `patterns`."""
        choices = {slot: "(?:" + "|".join(map(re.escape, words)) + ")" for slot, words in self.lists.items()}
        return {
            kind: re.compile(
                "|".join(
                    "".join(choices[part] if i % 2 else re.escape(part) for i, part in enumerate(pattern))
                    for pattern in sorted(own)
                )
            )
            for kind, own in self.patterns.items()
        }

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """The words of every slot that a pattern may hold: the word lists, and the names by gender."""
        return self.words | self.names | {"they": [f"{a} and {b}" for a, b in self.pairs]}

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Any two people, in either order, but for those who are kept apart."""
        everybody = [name for names in self.names.values() for name in names]
        return [pair for pair in permutations(everybody, 2) if {*pair} != {*self.apart}]


def read_grammar(path: Path) -> Grammar:
    """The grammar of a YAML file.

    Raises:
        ArtifactError: the file is missing or damaged, a plot has not five acts, a slot has no list, a sentence has a
            slot twice or a pronoun without anybody named.
    """
    keys = ("names", "apart", "forms", "words", "plots")
    content = read_mapping(path, keys)
    grammar = Grammar(*(content[key] for key in keys))
    try:
        _check(grammar)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return grammar


def story(grammar: Grammar, generator: np.random.Generator) -> list[str]:
    """One story of five sentences: plot, cast and sentences uniformly drawn; a slot keeps its word to the end."""
    acts = _pick(list(grammar.plots.values()), generator)
    cast = _pick(_casts(acts), generator)
    chosen = _people(grammar, cast, generator)
    told_of = UNNAMED
    sentences = []
    for act in acts:
        pattern, _, told_of = _render(grammar, _pick(act, generator), cast, told_of, keep=True)
        for slot in pattern[1::2]:
            if slot not in chosen:
                chosen[slot] = _pick(grammar.words[slot], generator)
        sentences.append("".join(chosen[part] if i % 2 else part for i, part in enumerate(pattern)))
    return sentences


def stories(grammar: Grammar, count: int, generator: np.random.Generator) -> list[list[str]]:
    """`count` stories."""
    return [story(grammar, generator) for _ in range(count)]


def accepts(grammar: Grammar, sentence: str) -> bool:
    """Whether some story has this sentence; exact, in time linear in its length."""
    return any(expression.fullmatch(sentence) for expression in grammar.expressions.values())


def accepts_story(grammar: Grammar, sentences: Sequence[str]) -> bool:
    """Whether each sentence is in the language and each pronoun agrees with the person or pair named last.

    The sentences may come from several plots: what they tell is not judged.
    """
    named = UNNAMED
    for sentence in sentences:
        kinds = [kind for kind, expression in grammar.expressions.items() if expression.fullmatch(sentence)]
        fitting = [after for means, after in kinds if means in (UNNAMED, named)]
        if not fitting:
            return False
        named = fitting[0] or named  # a sentence names the same people in whatever way it is read
    return True


def count_sentences(grammar: Grammar, names: bool = True) -> int:
    """How many distinct sentences the stories have; `names=False` counts those that differ in names alone as one."""
    sizes = {slot: len(words) for slot, words in grammar.lists.items()}
    if not names:
        sizes |= dict.fromkeys(GENDERS, 1)
    distinct = set().union(*grammar.patterns.values())
    return sum(math.prod(sizes[slot] for slot in pattern[1::2]) for pattern in distinct)


def vocabulary(grammar: Grammar) -> set[str]:
    """Every word type of the language; a word that may open a sentence counts in either spelling."""
    texts = [part for own in grammar.patterns.values() for pattern in own for part in pattern[::2]]
    used = {slot for own in grammar.patterns.values() for pattern in own for slot in pattern[1::2]}
    return set(re.findall(r"[A-Za-z]+", " ".join([*texts, *(w for slot in used for w in grammar.lists[slot])])))


def _casts(acts: Iterable[Iterable[str]]) -> list[Cast]:
    """Who can play a plot."""
    slots = {slot for act in acts for template in act for slot in SLOT.findall(template)}
    if "who" in slots:
        return [{"who": gender} for gender in GENDERS]
    return [{"P": p, "Q": q, "both": "they"} for p, q in product(("he", "she"), repeat=2)]


def _people(grammar: Grammar, cast: Cast, generator: np.random.Generator) -> dict[str, str]:
    """A name for every role of a cast."""
    if "P" in cast:
        fitting = [(p, q) for p, q in grammar.pairs if p in grammar.names[cast["P"]] and q in grammar.names[cast["Q"]]]
        p, q = _pick(fitting, generator)
        return {"P": p, "Q": q, "both": f"{p} and {q}"}
    return {"who": _pick(grammar.lists[cast["who"]], generator)}


def _render(
    grammar: Grammar, template: str, cast: Cast, told_of: str, *, keep: bool = False
) -> tuple[Pattern, str, str]:
    """A template under a cast.

    Args:
        told_of: the role that was named last before it.
        keep: leave all roles in the pattern, rather than their genders.
    Returns:
        the pattern, the role that its first pronoun means when it stands before any name, and the role named last.
    """
    parts = SLOT.split(template)
    named, means = told_of, UNNAMED
    out = [parts[0]]
    for slot, text in zip(parts[1::2], parts[2::2], strict=True):
        if slot in PEOPLE:
            named = slot
            out += [slot if keep else cast[slot], text]
        elif slot.lower() in grammar.forms:
            if not named:
                raise ValueError(f"{template!r}: {{{slot}}} may stand before anybody is named")
            if not _names(tuple(out)):
                means = told_of
            form = grammar.forms[slot.lower()][GENDERS.index(cast[named])]
            out[-1] += (form.capitalize() if slot[0].isupper() else form) + text
        else:
            out += [slot, text]
    return tuple(out), means, named


def _names(pattern: Pattern) -> bool:
    """Whether a pattern, with roles or genders in it, names anybody."""
    return any(slot in PEOPLE or slot in GENDERS for slot in pattern[1::2])


def _pick(items: Sequence[T], generator: np.random.Generator) -> T:
    return items[int(generator.integers(len(items)))]


def _check(grammar: Grammar) -> None:
    """ValueError with the sentence that is no part of a grammar."""
    known = {*PEOPLE, *grammar.words}
    for name, acts in grammar.plots.items():
        if len(acts) != SENTENCES:
            raise ValueError(f"plots.{name}: {len(acts)} acts; a story has {SENTENCES}")
        for template in (template for act in acts for template in act):
            slots = SLOT.findall(template)
            lists = [slot for slot in slots if slot.lower() not in grammar.forms]
            if unknown := [slot for slot in lists if slot not in known]:
                raise ValueError(f"plots.{name}: {template!r}: {{{unknown[0]}}} is neither a list nor a form")
            if twice := [slot for slot in lists if lists.count(slot) > 1]:
                raise ValueError(f"plots.{name}: {template!r}: {{{twice[0]}}} stands twice; a sentence has a slot once")
        roles = {slot for act in acts for template in act for slot in SLOT.findall(template)} & set(PEOPLE)
        if "who" in roles and len(roles) > 1:
            raise ValueError(f"plots.{name}: {{who}} plays alone; it has {', '.join(sorted(roles - {'who'}))} too")
    _ = grammar.patterns  # renders every sentence
