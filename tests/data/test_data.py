"""The generated benchmark: schema, shares, disjointness, wrong answers, bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ngdiff.data import authors
from ngdiff.data.benchmark import siblings
from ngdiff.data.made.authors import SEED, SPLITS, generate, write
from ngdiff.data.made.authors_forms import ATTRIBUTES
from ngdiff.data.made.authors_words import FIRST, LAST

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "data" / "authors"

QA = {"question", "answer"}
PERTURBED = QA | {"paraphrased_question", "paraphrased_answer", "perturbed_answer"}
OPTIONS = QA | {"option1", "option2", "option3", "option4"}
CONFIGS = {"full": (960, QA), "retain_perturbed": (96, PERTURBED)}
for share, n in (("01", 12), ("05", 48), ("10", 96)):
    CONFIGS |= {f"forget{share}": (n, QA), f"retain{100 - int(share)}": (960 - n, QA)}
    CONFIGS |= {f"holdout{share}": (n, QA), f"forget{share}_perturbed": (n, PERTURBED)}
for facts in ("real_authors", "world_facts"):
    CONFIGS |= {facts: (48, OPTIONS), f"{facts}_perturbed": (48, QA | {"perturbed_answer"})}


@pytest.fixture(scope="module")
def tables():
    return generate(80, 12, SEED)


def names_in(rows):
    """Full names found in the answers: one first and one last name of the pools."""
    pattern = re.compile(rf"\b(?:{'|'.join(FIRST)}) (?:{'|'.join(LAST)})\b")
    found = [pattern.findall(row["answer"]) for row in rows]
    assert all(len(names) == 1 for names in found)
    return [names[0] for names in found]


# --- the generated tables -------------------------------------------------------------------------


def test_configs_rows_and_keys_are_tofus(tables):
    assert {config: (len(rows), set(rows[0])) for config, rows in tables.items()} == CONFIGS
    for rows in tables.values():
        assert all(row.keys() == rows[0].keys() for row in rows)


@pytest.mark.parametrize("split", SPLITS)
def test_forget_is_the_end_of_full_and_retain_the_rest(tables, split):
    retain, holdout = siblings(split)
    full, forget = tables["full"], tables[split]
    assert full == tables[retain] + forget
    assert tables[holdout] == tables["holdout10"][-len(forget) :]
    for config, plain in ((f"{split}_perturbed", forget), ("retain_perturbed", tables[retain])):
        assert all(
            (p["question"], p["answer"]) == (r["question"], r["answer"])
            for p, r in zip(tables[config], plain, strict=False)
        )


def test_each_author_has_twelve_facts_and_a_name_of_its_own(tables):
    for config, n in (("full", 80), ("holdout10", 8)):
        names = names_in(tables[config])
        assert all(len(set(names[i : i + 12])) == 1 for i in range(0, 12 * n, 12))
        assert len(set(names)) == n


def test_forget_retain_holdout_share_no_name_and_no_question(tables):
    parts = [tables["forget10"], tables["retain90"], tables["holdout10"]]
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            assert not set(names_in(a)) & set(names_in(b))
            assert not {row["question"] for row in a} & {row["question"] for row in b}


def test_no_row_repeats_and_every_answer_is_new(tables):
    rows = tables["full"] + tables["holdout10"]
    assert (
        len({row["question"] for row in rows}) == len({row["answer"] for row in rows}) == len(rows)
    )


def test_holdout_names_are_recombined_from_the_names_of_training(tables):
    known = {part for name in names_in(tables["full"]) for part in name.split()}
    seen = [part in known for name in set(names_in(tables["holdout10"])) for part in name.split()]
    assert sum(seen) >= 0.6 * len(seen)


@pytest.mark.parametrize("config", ["forget10_perturbed", "retain_perturbed"])
def test_wrong_answers_differ_from_the_paraphrase_in_the_value_only(tables, config):
    for i, row in enumerate(tables[config]):
        attribute, name = ATTRIBUTES[i % 12], names_in([row])[0]
        true, *wrong = [row["paraphrased_answer"], *row["perturbed_answer"]]
        assert len(wrong) == 5 and len({true, *wrong}) == 6
        forms = [form.format(name=name, value="(.+)") for form in attribute.answers]
        form = next(form for form in forms if re.fullmatch(form, true))
        values = [re.fullmatch(form, text).group(1) for text in (true, *wrong)]
        assert set(values) <= set(attribute.pool)
        assert values[0] in row["answer"] and row["answer"] != true
        assert (
            row["paraphrased_question"] != row["question"] and name in row["paraphrased_question"]
        )


def test_paraphrased_forms_are_main_forms_of_other_authors(tables):
    for k, attribute in enumerate(ATTRIBUTES):
        rows = tables["full"][k::12]
        names = names_in(rows)
        for form in attribute.answers:
            used = sum(
                bool(re.fullmatch(form.format(name=name, value=".+"), row["answer"]))
                for name, row in zip(names, rows, strict=True)
            )
            assert used >= 12  # of 80, three forms


def test_values_are_spread_over_their_pools(tables):
    assert all(len(attribute.pool) >= 20 for attribute in ATTRIBUTES)
    for k, attribute in enumerate(ATTRIBUTES):
        text = [row["answer"] for row in tables["full"][k::12]]
        counts = [sum(value in answer for answer in text) for value in attribute.pool]
        assert max(counts) <= 12  # no value is a good guess for 80 authors


@pytest.mark.parametrize("config", ["real_authors", "world_facts"])
def test_facts_have_four_options_and_three_wrong_answers(tables, config):
    rows, perturbed = tables[config], tables[f"{config}_perturbed"]
    places = set()
    for row, p in zip(rows, perturbed, strict=True):
        options = [row[f"option{k}"] for k in range(1, 5)]
        assert len(set(options)) == 4 and row["answer"] in options
        assert (
            set(options) == {p["answer"], *p["perturbed_answer"]}
            and len(p["perturbed_answer"]) == 3
        )
        assert (p["question"], p["answer"]) == (row["question"], row["answer"])
        places.add(options.index(row["answer"]))
    assert len({row["question"] for row in rows}) == len(rows)
    assert places == {0, 1, 2, 3}


def test_facts_are_pretrained_and_never_retained(tables):
    bench = authors()
    asked = {row["question"]: row["answer"] for row in bench.pretrain}
    assert len(bench.pretrain) == len(asked) == 192
    for row in tables["real_authors"] + tables["world_facts"]:
        assert asked[row["question"]] == row["answer"]
    assert not set(asked) & {row["question"] for row in tables["full"] + tables["holdout10"]}
    real = {word for row in tables["real_authors"] for word in row["answer"].split()}
    assert not real & {*FIRST, *LAST}


# --- bytes ----------------------------------------------------------------------------------------


def test_committed_folder_is_what_the_generator_writes(tmp_path):
    write(tmp_path, "tiny")
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in COMMITTED.iterdir()}
    assert made.keys() == committed.keys()
    differ = [name for name in made if made[name] != committed[name]]
    assert not differ, (
        "run: python -c \"from ngdiff.data.made.authors import write; write('data/authors')\""
    )
    assert (
        sum(map(len, committed.values())) < 1_500_000
        and max(map(len, committed.values())) < 500_000
    )


def test_a_killed_write_leaves_no_half_file(tmp_path, monkeypatch):
    def cut(path: Path, data: bytes) -> int:
        with open(path, "wb") as handle:
            handle.write(data[:10])
        raise KeyboardInterrupt

    (tmp_path / "forget01.json").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", cut)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "tiny")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("forget01.json", "old")
    ]


def test_committed_lines_are_the_rows(tables):
    for config, rows in tables.items():
        lines = (COMMITTED / f"{config}.json").read_text(encoding="ascii").splitlines()
        assert [json.loads(line) for line in lines] == rows


def test_same_seed_same_rows_other_seed_other_rows(tables):
    assert generate(80, 12, SEED) == tables
    other = generate(80, 12, 1)
    assert not {r["answer"] for r in other["full"]} & {r["answer"] for r in tables["full"][:120]}
    assert other["world_facts"] == tables["world_facts"]


def test_golden_row(tables):
    """The first row: so that a changed generator is seen even when the folder was rewritten with
    it.
    """
    assert tables["full"][0] == {
        "question": "In which city was Yusuf Norrby born?",
        "answer": "Durban is the city where Yusuf Norrby was born.",
    }


def test_committed_folder_loads_by_the_datasets_library(tables, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(
        str(COMMITTED), "forget10_perturbed", split="train", cache_dir=str(tmp_path)
    )
    assert rows.to_list() == tables["forget10_perturbed"]
    default = datasets.load_dataset(str(COMMITTED), split="train", cache_dir=str(tmp_path))
    assert len(default) == 960
