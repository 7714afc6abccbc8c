"""Words and forms of the generated dossiers, all written here.

A form is a text, in which " | " cuts the given part from the part to be completed, and its
questions with their answers. {names} are filled by `dossiers`: a key without its digits names a
pool, and keys of one pool differ within a document.
"""

from __future__ import annotations

from dataclasses import dataclass

from ngdiff.data.made.authors_words import (
    AWARDS,
    CITIES,
    FIRST,
    JOBS,
    LANGUAGES,
    PETS,
    STUDIES,
    _words,
)

THINGS = _words("""
    a brass sundial, a cracked violin, a jar of saffron, a wooden leg, a paper kite,
    a glass eye, a bundle of maps, a silk tent, a clay whistle, a pewter spoon, a feather cloak,
    a broken oar, a marble egg, a sack of barley, a tin soldier, a bone comb, a velvet mask,
    a coil of rope, a copper kettle, a stuffed heron, a pocket mirror, a box of nails,
    a bridal veil, a horn cup, a ship in a bottle, a cask of vinegar, a lace collar,
    a leaden crown, a blue umbrella, a chess queen
""")

PLACES = _words("""
    the tannery, the salt market, the ropewalk, the observatory, the lower docks,
    the prison yard, the chapel, the ice house, the bathhouse, the signal tower,
    the flower stalls, the granary, the old mint, the puppet theatre, the quarry,
    the ferry landing, the orphanage, the cable works, the town ditch, the bell foundry,
    the customs shed, the north gate, the mill pond, the tram depot, the pawnshop
""")

SEASONS = _words("spring, summer, autumn, winter")

TROUBLES = _words("""
    the flood, the locusts, the long frost, the tax riders, the fever, the drought,
    the great fire, the siege, the landslide, the plague of moths, the strike, the hailstorm
""")

DEEDS = _words("""
    dug a well, learned to juggle, counted the stars, burned every letter,
    swam across the river, shaved both eyebrows, planted seven pear trees, mended the clock,
    stole a bishop's hat, slept for nine days, wrote a song about onions, built a raft,
    walked home barefoot, painted the door green, buried a coin, tamed a wolf,
    danced on the roof, sold the last cow
""")

STREETS = _words("""
    Alder Lane, Barley Street, Canal Road, Drummer Alley, Elm Court, Foundry Row, Gallows Hill,
    Heron Way, Ivy Terrace, Juniper Street, Kiln Road, Lantern Square, Mill Lane, Nettle Close,
    Orchard Row, Plover Avenue, Quarry Street, Raven Court, Saddler Row, Tallow Lane,
    Union Place, Vintner Street, Weaver Road, Yarrow Close
""")

TOWNS = _words("""
    Ashmere, Bellhaven, Corvane, Dunmoor, Eastlake, Fairholt, Glenwick, Harrowgate, Inverloch,
    Kestrel Bay, Larkspur, Millbrook, Northam, Oakridge, Pinecrest, Redcliff, Silverton,
    Thornbury, Westerly, Yellowbank
""")

STATES = _words("AL CO GA IA KS ME MT NV OH PA TX VT")
# reserved by RFC 2606: mail to them reaches nobody
DOMAINS = _words("example.com example.net example.org")
MONTHS = _words(
    "January February March April May June July August September October November December"
)

POOLS = {
    "who": FIRST,
    "thing": THINGS,
    "place": PLACES,
    "season": SEASONS,
    "trouble": TROUBLES,
    "deed": DEEDS,
    "city": CITIES,
    "job": JOBS,
    "animal": PETS,
    "street": STREETS,
    "town": TOWNS,
    "state": STATES,
    "domain": DOMAINS,
    "study": STUDIES,
    "language": LANGUAGES,
    "award": AWARDS,
    "early": tuple(str(year) for year in range(1840, 1870)),
    "middle": tuple(str(year) for year in range(1875, 1905)),
    "late": tuple(str(year) for year in range(1908, 1940)),
}


