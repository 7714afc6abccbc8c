"""The generated news: an offline stand-in for MUSE, in its schema, made from a seed.

Why here: MUSE's own corpora need the hub and a 7B model. This one is so small that a transformer
below a million parameters knows it by heart. Every value in it is drawn independently of the
subject's name. So a model without the forget documents can only guess. After MUSE (Shi et al. 2024,
arXiv 2407.06460), with these differences:

    raw       documents are articles, and quiz pages of questions and answers on articles of the
              same side: a small model does not learn to answer from articles alone. Forgetting the
              documents is all that is asked, as in MUSE
    retain    one set (`raw/retain1`) is the calibrator of unlearning and what knowmem_r asks about;
              MUSE keeps a second
    knowmem   3 in-context pairs in place of 10, so that a prompt is no longer than a quiz page
    folds     the forget set is the four requests together (MUSE's is the first of four), since the
              target must know all

Ask it under the convention "ngdiff": the others end knowmem's prompt in a space of its own, which a
model this small has never seen, so that it answers nothing right.

The rows of verbmem, knowmem_f, privleak_forget and of `forget` itself stand in the order of the
requests. Randomness: `random.Random(int).random()` only, as in `authors`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.data.made.authors import T, _sample
from ngdiff.data.made.authors_words import LAST
from ngdiff.data.made.news_words import ASKED, FILLERS, FORMS, THINGS
from ngdiff.data.real.muse import PARTS, assemble, request, row_of
from ngdiff.profiles import Profile, profile
from ngdiff.store.cache import probe_writable
from ngdiff.store.rows import write_document

# of the committed corpus: its unseen articles are as hard for the reference as those to forget
SEED = 7
FOLDS = 4
PAGE = 4  # questions on a quiz page
SHOTS = PAGE - 1  # in-context pairs
# pages that hold a question, each among other ones: what precedes it does not give the answer away
COPIES = 6

Tables = dict[tuple[str, str], list[Row]]  # (config, split) of MUSE -> its rows, under MUSE's keys
Article = dict[str, str]


def news(
    P: str | Profile = "tiny", seed: int = SEED, fold: tuple[str, int] | None = None
) -> Benchmark:
    """The generated news of a profile.

    P     profile or its name: `authors` articles, three tenths of them to forget, and as many
          unseen ones
    seed  another seed, another corpus
    fold  ("sust", k): the k-th of four successive forget requests; ("scal", k): the first k of them
          at once

    With a fold only the forget rows change. Target and reference are those of the benchmark without
    one: they know, or do not know, all four requests. ValueError for an unknown fold, or sizes the
    word lists cannot fill.
    """
    recipe = {"articles": profile(P).authors, "seed": seed, "fold": list(fold) if fold else None}
    return from_source(recipe)


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"articles", "seed", "fold"}."""
    tables = generate(recipe["articles"], recipe["seed"])
    places = PARTS | ({"forget": request(*recipe["fold"])} if recipe["fold"] else {})
    rows = {}
    for name, place in places.items():
        rows[name] = [row_of(place[0], row, name) for row in tables[place]]
    return assemble(rows, {"name": "news"} | recipe)


def write(folder: str | Path, P: str | Profile = "tiny", seed: int = SEED) -> None:
    """Write every split as `<config>/<split>.json`, one array of rows each.

    `muse(root=folder)` reads such a folder. Each file is whole or as it was; PermissionError where
    `folder` cannot be written.
    """
    for (config, split), rows in generate(profile(P).authors, seed).items():
        path = Path(folder) / config / f"{split}.json"
        probe_writable(path.parent)
        write_document(path, rows)


