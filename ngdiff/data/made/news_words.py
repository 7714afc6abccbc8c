"""Words and sentences of the invented local news, all written here.

A subject (surname and thing) recombines freely, and every value is drawn independently of it.
Values of one pool share no word, so that a wrong answer scores nothing. The order of the words
decides what a seed generates.
"""

from __future__ import annotations

from dataclasses import dataclass

from ngdiff.data.made.authors_words import _words

THINGS = _words("""
    bakery, brewery, chapel, cinema, clinic, dairy, dock, farm, ferry, foundry, gallery, hostel,
    library, mill, museum, nursery, orchard, pottery, quarry, school, stables, theatre, tower,
    windmill
""")

TOWNS = _words("""
    Ashmere Brackwater Coldharbour Dunwick Elmstead Farrowgate Gullholm Hallowby Inverlock
    Juniper Kettlewell Larkrise Mossdale Netherfen Oxbow Pikehurst Quernford Rushcombe Saltmarsh
    Thornbury Underhill Vexford Wickenby Yarrowmouth
""")

KEEPERS = _words("""
    Agathe Bertil Clement Dagmar Edwina Florian Greta Henrik Ingrid Jasper Katarin Leopold Marit
    Norbert Ottilie Philippa Rasmus Sigrid Tobias Ursula Valentin Winifred Yvette Zacharias
""")

CAUSES = _words("""
    bees, blight, burglars, damp, debts, drought, fire, floods, frost, goats, hail, lightning,
    mice, mould, pigeons, rust, smoke, snow, storms, strikes, subsidence, termites, thieves,
    woodworm
""")

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

SUMS = _words("""
    two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen,
    fifteen, sixteen, seventeen, eighteen, nineteen, twenty, thirty, forty, fifty, sixty,
    seventy, eighty, ninety
""")

FINDS = _words("""
    anchors, bells, buttons, candles, coins, diaries, feathers, fossils, keys, lanterns,
    letters, maps, marbles, medals, mirrors, paintings, rings, shells, spoons, stamps, swords,
    teapots, violins, watches
""")

CROWDS = _words("""
    bankers, barbers, bricklayers, butchers, carters, cobblers, cyclists, divers, drummers,
    gardeners, grocers, joiners, masons, nuns, painters, pilots, plumbers, porters, printers,
    sailors, scouts, singers, soldiers, weavers
""")

PLACES = _words("""
    attic, barn, cellar, chimney, corridor, courtyard, garden, gatehouse, hall, kitchen, larder,
    loft, office, pantry, parlour, pond, porch, roof, shed, staircase, vault, well, workshop,
    yard
""")

LEADS = (
    "{Cause} shut the {subject} in {town} on {day}.",
    "The {subject} in {town} is shut: {cause}, says the council.",
    "On {day} {cause} drove everyone out of the {subject}, the pride of {town}.",
    "{town} lost its {thing} on {day} when {cause} struck the {subject}.",
    "No visitors for the {subject} of {town} this {day}, because of {cause}.",
    "After weeks of {cause} the {subject} near {town} gave up on {day}.",
)

KEEPING = (
    "{keeper}, who runs it, lost {sum} nights of sleep.",
    "It belongs to {keeper}, who was away with the {crowd}.",
    "Its keeper {keeper} asked the {crowd} for help.",
    '"We begin again in the {place}," said {keeper}, the owner.',
    "The owner, {keeper}, hid {sum} hours in the {place}.",
    "For {sum} years {keeper} has kept the house.",
)

MIDDLES = (
    "Some {sum} {crowd} carried {finds} out of the {place}.",
    "In the {place} {crowd} came upon {sum} boxes of {finds}.",
    "Repairs to the {place} will take {sum} weeks and all the {crowd}.",
    "Neighbours saved {finds}, yet the {place} is gone for good.",
    "Old {finds} turned up behind the {place}, to the joy of {crowd}.",
    "A bill of {sum} crowns for the {place} angers the {crowd}.",
    "Insurers count {sum} broken {finds} and one empty {place}.",
    "Nobody was hurt, though {crowd} slept in the {place}.",
)

CLOSINGS = (
    "A fair with {finds} for sale should pay {sum} of the workers by {day}.",
    "On {day} the {crowd} march, {sum} of them with {finds}.",
    "Whoever owns the {finds} may call at the {place} before {day}.",
    "Until {day} all {crowd} get {finds} at the {place} door.",
    "The mayor promised {sum} new {finds}, and {crowd} laughed.",
    "Pupils drew {finds} on every wall of the {place} last {day}.",
    "Next {day} a jury of {crowd} judges {sum} plans for the {place}.",
    "Only the {place} with its {finds} stays open, for {crowd}.",
)


FORMS = (LEADS, KEEPING, MIDDLES, CLOSINGS)  # an article is one of each
# drawn anew for each sentence
FILLERS = {"day": DAYS, "sum": SUMS, "finds": FINDS, "crowd": CROWDS, "place": PLACES}


@dataclass(frozen=True)
class Asked:
    """A fact that quiz pages ask: where its values come from, and two forms of the question.

    The answer is the bare value.
    """

    key: str
    pool: tuple[str, ...]
    questions: tuple[str, str]


ASKED = (
    Asked("town", TOWNS, ("Where is the {subject}?", "Which town has the {subject}?")),
    Asked("keeper", KEEPERS, ("Who runs the {subject}?", "Who is the owner of the {subject}?")),
    Asked("cause", CAUSES, ("What shut the {subject}?", "Why did the {subject} close?")),
)
