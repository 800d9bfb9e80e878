"""Texts in the package: for tokenizers, and questions for runs without data."""

TEXTS = (
    "She go to school yesterday, didn't she? I'd say they'll see.",
    "e-mail: a.b@c.de, http://x.y/z?q=1&r=%20; naïve café, “quotes” — dashes…",
    "今天天气很好，我们去公园吧。中文 English 混排 12345 个。龘靐",  # noqa: RUF001
    "春の日、학교, Привет, שלום, ﷺ",
    "def f(x):\n\treturn x ** 2 + 0x1F  # squared\r\n",
    'for (int i = 0; i < 100; ++i) {\n    printf("%d\\n", a[i]);\n}',
    "0 7 42 2026 3.14159 1,000,000 1e-5 ١٢٣ Ⅷ ⅔",
    "a   b\n\n\n\tc \u00a0\u3000\u200bd  ",
    "\N{FACE WITH TEARS OF JOY}\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} ok",
    "CAN'T I'M ...!!!??? --==++ a_b_c \x07",
)
QUESTIONS = (
    (
        "Correct the grammar: She go to school yesterday and forget her bag.",
        "She went to school yesterday and forgot her bag.",
    ),
    (
        "What is the capital of France, and which river runs through it?",
        "The capital of France is Paris, and the river Seine runs through it.",
    ),
    (
        "Summarise: The meeting began at nine. Tom was late, so the budget was discussed first. "
        "Everyone agreed to it.",
        "The meeting started with the budget because Tom was late, and everyone agreed to it.",
    ),
    (
        "Explain in one sentence why the sky is blue.",
        "Air scatters the short waves of blue light more than the long waves of red light.",
    ),
    (
        "Write a Python function that returns the larger of two numbers.",
        "def larger(a, b):\n    return a if a > b else b",
    ),
    ("List three fruits.", "1. Apple\n2. Banana\n3. Orange"),
    ("How much is 12 times 12?", "12 times 12 is 144."),
    ("Translate into French: Good morning, my friend.", "Bonjour, mon ami."),
    ("用一句话说明为什么要多喝水。", "多喝水有助于身体排出废物，保持健康。"),  # noqa: RUF001
    ("把这句话翻译成英文：今天天气很好。", "The weather is very nice today."),  # noqa: RUF001
    (
        "Give me a tip for learning a language.",
        "Practise a little every day, and speak with people as early as you can.",
    ),
    (
        "Is this sentence positive or negative? The food was cold and the waiter was rude.",
        "It is negative.",
    ),
)
"""Each with an answer."""