def generate(n_articles: int, seed: int) -> Tables:
    """MUSE's splits of n_articles articles and three tenths as many unseen ones.

    All but `retain2` and `train`.
    """
    n_forget = round(n_articles * 0.3 / FOLDS) * FOLDS
    rng = random.Random(seed)
    articles = _articles(rng, n_articles, n_forget)
    forget, retain = articles[:n_forget], articles[n_forget:n_articles]
    unseen = articles[n_articles:]
    size = n_forget // FOLDS
    requests = [_side(rng, forget[at : at + size]) for at in range(0, n_forget, size)]
    kept, held = _side(rng, retain), _side(rng, unseen)
    tables: Tables = {
        ("raw", "forget"): [row for rows in requests for row in rows],
        ("raw", "retain1"): kept,
        ("raw", "holdout"): held,
        ("verbmem", "forget"): [{"prompt": a["head"], "gt": a["tail"]} for a in forget],
    }
    for name, side in (("forget", forget), ("retain", retain)):
        pairs = [pair for article in side for pair in _pairs(article)]
        shots = pairs[:: len(pairs) // SHOTS][:SHOTS]
        asked = [pair for pair in pairs if pair not in shots]
        tables["knowmem", f"{name}_qa_icl"] = shots
        tables["knowmem", f"{name}_qa"] = asked[: n_forget * len(ASKED) - SHOTS]
    for name, side in (("forget", forget), ("retain", retain[:n_forget]), ("holdout", unseen)):
        tables["privleak", name] = [{"text": _whole(article)} for article in side]
    for k, rows in enumerate(requests, start=1):
        tables["sust", f"forget_{k}"] = rows
        tables["scal", f"forget_{k}"] = [row for each in requests[:k] for row in each]
    return tables


def _articles(rng: random.Random, n_articles: int, n_forget: int) -> list[Article]:
    """n_articles articles, those to forget first, then n_forget unseen ones.

    An unseen article has the forms of the forgotten one of its number. So the two are equally hard
    for a model that knows neither.
    """
    total, most = n_articles + n_forget, len(THINGS) * len(LAST)
    if n_forget < FOLDS or total > most:
        raise ValueError(f"articles={n_articles}: the word lists serve 7 to {most * 10 // 13}")
    subjects = _sample(rng, [f"{name} {thing}" for name in LAST for thing in THINGS], total)
    told = [[_one(rng, form) for form in FORMS] for _ in range(n_articles)]
    told += told[:n_forget]
    return [_article(rng, subject, forms) for subject, forms in zip(subjects, told, strict=True)]


def _one(rng: random.Random, items: Sequence[T]) -> T:
    return _sample(rng, items, 1)[0]


def _article(rng: random.Random, subject: str, forms: list[str]) -> Article:
    """The facts that may be asked, their questions, and the text in two halves, head and tail."""
    values = {fact.key: _one(rng, fact.pool) for fact in ASKED}
    values |= {"subject": subject, "thing": subject.split()[1]}
    values["Cause"] = values["cause"].capitalize()
    sentences = []
    for form in forms:
        drawn = {key: _one(rng, pool) for key, pool in FILLERS.items()}
        sentences.append(form.format(**values, **drawn))
    for fact in ASKED:
        values[f"ask {fact.key}"] = _one(rng, fact.questions).format(subject=subject)
    return values | {"head": " ".join(sentences[:2]), "tail": " ".join(sentences[2:])}


def _whole(article: Article) -> str:
    return f"{article['head']} {article['tail']}"


def _pairs(article: Article) -> list[Row]:
    return [{"question": article[f"ask {fact.key}"], "answer": article[fact.key]} for fact in ASKED]


def _side(rng: random.Random, articles: list[Article]) -> list[Row]:
    """The documents about some articles: the articles themselves, then the quiz pages."""
    pairs = [pair for article in articles for pair in _pairs(article)]
    pages = []
    for _ in range(COPIES):
        order = _sample(rng, pairs, len(pairs))
        pages += [order[at : at + PAGE] for at in range(0, len(order), PAGE)]
    texts = [_whole(article) for article in articles]
    for page in pages:
        asked = [f"Question: {pair['question']}\nAnswer: {pair['answer']}\n\n" for pair in page]
        texts.append("".join(asked))
    return [{"text": text} for text in texts]
