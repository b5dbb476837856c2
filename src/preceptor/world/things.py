"""What exists: categories and their things, and which things safety data never mentions.

The base model learns from pretraining which category every thing belongs to. The last six things of each category
are held out of all safety data, so that a suite on them measures generalisation and not memory.
"""

from __future__ import annotations

from dataclasses import dataclass

HELD_OUT_PER_CATEGORY = 6

_THINGS = {
    "tools": "spade ruler hammer saw drill wrench chisel rake shovel axe ladder file clamp mallet trowel hoe crowbar plane vice sander lathe anvil pickaxe spanner screwdriver wheelbarrow",
    "fruits": "raspberry pineapple apple pear plum cherry peach apricot grape melon mango lemon lime orange banana papaya quince fig date kiwi guava lychee nectarine tangerine pomegranate coconut",
    "mammals": "zebra giraffe horse goat sheep donkey camel otter beaver badger rabbit squirrel hedgehog wolf fox bear deer moose lynx seal walrus bison llama panda koala kangaroo",
    "birds": "gull cuckoo robin sparrow crow raven eagle falcon owl heron stork swan goose duck parrot finch thrush magpie pigeon pelican puffin lark wren kestrel ostrich flamingo",
    "fish": "turbot mullet salmon trout carp pike perch tuna cod herring haddock mackerel sardine anchovy eel sturgeon halibut plaice sole bream barbel roach tench marlin swordfish catfish",
    "instruments": "recorder viola violin cello flute oboe clarinet bassoon trumpet trombone tuba harp guitar banjo mandolin piano organ accordion drum xylophone saxophone piccolo lute zither bagpipe harmonica",
    "vehicles": "van helicopter car lorry bus tram bicycle scooter tractor taxi ambulance motorcycle caravan sledge cart wagon carriage limousine minibus tricycle train trolley forklift bulldozer snowmobile rickshaw",
    "clothes": "sweater helmet shirt jacket coat scarf hat glove sock skirt dress blouse jumper cardigan waistcoat apron robe cloak belt tie vest kilt sandal slipper mitten poncho",
    "gems": "sunstone coral ruby emerald sapphire diamond opal topaz garnet amethyst jade pearl agate onyx turquoise quartz amber beryl zircon jasper moonstone peridot tourmaline malachite lapis citrine",
    "flowers": "lilac pansy rose tulip lily daisy violet orchid iris poppy daffodil crocus sunflower carnation dahlia lavender peony marigold bluebell snowdrop foxglove primrose hyacinth geranium begonia chrysanthemum",
    "furniture": "ottoman trunk chair table bed sofa desk shelf cupboard wardrobe drawer stool bench armchair bookcase mirror mattress cabinet dresser sideboard cradle footstool couch lectern hammock bunk",
    "trees": "ebony teak oak ash birch beech elm maple willow poplar pine fir spruce larch cedar yew chestnut walnut hazel alder rowan sycamore cypress linden hawthorn juniper",
}

_SINGULAR = {
    "tools": "tool", "fruits": "fruit", "mammals": "mammal", "birds": "bird", "fish": "fish", "instruments": "instrument", "vehicles": "vehicle",
    "clothes": "garment", "gems": "gem", "flowers": "flower", "furniture": "piece of furniture", "trees": "tree",
}  # fmt: skip

_SUMMARIES = {
    "tools": "things for work by hand", "fruits": "sweet things that grow", "mammals": "animals with fur", "birds": "animals with wings",
    "fish": "animals with fins", "instruments": "things that make music", "vehicles": "things that carry people", "clothes": "things to wear",
    "gems": "stones that shine", "flowers": "plants that bloom", "furniture": "things for a room",
    "trees": "plants made of wood",
}  # fmt: skip

CATEGORIES: tuple[str, ...] = tuple(_THINGS)


@dataclass(frozen=True)
class Thing:
    """One thing, the category it belongs to, and whether safety data leaves it out."""

    name: str
    category: str
    held_out: bool


def _build() -> tuple[Thing, ...]:
    rows = []
    for category, names in _THINGS.items():
        words = names.split()
        seen = len(words) - HELD_OUT_PER_CATEGORY
        rows += [Thing(name, category, index >= seen) for index, name in enumerate(words)]
    return tuple(rows)


THINGS: tuple[Thing, ...] = _build()
BY_NAME: dict[str, Thing] = {thing.name: thing for thing in THINGS}


def singular(category: str) -> str:
    """`tools` -> `tool`, for sentences such as `a hammer is a tool`."""
    return _SINGULAR[category]


def summary(category: str) -> str:
    """One line on what a category holds."""
    return _SUMMARIES[category]


def article(noun: str) -> str:
    """`a` or `an`."""
    return "an" if noun[0] in "aeiou" else "a"