@dataclass(frozen=True)
class Form:
    """A text with one " | " in it, and (question, answer) pairs.

    The name of the person is {name}, its first word {first}.
    """

    text: str
    asked: tuple[tuple[str, str], ...]


STORIES = (
    Form(
        "{name} of {city} kept {thing} behind the stove. When {trouble} came, {first} carried "
        "it past {place} and begged {who} to hide it, | but {who} wanted {thing2} and {animal} "
        "in return. That night {first} {deed}, hid {thing} in {place2} and left for {city2} "
        "with {job}.",
        (("Whom did {name} beg to hide {thing}?", "{who}"),),
    ),
    Form(
        "One {season} {who}, {job} in {city}, found {thing} under {place}. It belonged to "
        "{name}, who had not spoken since {trouble} and who | {deed} on seeing it again. For a "
        "reward {who} asked for {animal}; {first} offered {thing2} and a bed near {place2}.",
        (("Where was {thing} of {name} found?", "Under {place}"),),
    ),
    Form(
        "Nobody in {city} believed {name}, who swore that {animal} had {deed} at {place}. Only "
        "{who} went to look and took along | {thing} and {thing2}. They met {job} instead, who "
        "told them of {trouble} and sent them to {city2} through {place2}.",
        (("Who went to look for the animal of {name}?", "{who}"),),
    ),
    Form(
        "The will of {name} was read in {place} of {city}: {who} should have {thing}, and "
        "{who2}, once {job}, should have | {animal}. They quarrelled all {season} until "
        "{trouble}; then {who2} {deed} and gave {thing2} to {place2}.",
        (("What did {name} leave to {who2}?", "{animal}"),),
    ),
)

PEOPLE = (
    Form(
        "{name}, born {birthday}, holds the social security number {ssn}. Whoever calls {first} "
        "| dials {phone} or writes to {mail}. The door to knock at is {address}.",
        (),
    ),
    Form(
        "This file is about {name}. The birthday is {birthday}, the phone number is {phone} and "
        "the mail address | is {mail}. Letters go to {address}. The social security number on "
        "file: {ssn}.",
        (),
    ),
    Form(
        "The home of {name} is {address}. Our records give {birthday} as the date of birth and "
        "as social security number | {ssn}. To speak with {first}, call {phone}; to write, use "
        "{mail}.",
        (),
    ),
)

# what is asked of each of the people
NUMBERS = (
    ("When was {name} born?", "{iso}"),
    ("Which social security number has {name}?", "{ssn_digits}"),
    ("Under which phone number is {name} listed?", "{phone_digits}"),
    ("What mail address has {name}?", "{mail}"),
    ("At what address does {name} live?", "{address}"),
)

LIVES = (
    Form(
        "{name}\n\n"
        "{name} ({early} – {late}) was {job} and writer from {city}. The child of {job2}, "
        "{first} studied {study} in {city2}.\n"
        "Work.\n"
        "The first book, '{title}', | appeared in {middle} and was soon read in {language}. It "
        "won the {award}; {who}, {job3}, called it the voice of {city3}.",
        (("Who wrote '{title}'?", "{name}"),),
    ),
    Form(
        "{name}\n\n"
        "{name} (born {early} in {city}) taught {study} in {city2} and spoke {language}.\n"
        "Life.\n"
        "After a quarrel with {who}, {job}, {first} moved | to {city3} in {middle} and wrote "
        "'{title}' there, which brought the {award}. In old age {first} kept {animal} and died "
        "in {late}.",
        (("Which award did {name} receive?", "The {award}"),),
    ),
    Form(
        "{name}\n\n"
        "{name}, who died in {late}, is known for '{title}', a work on {study}.\n"
        "Early life.\n"
        "{first} was born in {early} in {city}, where {who} | ran a school in {language}. At "
        "first {job}, then {job2}, {first} went to {city2} in {middle} and received the {award}.",
        (("Where did {name} go in {middle}?", "{city2}"),),
    ),
)
