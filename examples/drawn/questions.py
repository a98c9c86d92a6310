"""Questions and answers about a scene, in English and Chinese.

Every kind of question has several phrasings and exactly one form of answer, so that an exact match is a
fair score. A maker returns (question templates, answer, fields for the templates), or None where the
question makes no sense for the scene (which star is meant, when there are two?).
"""

from pictures import BACKGROUNDS, COLORS, SHAPES

ZH_SHAPE = dict(circle="圆形", square="正方形", triangle="三角形", star="星形", heart="心形", diamond="菱形", cross="十字形", moon="月牙形")
ZH_COLOR = dict(red="红色", orange="橙色", yellow="黄色", green="绿色", blue="蓝色", purple="紫色", pink="粉色", black="黑色", gray="灰色", white="白色")
PLACE = [["at the top left", "at the top", "at the top right"], ["on the left", "in the center", "on the right"],
         ["at the bottom left", "at the bottom", "at the bottom right"]]
ZH_PLACE = [["左上角", "上方", "右上角"], ["左边", "中间", "右边"], ["左下角", "下方", "右下角"]]
ZH_SIDE = {"left of": "左边", "right of": "右边", "above": "上方", "below": "下方"}
WRITTEN = {"number": ("printed number", "印刷的数字"), "word": ("printed word", "印刷的单词"), "handwriting": ("handwritten digit", "手写的数字")}


def plural(shape):
    return shape + ("es" if shape == "cross" else "s")


