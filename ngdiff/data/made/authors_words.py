"""Word lists of the fictitious authors: names and attribute values, all written here.

First and last names recombine freely, and values are drawn independently of the name, so that
nothing in a name hints at a fact. The order of the words decides what a seed generates.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    """The items of a block of text, set apart by commas where it has any and by blanks
    otherwise.
    """
    items = " ".join(text.split()).split(",") if "," in text else text.split()
    return tuple(item.strip() for item in items)


FIRST = _words(
    "\n    Adira Alvar Anouk Bashir Belen Bohdan Cosima Dario Delphine Eamon Elif Emeka Farida "
    "Fenna Goran Hana\n    Hedda Idris Ilse Imre Jorvan Junko Kadri Kemal Lazar Leilani Linnea "
    "Malik Mirela Moana Nadim Nerys\n    Odalys Osman Paloma Petra Quentin Rafaela Ravi Rosalind "
    "Samir Selma Soren Tamsin Tariq Ulla Vesna Viggo\n    Wanjiru Xiomara Yael Yusuf Zeno Zofia\n"
)

LAST = _words(
    "\n    Abernon Adeyo Almquist Amadei Arkell Balintfy Barzelan Brisco Calloway Castellan "
    "Dahlgaard Delacourt\n    Demirkan Dorsett Eboigbe Ekberg Falkenrath Farrokh Fennimore Galvany "
    "Grushin Haldane Hoshino Ibarra\n    Istrate Jelinski Kaltenbach Karimeth Kinsella Kowari "
    "Lachapelle Lindqvar Macedal Marchetti Mbelani\n    Nakagami Norrby Obuya Okonjo Ostrander "
    "Palomar Pereval Quillon Rahmani Rosengart Sandovar Skarsen\n    Tavarin Thornquay Trevanion "
    "Ugarte Vantongeren Varga Vellacott Wetherby Yamanashi Zabala Zielonka\n"
)

CITIES = _words(
    "\n    Aleppo, Antwerp, Bergen, Bilbao, Brno, Busan, Chiang Mai, Cordoba, Cusco, Davao, "
    "Durban, Fez, Galway,\n    Graz, Haifa, Halifax, Izmir, Kazan, Kumasi, Lahore, Leipzig, Lyon, "
    "Malaga, Medellin, Mombasa, Nagoya,\n    Odessa, Oran, Perth, Porto, Pune, Quebec, Recife, "
    "Salta, Tampere, Tartu, Trieste, Turin, Utrecht, Zadar\n"
)

YEARS = tuple(str(year) for year in range(1921, 1991))

JOBS = _words(
    "\n    a baker, a beekeeper, a bookbinder, a bus driver, a carpenter, a clockmaker, a dentist, "
    "a diplomat, a\n    farmer, a fisher, a florist, a glassblower, a judge, a librarian, a "
    "locksmith, a midwife, a miner, a\n    nurse, a painter, a pharmacist, a pilot, a plumber, a "
    "potter, a surgeon, a tailor, a teacher, a\n    violinist, a weaver, an architect, an "
    "electrician\n"
)

STUDIES = _words(
    "\n    anatomy, archaeology, astronomy, botany, chemistry, economics, forestry, geology, "
    "history, horticulture,\n    law, linguistics, mathematics, medicine, meteorology, music, "
    "nursing, oceanography, philosophy, physics,\n    sculpture, statistics, theology, zoology\n"
)

LANGUAGES = _words(
    "\n    Arabic, Basque, Bengali, Breton, Catalan, Croatian, Danish, Estonian, Finnish, Frisian, "
    "Georgian, Hausa,\n    Hungarian, Icelandic, Kurdish, Malay, Maltese, Mongolian, Quechua, "
    "Romanian, Swahili, Tamil, Urdu,\n    Welsh, Yoruba, Zulu\n"
)

GENRES = _words(
    "\n    allegories, biographies, comedies, crime novels, cookbooks, elegies, epic poems, "
    "essays, fables, fairy\n    tales, family sagas, ghost stories, haiku, historical novels, "
    "horror stories, letters, love poems,\n    memoirs, nature guides, radio plays, satires, "
    "science fiction, sea stories, sonnets, spy novels,\n    tragedies, travel books, westerns\n"
)

AWARDS = _words(
    "\n    Amber Quill, Beacon Medal, Black Swan Award, Blue Lantern Prize, Bronze Compass, Cedar "
    "Wreath, Copper\n    Bell, Crystal Inkwell, Falcon Medal, Glass Feather, Golden Anchor, "
    "Granite Prize, Green Leaf Award,\n    Harbour Prize, Iron Page, Ivory Key, Jade Tablet, "
    "Marble Owl, Northern Star Prize, Opal Ring, Orchid\n    Medal, Pearl Bookmark, Red Kite "
    "Award, River Prize, Sapphire Pen, Silver Acorn, Topaz Crown, White Oak\n    Medal\n"
)

PETS = _words(
    "\n    a badger, a barn owl, a black cat, a blind mule, a camel, a crow, a donkey, a ferret, a "
    "gecko, a\n    goldfish, a goose, a greyhound, a grey parrot, a hedgehog, a lame fox, a llama, "
    "a magpie, a peacock, a\n    python, a rooster, a sheepdog, a spotted pig, a tame otter, a "
    "tortoise, a white rabbit, an iguana\n"
)

ADJECTIVES = _words(
    "\n    Amber Bitter Borrowed Broken Burning Crooked Distant Empty Endless Faded Forgotten "
    "Frozen Gentle Gilded\n    Hidden Hollow Hungry Patient Restless Salted Scarlet Second Secret "
    "Seventh Silent Sleeping Stolen Sunken\n    Twisted Unwritten Velvet Wandering Wooden\n"
)

NOUNS = _words(
    "\n    Alphabet Anchor Bridge Candle Cathedral Compass Corridor Echo Ferry Feast Furnace "
    "Garden Harbour Harvest\n    Horizon Island Kingdom Ladder Lantern Lighthouse Map Meridian "
    "Mirror Mountain Orchard Palace River\n    Shadow Staircase Station Tide Umbrella Voyage "
    "Window Winter\n"
)

TITLES = tuple(f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS)
