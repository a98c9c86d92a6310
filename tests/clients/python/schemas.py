"""JSON schemas that an answer must follow. None allows an answer without end."""


def thing(required=None, **properties):
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "required": list(properties) if required is None else required}


def some(items, most, least=0):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


TEXT = {"type": "string", "maxLength": 8}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
FLAG = {"type": "boolean"}
COLOUR = {"enum": ["red", "green", "blue"]}
POINT = thing(x=DIGIT, y=DIGIT)

SCHEMAS = {
    "null": {"type": "null"},
    "true or false": FLAG,
    "constant": {"const": "fixed"},
    "constant number": {"const": 42},
    "constant object": {"const": {"a": [1, {"b": None}]}},
    "enum of words": COLOUR,
    "enum of kinds": {"enum": [1, "one", None, True, [1], {"n": 1}]},
    "enum in Chinese": {"enum": ["红色", "绿色", "蓝色"]},
    "enum of emoji": {"enum": ["🙂", "👩‍👩‍👧", "🇨🇳"]},
    "digit": DIGIT,
    "negative": {"type": "integer", "minimum": -20, "maximum": -3},
    "either sign": {"type": "integer", "minimum": -105, "maximum": 1234},
    "exclusive bounds": {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 9},
    "multiple": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 25},
    "decimal": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    "short text": TEXT,
    "text of a length": {"type": "string", "minLength": 3, "maxLength": 5},
    "empty text": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "pattern in Chinese": {"type": "string", "pattern": "^第[一二三]页$"},
    "pattern of hex": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
    "uuid": {"type": "string", "format": "uuid"},
    "address": {"type": "string", "format": "ipv4"},
    "empty list": {"type": "array", "maxItems": 0},
    "list of digits": some(DIGIT, 4),
    "list of three": some(COLOUR, 3, 3),
    "list of lists": some(some(DIGIT, 2, 1), 2, 1),
    "list of objects": some(POINT, 3, 1),
    "tuple": {"type": "array", "prefixItems": [DIGIT, COLOUR, FLAG], "items": False, "minItems": 3},
    "tuple and rest": {"type": "array", "prefixItems": [COLOUR], "items": DIGIT, "minItems": 1, "maxItems": 4},
    "empty object": thing(),
    "one field": thing(name=TEXT),
    "two fields": thing(name=TEXT, count=DIGIT),
    "optional field": thing(["a"], a=DIGIT, b=DIGIT),
    "all optional": thing([], a=DIGIT, b=FLAG, c=COLOUR),
    "null or not": thing(a={"type": ["integer", "null"], "minimum": 0, "maximum": 5}),
    "point": POINT,
    "box": thing(corner=POINT, size=POINT),
    "three deep": thing(a=thing(b=thing(c=DIGIT))),
    "six deep": thing(a=thing(b=thing(c=thing(d=thing(e=thing(f=FLAG)))))),
    "names in Chinese": thing(**{"颜色": COLOUR, "数量": DIGIT}),
    "names with quotes": thing(**{'a "b"': DIGIT, "c\\d": DIGIT, "e/f": DIGIT, " ": DIGIT}),
    "name of emoji": thing(**{"🙂": FLAG}),
    "any of": {"anyOf": [DIGIT, COLOUR, POINT]},
    "one of": {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 5}, {"type": "boolean"}]},
    "all of": {"allOf": [thing(a=DIGIT), {"properties": {"a": {"maximum": 3}}}]},
    "reference": {"$ref": "#/$defs/p", "$defs": {"p": POINT}},
    "references": thing(a={"$ref": "#/$defs/c"}, b={"$ref": "#/$defs/c"}) | {"$defs": {"c": COLOUR}},
    "reference to references": {"$ref": "#/$defs/line", "$defs": {
        "line": thing(a={"$ref": "#/$defs/p"}, b={"$ref": "#/$defs/p"}), "p": POINT}},
    "tagged": {"anyOf": [thing(kind={"const": "circle"}, radius=DIGIT), thing(kind={"const": "square"}, side=DIGIT)]},
    "map": {"type": "object", "additionalProperties": DIGIT, "properties": {"a": DIGIT}, "required": ["a"],
            "maxProperties": 1},
    "picture": thing(shapes=some(thing(shape={"enum": ["circle", "square", "moon"]}, colour=COLOUR, at=POINT), 2, 1),
                     background=COLOUR, title=TEXT),
    "receipt": thing(shop=TEXT, items=some(thing(name=TEXT, cents=DIGIT), 2), paid=FLAG,
                     date={"type": "string", "format": "date"}),
    "person": thing(["name"], name=TEXT, age=DIGIT, address=thing(city=TEXT, code={
        "type": "string", "pattern": "^[0-9]{5}$"})),
    "title and description": {"title": "T", "description": "D", "default": 1, "examples": [1], **DIGIT},
}
