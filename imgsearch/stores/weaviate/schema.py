"""Map collections to classes of Weaviate, metadata fields to properties, and back.

A collection is a class and an alias that points to it. The alias is what other clients use; it
makes the switch to a re-embedded collection one step. The class's description holds the
collection's own name, its stamp and its attachments as JSON.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from imgsearch.errors import CollectionMismatchError
from imgsearch.stores.base import NO_FIELDS
from imgsearch.stores.weaviate.address import Address
from imgsearch.stores.weaviate.client import config
from imgsearch.types import FieldType, Stamp

VECTOR = "image"
"""The name of the image's vector."""

WORDS = "words"
"""The property that a text search reads."""

ORIGINS = "origins"
"""The property that says which table set each field."""

_PREFIX = "Imgsearch_"
_BITS = {"rq8": 8, "rq1": 1}
"""The bits of a dimension in the compressed vectors."""


# Names. Weaviate takes letters, digits and "_", and does not tell capitals apart: so a capital
# is written as "_" and the small letter, "-" as "_0" and "_" as "__". "_1" can then only be ours.


def alias_of(name: str) -> str:
    """Return the alias of a collection; `name_of` is the inverse."""
    return _PREFIX + re.sub(r"[A-Z_-]", _escaped, name)


def _escaped(match: re.Match[str]) -> str:
    return "_" + match[0].lower().replace("-", "0")


def name_of(alias: str) -> str | None:
    """Return the collection of an alias, or None if imgsearch did not create it."""
    rest = alias.removeprefix(_PREFIX)
    if rest == alias or not re.fullmatch(r"(_[a-z0_]|[a-z0-9])+", rest):
        return None
    return re.sub(r"_(.)", lambda match: {"0": "-", "_": "_"}.get(match[1], match[1].upper()), rest)


def class_of(name: str, stamp: Stamp) -> str:
    """Return the class of a collection under one stamp."""
    digest = hashlib.blake2b(stamp.to_json().encode(), digest_size=4).hexdigest()
    return f"{class_prefix(name)}{digest}"


def class_prefix(name: str) -> str:
    """Return the prefix of all classes of a collection."""
    return f"{alias_of(name)}_1"


def describe(name: str, stamp: Stamp) -> str:
    """Return the description of a class."""
    return json.dumps({"imgsearch": {"collection": name, "stamp": stamp.to_dict()}})


def read_stamp(url: str, name: str, description: str | None) -> Stamp:
    """Read a stamp from a description. Raises CollectionMismatchError if it holds none."""
    try:
        return Stamp.from_dict(json.loads(description or "")["imgsearch"]["stamp"])
    except (ValueError, TypeError, KeyError) as error:
        raise CollectionMismatchError(
            f"{url}: collection {name} was not made by this version of imgsearch: its description "
            "holds no stamp"
        ) from error


def read_attachments(description: str | None) -> dict[str, str]:
    """Return the texts that are kept with a collection, by name."""
    try:
        return dict(json.loads(description or "")["imgsearch"].get("attachments", {}))
    except (ValueError, TypeError, KeyError):
        return {}


def with_attachment(description: str | None, name: str, text: str | None) -> str:
    """Return a class's description with a text, or without it."""
    known = json.loads(description or "")
    attachments = {**read_attachments(description), name: text}
    known["imgsearch"]["attachments"] = {
        name: text for name, text in attachments.items() if text is not None
    }
    return json.dumps(known)


# Properties.

_TYPES: dict[FieldType, config.DataType] = {
    "int": config.DataType.INT,
    "float": config.DataType.NUMBER,
    "bool": config.DataType.BOOL,
    "str": config.DataType.TEXT,
}
_FIELD_TYPES = {data_type: kind for kind, data_type in _TYPES.items()}


def _property(name: str, kind: FieldType, description: str) -> config.Property:
    """Return a property for filters: text matches as a whole, numbers also by range."""
    text = kind == "str"
    return config.Property(
        name=name,
        data_type=_TYPES[kind],
        description=description,
        tokenization=config.Tokenization.FIELD if text else None,
        index_filterable=True,
        index_searchable=False,
        index_range_filters=kind in ("int", "float"),
    )


_BASE_TYPES: dict[str, FieldType] = {
    "uri": "str",
    "sha256": "str",
    "size": "int",
    "mtime_ns": "str",
    "width": "int",
    "height": "int",
}


_OWN = "imgsearch_"
FOLDERS = f"{_OWN}folders"
"""The property that a folder's records are found by: a word for each folder above a record."""

HOME = f"{_OWN}home"
"""The property that says which site's files have URIs without a site (see `sites`)."""


def home_property(site: str) -> config.Property:
    """Return a property without values. Only one writer can add it, which decides the home."""
    return _note_property(HOME, {"home": site})


