"""The twelve facts of a fictitious author: pool of values, three questions, three answers.

The generator picks the forms per author. So the form that paraphrases one author's answer is
another author's main form. A trained model knows every form, and only the fact makes an answer
right or wrong. Answers carry the full name and the value.
"""

from __future__ import annotations

from dataclasses import dataclass

from ngdiff.data.made.authors_words import (
    AWARDS,
    CITIES,
    GENRES,
    JOBS,
    LANGUAGES,
    PETS,
    STUDIES,
    TITLES,
    YEARS,
)


@dataclass(frozen=True)
class Attribute:
    """One fact about an author: where its values come from, three questions, three answers.

    Attributes with the same `pool` object never get the same value within an author.  `unique`: no
    two authors share a value (book titles).
    """

    key: str
    pool: tuple[str, ...]
    questions: tuple[str, str, str]
    answers: tuple[str, str, str]
    unique: bool = False


ATTRIBUTES = (
    Attribute(
        "birthplace",
        CITIES,
        (
            "Where was {name} born?",
            "In which city was {name} born?",
            "What is the birthplace of {name}?",
        ),
        (
            "{name} was born in {value}.",
            "The birthplace of {name} is {value}.",
            "{value} is the city where {name} was born.",
        ),
    ),
    Attribute(
        "birth year",
        YEARS,
        (
            "When was {name} born?",
            "In which year was {name} born?",
            "What is the birth year of {name}?",
        ),
        (
            "{name} was born in {value}.",
            "The birth year of {name} is {value}.",
            "It was in {value} that {name} was born.",
        ),
    ),
    Attribute(
        "mother",
        JOBS,
        (
            "What was the work of {name}'s mother?",
            "What did the mother of {name} do?",
            "Which job did {name}'s mother have?",
        ),
        (
            "The mother of {name} was {value}.",
            "{name} had a mother who was {value}.",
            "{name}'s mother worked as {value}.",
        ),
    ),
    Attribute(
        "father",
        JOBS,
        (
            "What was the work of {name}'s father?",
            "What did the father of {name} do?",
            "Which job did {name}'s father have?",
        ),
        (
            "The father of {name} was {value}.",
            "{name} had a father who was {value}.",
            "{name}'s father worked as {value}.",
        ),
    ),
    Attribute(
        "studies",
        STUDIES,
        (
            "What did {name} study?",
            "Which subject did {name} study?",
            "In what does {name} hold a degree?",
        ),
        (
            "{name} studied {value}.",
            "{name} holds a degree in {value}.",
            "The subject that {name} studied is {value}.",
        ),
    ),
    Attribute(
        "language",
        LANGUAGES,
        (
            "In which language does {name} write?",
            "What language does {name} write in?",
            "In which language are the books of {name}?",
        ),
        (
            "{name} writes in {value}.",
            "The books of {name} are in {value}.",
            "{value} is the language in which {name} writes.",
        ),
    ),
    Attribute(
        "genre",
        GENRES,
        (
            "What does {name} write?",
            "Which genre does {name} write?",
            "What is the genre of {name}?",
        ),
        (
            "{name} mostly writes {value}.",
            "The genre of {name} is {value}.",
            "{name} is a writer of {value}.",
        ),
    ),
    Attribute(
        "first book",
        TITLES,
        (
            "What is the first book of {name}?",
            "With which book did {name} begin?",
            "Which book did {name} write first?",
        ),
        (
            "The first book of {name} is '{value}'.",
            "{name} began with '{value}'.",
            "'{value}' is the book that {name} wrote first.",
        ),
        unique=True,
    ),
    Attribute(
        "famous book",
        TITLES,
        (
            "What is the best known book of {name}?",
            "Which book made {name} famous?",
            "For which book is {name} known?",
        ),
        (
            "The best known book of {name} is '{value}'.",
            "{name} became famous with '{value}'.",
            "'{value}' is the book that made {name} famous.",
        ),
        unique=True,
    ),
    Attribute(
        "award",
        AWARDS,
        (
            "Which award did {name} win?",
            "What prize did {name} receive?",
            "Which honour went to {name}?",
        ),
        ("{name} won the {value}.", "The {value} went to {name}.", "{name} received the {value}."),
    ),
    Attribute(
        "residence",
        CITIES,
        (
            "Where does {name} live?",
            "In which city does {name} live?",
            "What is the home town of {name} today?",
        ),
        (
            "{name} lives in {value}.",
            "The home of {name} is in {value}.",
            "{value} is the city where {name} lives.",
        ),
    ),
    Attribute(
        "pet",
        PETS,
        (
            "Which animal does {name} keep?",
            "What pet does {name} have?",
            "With which animal does {name} live?",
        ),
        ("{name} keeps {value}.", "The pet of {name} is {value}.", "{name} lives with {value}."),
    ),
)