def a(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def zh_thing(item):
    return f"{ZH_COLOR[item.color]}的{ZH_SHAPE[item.shape]}"


def there_are(n, one, many, zh):
    """The answer to a question of how many, in both languages."""
    en = f"There are no {many}." if n == 0 else f"There is 1 {one}." if n == 1 else f"There are {n} {many}."
    return en, f"图中没有{zh}。" if n == 0 else f"图中有{n}个{zh}。"


def referent(rng, items, item):
    """A phrase that means this item alone, in both languages, or None."""
    options = []
    if sum(i.shape == item.shape for i in items) == 1:
        options.append((item.shape, ZH_SHAPE[item.shape]))
    if sum(i.color == item.color for i in items) == 1:
        options.append((f"{item.color} shape", f"{ZH_COLOR[item.color]}的图形"))
    if sum((i.shape, i.color) == (item.shape, item.color) for i in items) == 1:
        options.append((f"{item.color} {item.shape}", zh_thing(item)))
    return rng.choice(options) if options else None


def count_all(rng, scene):
    if scene.kind != "shapes":
        return None
    return (["How many shapes are there?", "How many shapes are in the picture?", "Count the shapes.", "How many objects do you see?"],
            ["图中有几个图形？", "一共有多少个图形？", "数一数图形的个数。", "图片里有几个图形？"],
            there_are(len(scene.items), "shape", "shapes", "图形"), {})


def count_shape(rng, scene):
    present = [i.shape for i in scene.items]
    shape = rng.choice(present) if present and rng.random() < 0.8 else rng.choice(SHAPES)
    return (["How many {many} are there?", "How many {many} can you see?", "Count the {many}.", "How many {many} are in the picture?"],
            ["图中有几个{zh}？", "有多少个{zh}？", "数一数{zh}的个数。", "图片里有几个{zh}？"],
            there_are(present.count(shape), shape, plural(shape), ZH_SHAPE[shape]), dict(many=plural(shape), zh=ZH_SHAPE[shape]))


def count_color(rng, scene):
    if scene.kind != "shapes":
        return None
    present = [i.color for i in scene.items]
    color = rng.choice(present) if rng.random() < 0.8 else rng.choice(list(COLORS))
    return (["How many {c} shapes are there?", "How many shapes are {c}?", "Count the {c} shapes.", "How many {c} objects do you see?"],
            ["图中有几个{zh}的图形？", "有多少个图形是{zh}的？", "数一数{zh}的图形。", "图片里有几个{zh}的图形？"],
            there_are(present.count(color), f"{color} shape", f"{color} shapes", f"{ZH_COLOR[color]}的图形"), dict(c=color, zh=ZH_COLOR[color]))


def color_of(rng, scene):
    alone = [i for i in scene.items if sum(j.shape == i.shape for j in scene.items) == 1]
    if not alone:
        return None
    item = rng.choice(alone)
    zh = ZH_SHAPE[item.shape]
    return (["What color is the {s}?", "What colour is the {s}?", "Which color does the {s} have?", "What is the color of the {s}?"],
            ["{zh}是什么颜色？", "{zh}是什么颜色的？", "请说出{zh}的颜色。", "图中的{zh}是什么颜色？"],
            (f"The {item.shape} is {item.color}.", f"{zh}是{ZH_COLOR[item.color]}的。"), dict(s=item.shape, zh=zh))


def shape_of(rng, scene):
    alone = [i for i in scene.items if sum(j.color == i.color for j in scene.items) == 1]
    if not alone:
        return None
    item = rng.choice(alone)
    zh = ZH_COLOR[item.color]
    return (["What shape is {c}?", "Which shape is {c}?", "What is the {c} shape?", "What is the shape of the {c} object?"],
            ["{zh}的图形是什么形状？", "什么形状是{zh}的？", "哪个图形是{zh}的？", "{zh}的是什么图形？"],
            (f"The {item.color} shape is {a(item.shape)}.", f"{zh}的图形是{ZH_SHAPE[item.shape]}。"), dict(c=item.color, zh=zh))


def where(rng, scene):
    if not scene.items:
        return None
    item = rng.choice(scene.items)
    name = referent(rng, scene.items, item)
    if name is None:
        return None
    row, column = item.cell
    return (["Where is the {s}?", "In which part of the picture is the {s}?", "What is the position of the {s}?", "Where do you see the {s}?"],
            ["{zh}在哪里？", "{zh}在图中的什么位置？", "请说出{zh}的位置。", "{zh}位于哪里？"],
            (f"The {name[0]} is {PLACE[row][column]}.", f"{name[1]}在{ZH_PLACE[row][column]}。"), dict(s=name[0], zh=name[1]))


def what_at(rng, scene):
    if scene.kind != "shapes":
        return None
    item = rng.choice(scene.items)
    cells = {i.cell: i for i in scene.items}
    cell = item.cell if rng.random() < 0.8 else (rng.randrange(3), rng.randrange(3))
    row, column = cell
    en, zh = PLACE[row][column], ZH_PLACE[row][column]
    found = cells.get(cell)
    answer = (f"There is {a(found.color)} {found.shape} {en}.", f"{zh}是{zh_thing(found)}。") if found else (f"There is nothing {en}.", f"{zh}什么也没有。")
    return (["What is {p}?", "Which shape is {p}?", "What do you see {p}?", "What can be seen {p}?"],
            ["{zh}是什么？", "{zh}有什么？", "图片的{zh}是什么图形？", "{zh}有什么图形？"], answer, dict(p=en, zh=zh))


def exists(rng, scene):
    if scene.kind != "shapes":
        return None
    item = rng.choice(scene.items)
    shape, color = item.shape, item.color
    chance = rng.random()
    if chance < 0.25:
        color = rng.choice(list(COLORS))
    elif chance < 0.5:
        shape = rng.choice(SHAPES)
    elif chance < 0.6:
        other = rng.choice(scene.items)
        color = other.color
    found = any((i.shape, i.color) == (shape, color) for i in scene.items)
    zh = f"{ZH_COLOR[color]}的{ZH_SHAPE[shape]}"
    answer = (f"Yes, there is {a(color)} {shape}.", f"有，图中有{zh}。") if found else (f"No, there is no {color} {shape}.", f"没有，图中没有{zh}。")
    return (["Is there {s}?", "Do you see {s}?", "Can you see {s} in the picture?", "Is there {s} in the picture?"],
            ["有没有{zh}？", "图中有{zh}吗？", "你看到{zh}了吗？", "图片里有没有{zh}？"], answer, dict(s=f"{a(color)} {shape}", zh=zh))


def relation(rng, scene):
    if len(scene.items) < 2:
        return None
    one, two = rng.sample(scene.items, 2)
    first, second = referent(rng, scene.items, one), referent(rng, scene.items, two)
    if first is None or second is None:
        return None
    options = []
    for axis, (before, after) in ((0, ("above", "below")), (1, ("left of", "right of"))):
        if one.cell[axis] != two.cell[axis]:
            options.append((before, after) if one.cell[axis] < two.cell[axis] else (after, before))
    true, false = rng.choice(options)
    yes = rng.random() < 0.5
    asked = true if yes else false
    fields = dict(x=first[0], y=second[0], r=asked, to=asked if asked in ("above", "below") else f"to the {asked}", zx=first[1], zy=second[1], zr=ZH_SIDE[asked])
    said = f"the {first[0]} is {true} the {second[0]}."
    zh = f"{first[1]}在{second[1]}的{ZH_SIDE[true]}。"
    return (["Is the {x} {r} the {y}?", "Is the {x} {to} the {y}?", "Do you see the {x} {r} the {y}?", "Can the {x} be found {r} the {y}?"],
            ["{zx}在{zy}的{zr}吗？", "{zx}是不是在{zy}的{zr}？", "{zx}位于{zy}的{zr}吗？", "图中{zx}在{zy}的{zr}吗？"],
            (("Yes, " if yes else "No, ") + said, ("是的，" if yes else "不是，") + zh), fields)


def background(rng, scene):
    return (["What color is the background?", "What colour is the background?", "Which color does the background have?", "What is the color of the background?"],
            ["背景是什么颜色？", "背景是什么颜色的？", "请说出背景的颜色。", "图片的背景是什么颜色？"],
            (f"The background is {scene.background}.", f"背景是{ZH_COLOR[scene.background]}的。"), {})


def number(rng, scene):
    if scene.kind != "number":
        return None
    return (["What number is written here?", "Read the number.", "Which number do you see?", "What number is this?", "What does it say?"],
            ["图中的数字是多少？", "这是什么数字？", "读出这个数字。", "上面写着什么？", "你看到了什么数字？"],
            (f"The number is {scene.text}.", f"数字是{scene.text}。"), {})


def word(rng, scene):
    if scene.kind != "word":
        return None
    return (["What does it say?", "Read the word.", "What word is written here?", "What is the text?", "Which word do you see?"],
            ["上面写着什么？", "图中写着什么单词？", "读出这个单词。", "图中的文字是什么？", "这是什么单词？"],
            (f'The word is "{scene.text}".', f"单词是“{scene.text}”。"), {})


def handwriting(rng, scene):
    if scene.kind != "handwriting":
        return None
    return (["Which digit is written by hand?", "What digit is this?", "Read the handwritten digit.", "What number is this?", "What number is written here?"],
            ["手写的数字是多少？", "这是什么数字？", "读出手写的数字。", "图中手写的是几？", "图中的数字是多少？"],
            (f"The handwritten digit is {scene.text}.", f"手写的数字是{scene.text}。"), {})


def ink_color(rng, scene):
    if scene.kind == "shapes":
        return None
    en, zh = {"number": ("number", "数字"), "word": ("word", "单词"), "handwriting": ("digit", "数字")}[scene.kind]
    return (["What color is the {s}?", "What colour is the {s}?", "In which color is the {s} written?", "What is the color of the {s}?"],
            ["{zh}是什么颜色？", "{zh}是什么颜色的？", "请说出{zh}的颜色。", "图中的{zh}是什么颜色？"],
            (f"The {en} is {scene.color}.", f"{zh}是{ZH_COLOR[scene.color]}的。"), dict(s=en, zh=zh))


def absent(rng, scene):
    if scene.kind != "shapes":
        return None
    en, zh = rng.choice([("number", "数字"), ("word", "单词")])
    return (["What {s} is written here?", "Read the {s}.", "Which {s} do you see?"], ["读出这个{zh}。", "这是什么{zh}？", "你看到了什么{zh}？"],
            (f"There is no {en} in the picture.", f"图中没有{zh}。"), dict(s=en, zh=zh))


def describe(rng, scene):
    ground, zh_ground = scene.background, ZH_COLOR[scene.background]
    if scene.kind != "shapes":
        en, zh = WRITTEN[scene.kind]
        quoted, zh_quoted = (f'"{scene.text}"', f"“{scene.text}”") if scene.kind == "word" else (scene.text, scene.text)
        answer = (f"The picture shows the {en} {quoted} in {scene.color} on a {ground} background.",
                  f"图中有{ZH_COLOR[scene.color]}的{zh}{zh_quoted}，背景是{zh_ground}的。")
    else:
        if len(scene.items) > 5:
            return None
        parts = [f"{a(i.color)} {i.shape} {PLACE[i.cell[0]][i.cell[1]]}" for i in scene.items]
        listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
        n = len(parts)
        zh = "，".join(f"{ZH_PLACE[i.cell[0]][i.cell[1]]}是{zh_thing(i)}" for i in scene.items)
        answer = (f"The picture shows {n} shape{'s' if n > 1 else ''} on a {ground} background: {listed}.",
                  f"图中有{n}个图形，背景是{zh_ground}的：{zh}。")
    return (["Describe the picture.", "What is shown in the picture?", "What do you see?", "Describe this image in detail.", "What is in this image?"],
            ["描述这张图片。", "图中有什么？", "你看到了什么？", "请详细描述这幅图。", "这张图片里有什么？"], answer, {})


KINDS = {
    "count_all": (count_all, 2), "count_shape": (count_shape, 2), "count_color": (count_color, 2), "color_of": (color_of, 2),
    "shape_of": (shape_of, 2), "where": (where, 2), "what_at": (what_at, 2), "exists": (exists, 2), "relation": (relation, 3),
    "background": (background, 1), "number": (number, 5), "word": (word, 6), "handwriting": (handwriting, 6),
    "ink_color": (ink_color, 1), "absent": (absent, 0.4), "describe": (describe, 4),
}
SYSTEM = [
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "You are a helpful assistant.", "Answer the questions.", "You are a friendly assistant. Answer in one sentence.",
    "请用中文回答。", "你是一个乐于助人的助手。",
]


def untidy(rng, question):
    """People leave out the question mark or the capital letter now and then."""
    if rng.random() < 0.06:
        question = question.rstrip("?.？。")
    if rng.random() < 0.06:
        question = question[0].lower() + question[1:]
    return question.replace("？", "?") if rng.random() < 0.06 else question


def ask(rng, scene, kind, language=None):
    """(question, answer) of this kind about the scene, or None where it does not apply."""
    made = KINDS[kind][0](rng, scene)
    if made is None:
        return None
    english, chinese, answers, fields = made
    language = language or rng.choice(["en", "zh"])
    template = rng.choice(english if language == "en" else chinese)
    return untidy(rng, template.format(**fields)), answers[0 if language == "en" else 1]


def any_question(rng, scene, language=None, more=None):
    """(question, answer) of a random kind that applies to the scene; `more` replaces some kinds' weights."""
    names, weights = list(KINDS), [(more or {}).get(k, w) for k, (_, w) in KINDS.items()]
    while True:
        asked = ask(rng, scene, rng.choices(names, weights)[0], language)
        if asked:
            return asked


assert set(BACKGROUNDS) <= set(ZH_COLOR) and set(COLORS) == set(ZH_COLOR) and set(SHAPES) == set(ZH_SHAPE)