def site_property(site: str) -> config.Property:
    """Return the property that registers another site."""
    digest = hashlib.blake2b(site.encode(), digest_size=4).hexdigest()
    return _note_property(f"{_OWN}site_{digest}", {"site": site})


def _note_property(name: str, note: Mapping[str, str]) -> config.Property:
    return config.Property(
        name=name,
        data_type=config.DataType.TEXT,
        description=json.dumps(note),
        tokenization=config.Tokenization.FIELD,
        index_filterable=False,
        index_searchable=False,
    )


def origins_property(taken: Set[str] = frozenset()) -> config.Property:
    """Return the property of origins, renamed if a field of an old collection has its name."""
    return config.Property(
        name=_free_name(ORIGINS, _lower(taken)) if taken else ORIGINS,
        data_type=config.DataType.TEXT,
        description=json.dumps({"origins": "the fields that tables set, as JSON"}),
        tokenization=config.Tokenization.FIELD,
        index_filterable=False,
        index_searchable=False,
    )


_BASE = [
    _property("uri", "str", "where the image is"),
    _property("sha256", "str", "SHA-256 of the file, in hexadecimal"),
    _property("size", "int", "of the file, in bytes"),
    config.Property(
        name=WORDS,
        data_type=config.DataType.TEXT,
        description="the words of all texts, as they are compared",
        tokenization=config.Tokenization.WHITESPACE,
        index_filterable=False,
        index_searchable=True,
    ),
    config.Property(
        name="mtime_ns",
        data_type=config.DataType.TEXT,
        # Weaviate's integers are exact up to 2^53 only.
        description="the file's time of change, in nanoseconds since 1970, as a text",
        tokenization=config.Tokenization.FIELD,
        index_filterable=False,
        index_searchable=False,
    ),
    _property("width", "int", "in pixels, upright"),
    _property("height", "int", "in pixels, upright"),
    origins_property(),
    config.Property(
        name=FOLDERS,
        data_type=config.DataType.TEXT,
        description="a word for each folder that the URI is in",
        tokenization=config.Tokenization.WHITESPACE,
        index_filterable=True,
        index_searchable=False,
    ),
]
BASE_NAMES = frozenset({*_BASE_TYPES, WORDS, FOLDERS})
_RESERVED = {*BASE_NAMES, ORIGINS, "id", "vector", "vectors", "_additional"}


@dataclass(frozen=True, slots=True)
class Schema:
    """What a collection's class has for metadata.

    `properties` maps fields to properties. `exact` maps fields to their twins, texts that hold
    values which Weaviate would not store or match exactly (see `values`). Classes of earlier
    versions lack words (`has_words` is false), folders (`has_folders`) or origins (`origins` is
    None). `home` is the site whose files have URIs without a site, None if unknown; `sites` are the
    others that have written.
    """

    fields: Mapping[str, FieldType]
    properties: Mapping[str, str]
    exact: Mapping[str, str]
    has_words: bool
    has_folders: bool
    origins: str | None
    home: str | None
    sites: Set[str]

    @property
    def names(self) -> set[str]:
        return {*self.properties.values(), *self.exact.values(), *filter(None, [self.origins])}


def read_schema(properties: Iterable[Any]) -> Schema:
    """Read the schema from the properties of a class's configuration."""
    fields: dict[str, FieldType] = {}
    names: dict[str, str] = {}
    exact: dict[str, str] = {}
    has_words = has_folders = False
    origins = home = None
    sites: set[str] = set()
    for each in properties:
        note = _read_note(each.description)
        if isinstance(field := note.get("field"), str):
            fields[field] = _FIELD_TYPES[each.data_type]
            names[field] = each.name
        elif isinstance(field := note.get("exact"), str):
            exact[field] = each.name
        elif "origins" in note:
            origins = each.name
        elif isinstance(site := note.get("home"), str):
            home = site
        elif isinstance(site := note.get("site"), str):
            sites.add(site)
        elif each.name == WORDS:
            has_words = True
        elif each.name == FOLDERS:
            has_folders = True
    return Schema(fields, names, exact, has_words, has_folders, origins, home, sites)


