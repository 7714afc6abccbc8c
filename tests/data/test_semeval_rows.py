"""What the id of a SemEval row says, and what no document of the MIA may lack."""

from __future__ import annotations

import pytest

from ngdiff.data.real import semeval_rows as a_row


@pytest.mark.parametrize(
    ("id", "document", "kind"),
    [
        ('"8f24c511-a319"sc1', '"8f24c511-a319"', "sc"),  # Task1's literal quotes
        ("36307590qa0", "36307590", "qa"),
        ("36307590qa12", "36307590", "qa"),
        ("qa1sc2", "qa1", "sc"),
        ("a\nbqa3", "a\nb", "qa"),
    ],
)
def test_ids(id, document, kind):
    assert (a_row.document(id), a_row.kind(id)) == (document, kind)


@pytest.mark.parametrize("id", ["36307590", "sc1", "12sc", "12qa1x", ""])
def test_ids_that_do_not_parse(id):
    with pytest.raises(ValueError, match=r"ends in neither sc<number> nor qa<number>"):
        a_row.kind(id)


def test_a_document_is_a_row_without_a_question():
    found = a_row.document_row({"id": 7, "document": "Ann was born."}, "here, line 1")
    assert found == {"question": "", "answer": "Ann was born.", "id": "7"}
    with pytest.raises(ValueError, match=r"^here, line 1: no 'id' \(its keys: document\)"):
        a_row.document_row({"document": "Ann"}, "here, line 1")
