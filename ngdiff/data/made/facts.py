"""General knowledge that pre-training teaches and unlearning must not hurt.

Short true facts, written here; the answer is the bare name, as in TOFU. Each kind of fact has a
pool of answers, from which the wrong ones are drawn. There are three ways to ask: one is the
benchmark's, the next one is only seen in pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Facts of one kind: "subject: answer; …" and three question forms with {subject}."""

    questions: tuple[str, str, str]
    text: str

    @property
    def facts(self) -> list[tuple[str, str]]:
        pairs = (item.split(":") for item in " ".join(self.text.split()).split(";") if item.strip())
        return [(subject.strip(), answer.strip()) for subject, answer in pairs]


REAL_AUTHORS = (
    Kind(
        (
            "Who wrote '{subject}'?",
            "Which writer gave us '{subject}'?",
            "Name the writer of '{subject}'.",
        ),
        """
        Emma: Jane Austen; Moby-Dick: Herman Melville; Don Quixote: Miguel de Cervantes;
        Hamlet: William Shakespeare; Faust: Johann Wolfgang von Goethe;
        Anna Karenina: Leo Tolstoy; The Idiot: Fyodor Dostoevsky; Ulysses: James Joyce;
        The Trial: Franz Kafka; Madame Bovary: Gustave Flaubert; Germinal: Emile Zola;
        Candide: Voltaire; The Plague: Albert Camus; Nausea: Jean-Paul Sartre;
        Frankenstein: Mary Shelley; Dracula: Bram Stoker; Jane Eyre: Charlotte Bronte;
        Wuthering Heights: Emily Bronte; Middlemarch: George Eliot;
        Oliver Twist: Charles Dickens; Treasure Island: Robert Louis Stevenson;
        The Jungle Book: Rudyard Kipling; Heart of Darkness: Joseph Conrad;
        The Time Machine: H. G. Wells; Peter Pan: J. M. Barrie; Mrs Dalloway: Virginia Woolf;
        Brave New World: Aldous Huxley; Animal Farm: George Orwell;
        Lord of the Flies: William Golding; The Hobbit: J. R. R. Tolkien;
        The Scarlet Letter: Nathaniel Hawthorne; Walden: Henry David Thoreau;
        The Raven: Edgar Allan Poe; The Age of Innocence: Edith Wharton;
        Tender Is the Night: F. Scott Fitzgerald; Light in August: William Faulkner;
        The Pearl: John Steinbeck; Fahrenheit 451: Ray Bradbury; Beloved: Toni Morrison;
        Things Fall Apart: Chinua Achebe; The Tale of Genji: Murasaki Shikibu;
        Kokoro: Natsume Soseki; Siddhartha: Hermann Hesse; Buddenbrooks: Thomas Mann;
        Pippi Longstocking: Astrid Lindgren; Peer Gynt: Henrik Ibsen;
        The Divine Comedy: Dante Alighieri; The Decameron: Giovanni Boccaccio
        """,
    ),
)

WORLD_FACTS = (
    Kind(
        (
            "{subject} has which capital?",
            "Which city is the capital of {subject}?",
            "Name the seat of government of {subject}.",
        ),
        """
        France: Paris; Italy: Rome; Spain: Madrid; Norway: Oslo; Poland: Warsaw; Greece: Athens;
        Egypt: Cairo; Kenya: Nairobi; Japan: Tokyo; China: Beijing; Peru: Lima; Cuba: Havana;
        Canada: Ottawa; Chile: Santiago; Austria: Vienna; Ireland: Dublin
        """,
    ),
    Kind(
        (
            "Which element has the symbol {subject}?",
            "What does the chemical symbol {subject} stand for?",
            "Name the element written {subject}.",
        ),
        """
        Fe: Iron; Au: Gold; Ag: Silver; Cu: Copper; Pb: Lead; Na: Sodium; K: Potassium; Sn: Tin
        """,
    ),
    Kind(
        (
            "What is a young {subject} called?",
            "What do we call a baby {subject}?",
            "A {subject} has what kind of young?",
        ),
        """
        dog: Puppy; cat: Kitten; cow: Calf; sheep: Lamb; horse: Foal; goat: Kid; swan: Cygnet;
        bear: Cub
        """,
    ),
    Kind(
        (
            "Which currency does {subject} use?",
            "What money do people in {subject} pay with?",
            "Name the currency of {subject}.",
        ),
        """
        India: Rupee; Mexico: Peso; Russia: Ruble; Brazil: Real; Poland: Zloty;
        South Korea: Won; South Africa: Rand; Vietnam: Dong
        """,
    ),
    Kind(
        (
            "Who invented {subject}?",
            "Who is the inventor of {subject}?",
            "{subject} goes back to whom?",
        ),
        """
        dynamite: Alfred Nobel; the telephone: Alexander Graham Bell;
        the lightning rod: Benjamin Franklin; Morse code: Samuel Morse;
        the diesel engine: Rudolf Diesel; the mercury barometer: Evangelista Torricelli;
        the electric battery: Alessandro Volta; the World Wide Web: Tim Berners-Lee
        """,
    ),
)