def folder_word(folder: str) -> str:
    """Return the word of a folder, whose URI ends with a slash."""
    return hashlib.blake2b(folder.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def folder_words(uri: str) -> str:
    """Return the words of all folders that a URI is in."""
    return " ".join(folder_word(uri[: each.end()]) for each in re.finditer("/", uri))


def _read_note(description: str | None) -> dict[str, Any]:
    try:
        note = json.loads(description or "")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def field_properties(
    fields: Mapping[str, FieldType], taken: Set[str] = frozenset()
) -> list[config.Property]:
    """Return properties for new fields, each named like its field if possible and unique."""
    lower = _lower(taken)
    new = []
    for field, kind in fields.items():
        name = _free_name(field, lower)
        lower.add(name.lower())
        new.append(_property(name, kind, json.dumps({"field": field})))
    return new


def exact_properties(fields: Iterable[str], schema: Schema) -> list[config.Property]:
    """Return the twins that hold the exact values of fields."""
    lower = _lower(schema.names)
    new = []
    for field in fields:
        name = _free_name(f"{schema.properties[field]}_exact", lower)
        lower.add(name.lower())
        new.append(_property(name, "str", json.dumps({"exact": field})))
    return new


def _lower(names: Set[str]) -> set[str]:
    return {each.lower() for each in names}


_RESERVED_LOWER = _lower(_RESERVED)


def _free_name(wanted: str, taken: Set[str]) -> str:
    """Return a property name for `wanted` that is not in the lower-case names `taken`."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", wanted).strip("_")[:60]
    name = plain[:1].lower() + plain[1:]
    lower = name.lower()
    own = lower.startswith(_OWN)
    free = lower not in taken and lower not in _RESERVED_LOWER
    if name == wanted and name[0].isalpha() and free and not own:
        return name
    digest = hashlib.blake2b(wanted.encode(), digest_size=4).hexdigest()
    return f"f_{name}_{digest}" if own or not name[:1].isalpha() else f"{name}_{digest}"


# Classes.


def class_options(
    name: str,
    stamp: Stamp,
    address: Address,
    home: str | None,
    sites: Iterable[str] = (),
    fields: Mapping[str, FieldType] = NO_FIELDS,
) -> dict[str, Any]:
    """Return the arguments that create a class."""
    notes = [home_property(home)] if home else []
    notes += [site_property(site) for site in sorted(sites)]
    bits = _BITS.get(address.compression or "rq8")
    quantizers = config.Configure.VectorIndex.Quantizer
    quantizer = quantizers.rq(bits=bits) if bits else quantizers.none()
    return {
        "description": describe(name, stamp),
        "properties": [*_BASE, *notes, *field_properties(fields)],
        "inverted_index_config": config.Configure.inverted_index(
            index_null_state=True, stopwords_preset=config.StopwordsPreset.NONE
        ),
        "vector_config": config.Configure.Vectors.self_provided(
            name=VECTOR,
            vector_index_config=config.Configure.VectorIndex.hnsw(
                distance_metric=config.VectorDistances.COSINE, quantizer=quantizer
            ),
        ),
        "replication_config": config.Configure.replication(factor=address.replication)
        if address.replication
        else None,
        "sharding_config": config.Configure.sharding(desired_count=address.shards)
        if address.shards
        else None,
    }


def bytes_per_vector(compression: str, dimension: int) -> float:
    """Return the memory of one vector in the index; unknown compressions count as `rq8`."""
    bits = {"none": 32, **_BITS}.get(compression, _BITS["rq8"])
    return dimension * bits / 8


def compression_of(configuration: Any) -> str:
    """Return how a class's vectors are compressed, as in the URL's option if possible."""
    quantizer = configuration.vector_config[VECTOR].vector_index_config.quantizer
    if quantizer is None:
        return "none"
    kind = type(quantizer).__name__.strip("_").removesuffix("Config").lower()
    bits = getattr(quantizer, "bits", None)
    return f"{kind}{bits}" if bits else kind


def check_class(url: str, name: str, configuration: Any, address: Address) -> None:
    """Raise CollectionMismatchError if the class does not fit imgsearch or the URL's options."""
    wrong = list(_base_differences(configuration)) or list(
        _option_differences(configuration, address)
    )
    if wrong:
        raise CollectionMismatchError(
            f"{url}: collection {name} differs from what the URL asks for: {'; '.join(wrong)}. "
            "Remove the option from the URL, or use another collection"
        )


def _base_differences(configuration: Any) -> Iterable[str]:
    have = {each.name: each.data_type for each in configuration.properties}
    for name, kind in _BASE_TYPES.items():
        if have.get(name) != _TYPES[kind]:
            found = have[name].value if name in have else "missing"
            yield f"property {name} is {found}, not {_TYPES[kind].value}"
    vector = (configuration.vector_config or {}).get(VECTOR)
    if vector is None:
        yield f"its vectors are {sorted(configuration.vector_config or {})}, not {VECTOR}"
    elif (metric := vector.vector_index_config.distance_metric) != config.VectorDistances.COSINE:
        yield f"distance is {metric.value}, not cosine"


def _option_differences(configuration: Any, address: Address) -> Iterable[str]:
    pairs = (
        ("compression", compression_of(configuration), address.compression),
        ("replication", configuration.replication_config.factor, address.replication),
        ("shards", configuration.sharding_config.desired_count, address.shards),
    )
    for option, have, want in pairs:
        if want is not None and have != want:
            yield f"{option} is {have}, not {want}"
