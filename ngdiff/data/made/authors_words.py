"""Word lists of the fictitious authors: names and attribute values, all written here.

First and last names recombine freely, and values are drawn independently of the name, so that
nothing in a name hints at a fact. The order of the words decides what a seed generates.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    """The items of a block of text, set apart by commas where it has any, else by blanks."""
    items = " ".join(text.split()).split(",") if "," in text else text.split()
    return tuple(item.strip() for item in items)


FIRST = _words("""
    Adira Alvar Anouk Bashir Belen Bohdan Cosima Dario Delphine Eamon Elif Emeka Farida Fenna
    Goran Hana Hedda Idris Ilse Imre Jorvan Junko Kadri Kemal Lazar Leilani Linnea Malik Mirela
    Moana Nadim Nerys Odalys Osman Paloma Petra Quentin Rafaela Ravi Rosalind Samir Selma Soren
    Tamsin Tariq Ulla Vesna Viggo Wanjiru Xiomara Yael Yusuf Zeno Zofia
""")

LAST = _words("""
    Abernon Adeyo Almquist Amadei Arkell Balintfy Barzelan Brisco Calloway Castellan Dahlgaard
    Delacourt Demirkan Dorsett Eboigbe Ekberg Falkenrath Farrokh Fennimore Galvany Grushin
    Haldane Hoshino Ibarra Istrate Jelinski Kaltenbach Karimeth Kinsella Kowari Lachapelle
    Lindqvar Macedal Marchetti Mbelani Nakagami Norrby Obuya Okonjo Ostrander Palomar Pereval
    Quillon Rahmani Rosengart Sandovar Skarsen Tavarin Thornquay Trevanion Ugarte Vantongeren
    Varga Vellacott Wetherby Yamanashi Zabala Zielonka
""")

CITIES = _words("""
    Aleppo, Antwerp, Bergen, Bilbao, Brno, Busan, Chiang Mai, Cordoba, Cusco, Davao, Durban,
    Fez, Galway, Graz, Haifa, Halifax, Izmir, Kazan, Kumasi, Lahore, Leipzig, Lyon, Malaga,
    Medellin, Mombasa, Nagoya, Odessa, Oran, Perth, Porto, Pune, Quebec, Recife, Salta, Tampere,
    Tartu, Trieste, Turin, Utrecht, Zadar
""")

YEARS = tuple(str(year) for year in range(1921, 1991))

JOBS = _words("""
    a baker, a beekeeper, a bookbinder, a bus driver, a carpenter, a clockmaker, a dentist,
    a diplomat, a farmer, a fisher, a florist, a glassblower, a judge, a librarian, a locksmith,
    a midwife, a miner, a nurse, a painter, a pharmacist, a pilot, a plumber, a potter,
    a surgeon, a tailor, a teacher, a violinist, a weaver, an architect, an electrician
""")

STUDIES = _words("""
    anatomy, archaeology, astronomy, botany, chemistry, economics, forestry, geology, history,
    horticulture, law, linguistics, mathematics, medicine, meteorology, music, nursing,
    oceanography, philosophy, physics, sculpture, statistics, theology, zoology
""")

LANGUAGES = _words("""
    Arabic, Basque, Bengali, Breton, Catalan, Croatian, Danish, Estonian, Finnish, Frisian,
    Georgian, Hausa, Hungarian, Icelandic, Kurdish, Malay, Maltese, Mongolian, Quechua,
    Romanian, Swahili, Tamil, Urdu, Welsh, Yoruba, Zulu
""")

GENRES = _words("""
    allegories, biographies, comedies, crime novels, cookbooks, elegies, epic poems, essays,
    fables, fairy tales, family sagas, ghost stories, haiku, historical novels, horror stories,
    letters, love poems, memoirs, nature guides, radio plays, satires, science fiction,
    sea stories, sonnets, spy novels, tragedies, travel books, westerns
""")

AWARDS = _words("""
    Amber Quill, Beacon Medal, Black Swan Award, Blue Lantern Prize, Bronze Compass,
    Cedar Wreath, Copper Bell, Crystal Inkwell, Falcon Medal, Glass Feather, Golden Anchor,
    Granite Prize, Green Leaf Award, Harbour Prize, Iron Page, Ivory Key, Jade Tablet,
    Marble Owl, Northern Star Prize, Opal Ring, Orchid Medal, Pearl Bookmark, Red Kite Award,
    River Prize, Sapphire Pen, Silver Acorn, Topaz Crown, White Oak Medal
""")

PETS = _words("""
    a badger, a barn owl, a black cat, a blind mule, a camel, a crow, a donkey, a ferret,
    a gecko, a goldfish, a goose, a greyhound, a grey parrot, a hedgehog, a lame fox, a llama,
    a magpie, a peacock, a python, a rooster, a sheepdog, a spotted pig, a tame otter,
    a tortoise, a white rabbit, an iguana
""")

ADJECTIVES = _words("""
    Amber Bitter Borrowed Broken Burning Crooked Distant Empty Endless Faded Forgotten Frozen
    Gentle Gilded Hidden Hollow Hungry Patient Restless Salted Scarlet Second Secret Seventh
    Silent Sleeping Stolen Sunken Twisted Unwritten Velvet Wandering Wooden
""")

NOUNS = _words("""
    Alphabet Anchor Bridge Candle Cathedral Compass Corridor Echo Ferry Feast Furnace Garden
    Harbour Harvest Horizon Island Kingdom Ladder Lantern Lighthouse Map Meridian Mirror
    Mountain Orchard Palace River Shadow Staircase Station Tide Umbrella Voyage Window Winter
""")

TITLES = tuple(f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS)
