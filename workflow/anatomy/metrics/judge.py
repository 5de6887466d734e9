"""Judges of toxicity behind one interface: a classifier trained in the study, and one in Hugging Face's layout."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.spec.offline import how_to_download

if TYPE_CHECKING:
    import torch
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

FILES = "config.json, model.safetensors and the tokenizer's files"  # of a classifier in Hugging Face's layout
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
FOLDS = 5  # of the cross-validation behind Platt's scaling
TERMS = ["term", "idf", "coefficient"]  # columns of a saved local judge


@runtime_checkable
class Judge(Protocol):
    """Says how likely a text is to be toxic."""

    def probability(self, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Probability, text by text, that it is toxic."""
        ...


@dataclass(frozen=True)
class LocalJudge:
    """TF-IDF of single words, lower case, and a logistic regression on it.

    A text's score is that of its most toxic sentence: among harmless ones, an insult would be thinned out. The more
    sentences, the higher the largest score of harmless ones, so the score becomes a probability by Platt's scaling,
    fitted on scores of texts that the classifier was not trained on (cross-validation), where texts are built from
    templates on those of other templates: their own they would know too well. A text in which no known word
    stands is not toxic (probability 0). The regression alone would give it the share of toxic texts in its training
    set, which says nothing about the text.

    Attributes:
        scale: (A, B) of p = 1 / (1 + exp(-(A s + B))), s the score (Platt 1999, "Probabilistic outputs for support
            vector machines").
    """

    vectorizer: "TfidfVectorizer"
    classifier: "LogisticRegression"
    scale: tuple[float, float]

    @classmethod
    def fit(
        cls, texts: Sequence[str], labels: Sequence[int], *, groups: Sequence[str] | None = None, c: float = 1.0
    ) -> "LocalJudge":
        """Train on texts with label 1 (toxic) or 0.

        Args:
            groups: of each text what it was built from; the cross-validation keeps a group together. None: nothing.
            c: scikit-learn's inverse strength of regularisation.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        own, truth = np.array(texts), np.asarray(labels, dtype=int)
        score = np.empty(len(own))
        folds = (StratifiedKFold if groups is None else StratifiedGroupKFold)(FOLDS, shuffle=True, random_state=0)
        for kept, left_out in folds.split(own, truth, groups):
            score[left_out] = _scores(*_classifier(own[kept], truth[kept], c), own[left_out])
        known = np.isfinite(score)
        platt = LogisticRegression(C=np.inf).fit(score[known, None], truth[known])
        return cls(*_classifier(own, truth, c), (float(platt.coef_[0, 0]), float(platt.intercept_[0])))

    def probability(self, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Probability, text by text, that it is toxic."""
        from scipy.special import expit

        score, (slope, intercept) = _scores(self.vectorizer, self.classifier, texts), self.scale
        return np.where(np.isfinite(score), expit(slope * score + intercept), 0.0)

    def save(self, folder: Path) -> None:
        """Write terms.parquet (term, idf, coefficient) and judge.json (intercept, scale), each atomically."""
        columns = (self.vectorizer.get_feature_names_out(), self.vectorizer.idf_, self.classifier.coef_[0])
        write_parquet(folder / "terms.parquet", pd.DataFrame(dict(zip(TERMS, columns, strict=True))))
        described = {"judge": "local", "intercept": float(self.classifier.intercept_[0]), "scale": self.scale}
        write_text_atomic(folder / "judge.json", json.dumps(described, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "LocalJudge":
        """The judge that was saved; it gives the same probabilities.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        from sklearn.linear_model import LogisticRegression

        terms = read_parquet(folder / "terms.parquet")
        if list(terms.columns) != TERMS:
            raise ArtifactError(f"{folder / 'terms.parquet'}: expected the columns {', '.join(TERMS)}")
        vectorizer, classifier = _vectorizer(vocabulary=terms["term"].tolist()), LogisticRegression()
        vectorizer.idf_ = terms["idf"].to_numpy()
        classifier.classes_ = np.array([0, 1])
        classifier.coef_ = terms["coefficient"].to_numpy()[None]
        intercept, *scale = _numbers(folder / "judge.json")
        classifier.intercept_ = np.array([intercept])
        return cls(vectorizer, classifier, (scale[0], scale[1]))


class RobertaJudge:
    """A sequence classifier in Hugging Face's layout with a label "toxic", as s-nlp/roberta_toxicity_classifier.

    Weights are read from safetensors alone, and code that comes with a model is never run.
    """

    def __init__(self, source: str | Path, *, device: "torch.device | str" = "cpu", batch: int = 64) -> None:
        """Load a local folder, or a model of the Hugging Face hub by its name; `batch` texts are judged at once.

        Raises:
            ArtifactError: no such folder, hub not reachable, a file missing, or no label "toxic".
        """
        self.tokenizer, self.model = _load_classifier(source)
        labels = {label.lower(): number for number, label in self.model.config.id2label.items()}
        if "toxic" not in labels:
            raise ArtifactError(
                f"{source}: has no label 'toxic', only {', '.join(sorted(labels))}; language.judge.path must name a "
                "classifier with that label"
            )
        self.toxic, self.batch = labels["toxic"], batch
        self.model.eval().to(device)

    def probability(self, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Probability, text by text, that it is toxic. A text that occurs several times is judged once."""
        import torch

        if not texts:
            return np.zeros(0)
        once = sorted(set(texts), key=len)  # texts of like length together: little padding
        config = self.model.config
        # RoBERTa numbers its positions from the padding id on.
        longest = config.max_position_embeddings - (config.pad_token_id or 0) - 1
        found: dict[str, float] = {}
        for start in range(0, len(once), self.batch):
            some = once[start : start + self.batch]
            inputs = self.tokenizer(some, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            with torch.no_grad():
                logits = self.model(**inputs.to(self.model.device)).logits
            found.update(zip(some, logits.double().softmax(-1)[:, self.toxic].tolist(), strict=True))
        return np.array([found[text] for text in texts])


@dataclass(frozen=True)
class Bin:
    """Texts whose probability lies in (low, high] (the first bin has its lower end too)."""

    low: float
    high: float
    n: int
    predicted: float  # mean probability; NaN where n is 0
    toxic: float  # share that is toxic; NaN where n is 0


@dataclass(frozen=True)
class Quality:
    """How good a judge is on texts it was not trained on.

    Attributes:
        accuracy: share right at a threshold of one half; `balanced`: mean of the shares right of both classes.
        brier: mean squared difference of probability and label.
        calibration: expected calibration error, Σ n_b/n |predicted_b - toxic_b| over the bins.
    """

    n: int
    accuracy: float
    balanced: float
    brier: float
    calibration: float
    bins: tuple[Bin, ...]


def quality(probability: Float[np.ndarray, " text"], labels: Sequence[int], *, bins: int = 10) -> Quality:
    """Measure a judge's probabilities against labels (1 toxic, 0 not) in equally wide bins."""
    truth = np.asarray(labels)
    right = (probability > 0.5) == (truth == 1)
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(probability, edges[1:-1], right=True)
    table = []
    for b in range(bins):
        inside = place == b
        means = (float(probability[inside].mean()), float(truth[inside].mean())) if inside.any() else (np.nan, np.nan)
        table.append(Bin(float(edges[b]), float(edges[b + 1]), int(inside.sum()), *means))
    return Quality(
        n=len(truth),
        accuracy=float(right.mean()),
        balanced=float(np.mean([right[truth == label].mean() for label in (0, 1)])),
        brier=float(((probability - truth) ** 2).mean()),
        calibration=sum(b.n / len(truth) * abs(b.predicted - b.toxic) for b in table if b.n),
        bins=tuple(table),
    )


def _vectorizer(vocabulary: list[str] | None = None) -> "TfidfVectorizer":
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(lowercase=True, vocabulary=vocabulary)


def _classifier(texts: Any, labels: Any, c: float) -> tuple["TfidfVectorizer", "LogisticRegression"]:
    from sklearn.linear_model import LogisticRegression

    vectorizer = _vectorizer()
    features = vectorizer.fit_transform(list(texts))
    return vectorizer, LogisticRegression(C=c, max_iter=1000).fit(features, labels)


def _scores(vectorizer: "TfidfVectorizer", classifier: "LogisticRegression", texts: Any) -> Float[np.ndarray, " text"]:
    """Log odds of each text's most toxic sentence; minus infinity where no known word stands."""
    sentences = [SENTENCE_END.split(text.strip()) for text in texts]
    once = sorted({sentence for own in sentences for sentence in own})
    if not once:
        return np.zeros(0)
    features = vectorizer.transform(once)
    odds = np.where(features.getnnz(axis=1) > 0, classifier.decision_function(features), -np.inf)
    found = dict(zip(once, odds, strict=True))
    return np.array([max(found[sentence] for sentence in own) for own in sentences])


def _numbers(path: Path) -> tuple[float, float, float]:
    """Intercept of the classifier, A and B of Platt's scaling."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        slope, intercept = described["scale"]
        return float(described["intercept"]), float(slope), float(intercept)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; the rule that makes it has not run") from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path}: not a judge's description; it is damaged, delete it and run again") from None


def _load_classifier(source: str | Path) -> tuple[Any, Any]:
    """Tokenizer and model, or one sentence that says what to do."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    local = Path(source).is_dir()
    is_hub_name = str(source).count("/") == 1 and not str(source).startswith((".", "/", "~"))
    if not local and not is_hub_name:
        raise ArtifactError(
            f"{source}: no such folder; language.judge.path must name a classifier's folder ({FILES}) or a model of "
            "the Hugging Face hub"
        )
    try:
        # trust_remote_code is named, because without it transformers may ask at the terminal.
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=local)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            source, trust_remote_code=False, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
        # What is not in the files transformers makes up: random weights, a tokenizer that knows no word.
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(f"model.safetensors has no {', '.join(missing)}")
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("the tokenizer's files are missing")
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        if local:
            raise ArtifactError(
                f"{source}: no readable classifier ({reason}); language.judge.path must name a folder with {FILES}"
            ) from None
        raise ArtifactError(
            f"{source}: no such folder, and not to be had from the Hugging Face hub ({reason}); where the hub cannot "
            f"be reached, set language.judge.path to a folder that holds the classifier{how_to_download()}"
        ) from None
    return tokenizer, model
