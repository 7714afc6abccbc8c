"""MUSE's loader on folders and a pretended hub, its documents in pieces, and the generated news in
its schema.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngdiff.data import load, muse, news
from ngdiff.data.made.news import generate, write
from ngdiff.data.made.news_words import ASKED, FILLERS, FORMS
from ngdiff.data.real.muse import HUB, PARTS, Parts, cut
from ngdiff.lm.model import BARE
from ngdiff.lm.tokens import train_tokenizer
from ngdiff.profiles import profile


def put(root, place, content) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        path.write_text(
            content if isinstance(content, str) else json.dumps(content, ensure_ascii=False),
            "utf-8",
        )


def documents(bench, config) -> list[str]:
    assert all(row["question"] == "" for row in bench.rows(config))
    return [row["answer"] for row in bench.rows(config)]


# The generated news -------------------------------------------------------------------------------


def test_the_news_has_muses_parts_and_is_the_same_everywhere():
    bench = news()
    sizes = {config: len(rows) for config, rows in bench.configs.items()}
    assert list(sizes) == list(PARTS) and bench.name == "muse" and bench.split == "forget"
    assert sizes == {
        **{"forget": 144, "retain": 308, "holdout": 132, "verbmem": 24},
        **{"knowmem_f": 69, "knowmem_f_icl": 3, "knowmem_r": 69, "knowmem_r_icl": 3},
        **{"privleak_forget": 24, "privleak_retain": 24, "privleak_holdout": 24},
    }
    # a changed corpus is a changed experiment: committed results are compared with runs on these
    # rows
    assert bench.fingerprint[:16] == "9da0dcb302bcad7f"
    assert news(seed=1).fingerprint != bench.fingerprint
    assert load(json.loads(json.dumps(bench.source))).fingerprint == bench.fingerprint


def test_what_is_asked_is_in_the_documents_of_its_side_only():
    bench = news()
    everything = {
        side: "\n".join(documents(bench, side)) for side in ("forget", "retain", "holdout")
    }
    for row in bench.rows("verbmem"):
        assert f"{row['question']} {row['answer']}" in documents(bench, "forget")
    for side, config in (("forget", "knowmem_f"), ("retain", "knowmem_r")):
        for row in bench.rows(config) + bench.rows(f"{config}_icl"):
            assert f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" in everything[side]
            others = {name: text for name, text in everything.items() if name != side}
            assert all(row["question"] not in text for text in others.values())
        assert not [row for row in bench.rows(f"{config}_icl") if row in bench.rows(config)]
        assert set(documents(bench, f"privleak_{side}")) <= set(documents(bench, side))
    assert set(documents(bench, "privleak_holdout")) <= set(documents(bench, "holdout"))


def test_unseen_articles_are_told_in_the_forms_of_the_forgotten():
    patterns = [
        re.sub(r"\\{\w+\\}", r"[\\w ]+", re.escape(form)) for forms in FORMS for form in forms
    ]

    def told(text: str) -> list[str]:
        return [pattern for pattern in patterns if re.search(pattern, text)]

    bench = news()
    for a, b in zip(
        documents(bench, "privleak_forget"), documents(bench, "privleak_holdout"), strict=True
    ):
        assert a != b and told(a) == told(b) and len(told(a)) == len(FORMS)


def test_values_of_a_pool_share_no_word_and_forms_no_sentence():
    for pool in (*FILLERS.values(), *(fact.pool for fact in ASKED)):
        words = Counter(word for value in pool for word in value.lower().split())
        assert words.most_common(1)[0][1] == 1 and len(pool) == len(set(pool))
    forms = [form for forms in FORMS for form in forms]
    assert len(set(forms)) == len(forms)


def test_requests_are_disjoint_and_sets_grow():
    bench, requests = news(), [news(fold=("sust", k)) for k in (1, 2, 3, 4)]
    texts = [documents(part, "forget") for part in requests]
    assert [text for part in texts for text in part] == documents(bench, "forget")
    for k in (1, 2, 3, 4):
        grown = news(fold=("scal", k))
        assert documents(grown, "forget") == [text for part in texts[:k] for text in part]
        assert grown.retain == bench.retain and grown.rows("verbmem") == bench.rows("verbmem")
        assert load(grown.source).fingerprint == grown.fingerprint
    order = [documents(bench, "forget").index(text) for text in documents(bench, "privleak_forget")]
    assert order == sorted(order), "privleak stands in the order of the requests"


@pytest.mark.parametrize("fold", [("sust", 0), ("sust", 5), ("scale", 1)])
def test_unknown_folds_are_refused(fold, tmp_path):
    with pytest.raises(ValueError, match=r"a fold is \('scal' or 'sust', 1 to 4\)"):
        news(fold=fold)
    with pytest.raises(ValueError, match="a fold is"):
        muse(root=tmp_path, fold=fold)


def test_sizes_follow_the_profile():
    tables = generate(7, 0)
    assert len(tables["verbmem", "forget"]) == 4 and len(tables["privleak", "holdout"]) == 4
    assert len(news("small").rows("verbmem")) == 60
    for n in (3, 1100):
        with pytest.raises(ValueError, match=f"articles={n}: the word lists serve 7 to 1070"):
            generate(n, 0)


# Folders ------------------------------------------------------------------------------------------


def test_a_written_news_folder_loads_as_muse(tmp_path):
    write(tmp_path, "tiny")
    bench = muse("paper", root=tmp_path)
    assert dict(bench.configs) == dict(news().configs) and bench.fingerprint == news().fingerprint
    assert load(bench.source) == bench
    assert muse("paper", root=tmp_path, fold=("sust", 3)).forget == news(fold=("sust", 3)).forget
    assert len(muse("tiny", root=tmp_path).retain) == profile("tiny").retain_rows


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("forget.json", ["one é", "two\u2028lines"]),
        ("forget.json", [{"text": "one é"}, {"text": "two\u2028lines", "source": 3}]),
        ("forget.jsonl", '"one é"\n{"text": "two\u2028lines"}\n'),
        ("forget.parquet", [{"text": "one é"}, {"text": "two\u2028lines"}]),
    ],
    ids=["strings", "objects", "lines", "parquet"],
)
def test_documents_are_read_from_every_kind_of_file(tmp_path, file, content):
    put(tmp_path, f"raw/{file}", content)
    put(tmp_path, "raw/retain1.txt", "one long\n\ntext")
    bench = muse(root=tmp_path)
    assert documents(bench, "forget") == ["one é", "two\u2028lines"]
    assert documents(bench, "retain") == ["one long\n\ntext"], "a text file is one document"


def test_shards_of_the_hub_are_joined_in_order(tmp_path):
    for k in (1, 0):
        put(tmp_path, f"raw/forget-0000{k}-of-00002.parquet", [{"text": f"part {k}"}])
    put(tmp_path, "raw/retain1-00000-of-00001.parquet", [{"text": "kept"}])
    put(
        tmp_path, "verbmem/forget-00000-of-00001.parquet", [{"prompt": "Once", "gt": "upon a time"}]
    )
    put(
        tmp_path,
        "knowmem/forget_qa_icl-00000-of-00001.parquet",
        [{"answer": "A", "question": "Q?"}],
    )
    bench = muse(root=tmp_path)
    assert documents(bench, "forget") == ["part 0", "part 1"]
    assert bench.rows("verbmem") == [{"question": "Once", "answer": "upon a time"}]
    assert (
        bench.rows("knowmem_f_icl") == [{"question": "Q?", "answer": "A"}]
        and "knowmem_f" not in bench.configs
    )


def test_parts_can_be_evaluated_and_not_unlearned(tmp_path):
    put(tmp_path, "knowmem/forget_qa.json", [{"question": "Who?", "answer": "Ann"}])
    bench = muse(root=tmp_path)
    assert (
        isinstance(bench, Parts)
        and list(bench.configs) == ["knowmem_f"]
        and len(bench.fingerprint) == 64
    )
    with pytest.raises(KeyError, match="muse has no config 'forget'; it has knowmem_f"):
        bench.forget  # noqa: B018


def test_a_retained_document_that_is_to_be_forgotten_is_not_retained(tmp_path):
    put(tmp_path, "raw/forget.json", ["a", "b"])
    put(tmp_path, "raw/retain1.json", ["b", "c"])
    assert documents(muse(root=tmp_path), "retain") == ["c"]


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        (
            "raw/forget.json",
            '[{"text": "a"},\n {"text": "b"',
            r"forget.json, line 2: not JSON .*: .* cut short",
        ),
        (
            "raw/forget.json",
            [{"text": "a"}, {"txt": "b"}],
            r"forget.json, line 1 \(element 1\): no 'text' \(its keys: txt\)",
        ),
        (
            "raw/forget.jsonl",
            '{"text": "a"}\n\n{"text": 3}\n',
            r"forget.jsonl, line 3 \(element 1\): 'text' is int",
        ),
        (
            "raw/retain1.json",
            [["a"]],
            "line 1 .element 0.: no object but list; a row of raw has text",
        ),
        ("raw/forget.json", '["\\ud83d"]', "half a character"),
        (
            "verbmem/forget.json",
            [{"prompt": "a", "answer": "b"}],
            r"verbmem/forget.json, line 1 .*: no 'gt'",
        ),
        ("verbmem/forget.json", ["a"], "no object but str; a row of verbmem has prompt, gt"),
        (
            "knowmem/retain_qa.parquet",
            [{"question": "a", "answer": 3}],
            r"row 1 \(element 0\): 'answer' is int",
        ),
        ("privleak/holdout-00000-of-00001.parquet", [{"document": "a"}], r"row 1 .*: no 'text'"),
    ],
)
def test_errors_name_file_and_row(tmp_path, place, content, message):
    put(tmp_path, "raw/forget.json", ["a"])
    put(tmp_path, "raw/retain1.json", ["b"])
    if place == "raw/forget.jsonl":
        (tmp_path / "raw/forget.json").unlink()
    put(tmp_path, place, content)
    with pytest.raises(ValueError, match=message):
        muse(root=tmp_path)


def test_an_empty_row_of_a_published_corpus_is_left_out_and_counted(tmp_path):
    put(tmp_path, "raw/forget.json", [{"text": "a"}, {"text": ""}, {"text": None}])
    put(tmp_path, "raw/retain1.json", ["b", " \n"])
    put(tmp_path, "knowmem/retain_qa.parquet", [{"question": "a", "answer": "b"}] * 2)
    with pytest.warns(UserWarning) as told:
        bench = muse(root=tmp_path)
    assert documents(bench, "forget") == ["a"] and documents(bench, "retain") == ["b"]
    said = [str(w.message) for w in told]
    assert len(said) == 2 and len(bench.rows("knowmem_r")) == 2
    assert "raw/forget: 2 rows are left out" in said[0] and "raw/retain1: 1 row is" in said[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl.gz", "parquet"])
def test_a_part_may_be_any_kind_of_table(tmp_path, kind):
    put(tmp_path, "raw/retain1.json", ["b"])
    put(tmp_path, "raw/forget.parquet", [{"text": "a, a"}])
    table = pq.read_table(tmp_path / "raw/forget.parquet").to_pylist()
    if kind != "parquet":
        (tmp_path / "raw/forget.parquet").unlink()
    if kind == "csv":
        put(tmp_path, "raw/forget.csv", 'text\n"a, a"\n')
    if kind == "jsonl.gz":
        packed = gzip.compress(json.dumps(table[0]).encode())
        (tmp_path / "raw/forget.jsonl.gz").write_bytes(packed)
    assert documents(muse(root=tmp_path), "forget") == ["a, a"]


def test_damaged_text_and_parquet_are_named(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/forget.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"forget.txt, line 1: not UTF-8"):
        muse(root=tmp_path)
    (tmp_path / "raw/forget.txt").unlink()
    (tmp_path / "raw/forget.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match="forget.parquet is not a whole parquet file"):
        muse(root=tmp_path)


def test_missing_things_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"no part of MUSE in .*: looked for raw/forget, raw/retain1, .*hf download",
    ):
        muse(root=tmp_path / "none")
    put(tmp_path, "raw/retain1.json", ["b"])
    with pytest.raises(FileNotFoundError, match=r"has no sust/forget_2 .*: fold \('sust', 2\)"):
        muse(root=tmp_path, fold=("sust", 2))
    with pytest.raises(
        ValueError, match="unknown corpus 'bbc' of MUSE; choose one of: news, books"
    ):
        muse(corpus="bbc")
    with pytest.raises(ValueError, match="only MUSE-News has folds"):
        muse(corpus="books", fold=("scal", 1))


# The hub ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", HUB)
def test_the_hubs_configs_and_splits(monkeypatch, corpus):
    asked, tables = [], generate(8, 0)

    def rows(repository, config, split, revision):
        asked.append((repository, config, split, revision))
        return tables[config, split]

    monkeypatch.setattr("ngdiff.data.sources.hub", rows)
    bench = muse("paper", corpus)
    assert asked == [(HUB[corpus], *place, "main") for place in PARTS.values()]
    assert documents(bench, "forget") == [row["text"] for row in tables["raw", "forget"]]
    assert bench.source == {
        "name": "muse",
        "corpus": corpus,
        "fold": None,
        "retain_rows": None,
        "root": None,
        "revision": "main",
    }
    asked.clear()
    if corpus == "news":
        muse("paper", corpus, fold=("scal", 2), revision="abc")
        assert (
            asked[0] == (HUB[corpus], "scal", "forget_2", "abc")
            and (HUB[corpus], "raw", "forget", "abc") not in asked
        )


def test_the_hub_out_of_reach_says_what_to_do(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        ConnectionError, match=r"config 'raw' \(forget\) of muse-bench/MUSE-News .* or pass root="
    ):
        muse()


# Pieces -------------------------------------------------------------------------------------------

LONG = [
    "The bridge of Łódź, 東京 and Ulm. " * 9 + "\n\n \n",
    "🙂🙃" * 30,
    "short",
    " leading\tand  double  spaces " * 8,
]


def tokenizer():
    return train_tokenizer([row["answer"] for row in news().forget] + LONG[:1], 400)


def length(tok, text) -> int:
    from ngdiff.lm.tokens import encode

    return len(encode(tok, BARE, "", text))


@pytest.mark.parametrize("most", [8, 9, 33, 10_000])
def test_pieces_join_back_and_fit(most):
    tok, bench = tokenizer(), news()
    rows = [{"question": "", "answer": text} for text in LONG]
    long = replace(bench, configs=dict(bench.configs) | {"holdout": rows})
    parts = cut(long, tok, most)
    assert "".join(documents(parts, "holdout")) == "".join(LONG)
    for config in ("forget", "retain", "holdout"):
        assert all(length(tok, text) <= most for text in documents(parts, config))
        assert all(text.strip() for text in documents(parts, config))
    if most == 10_000:
        assert documents(parts, "holdout") == LONG
    for config in ("verbmem", "knowmem_f", "privleak_forget"):
        assert parts.rows(config) == bench.rows(config), "evaluated as they are"


def test_pieces_are_as_long_as_they_may_be():
    tok, text = tokenizer(), "The bridge shut on Monday, and nobody knows why. " * 40
    bench = replace(
        news(), configs=dict(news().configs) | {"holdout": [{"question": "", "answer": text}]}
    )
    pieces = documents(cut(bench, tok, 64), "holdout")
    assert all(length(tok, piece) >= 60 for piece in pieces[:-1])


def test_a_piece_that_is_both_is_forgotten():
    tok = tokenizer()
    rows = {
        "forget": "the same old words the same old words",
        "retain": "the same old words and others",
    }
    configs = {name: [{"question": "", "answer": text}] for name, text in rows.items()}
    most = length(tok, "the same old words")
    parts = cut(replace(news(), configs=configs), tok, most)
    assert not set(documents(parts, "forget")) & set(documents(parts, "retain"))
    assert documents(parts, "forget")[0] == "the same old words" and parts.retain


def test_what_cannot_be_cut_is_named():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="Slow does not say where tokens begin"):
        cut(news(), Slow(), 32)
    with pytest.raises(
        ValueError,
        match=r"muse: holdout, row 0: no piece of at most 3 tokens begins at character 0",
    ):
        rows = [{"question": "", "answer": "🙂🙂"}]
        configs = dict(news().configs) | {
            "holdout": rows,
            "forget": [{"question": "", "answer": "a"}],
        }
        cut(
            replace(news(), configs=configs | {"retain": [{"question": "", "answer": "b"}]}),
            tokenizer(),
            3,
        )
    with pytest.raises(ValueError, match="was cut to 50 tokens: load it without"):
        load(cut(news(), tokenizer(), 50).source)
