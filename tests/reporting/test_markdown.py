from warmstart.reporting import markdown


def test_ordinary_names_stay_as_they_are():
    assert markdown.table(("method", "x"), [("dash[alpha=0.1,noise_std=0]", "1")]) == (
        "| method                      |   x |\n"
        "| --------------------------- | --: |\n"
        "| dash[alpha=0.1,noise_std=0] |   1 |\n"
    )


def test_names_are_text_and_nothing_else():
    names = {
        "a|b": r"a\|b",
        "<script>": r"\<script>",
        "`x`": r"\`x\`",
        "a\nb\rc": "a b c",
        "a\\|": r"a\\\|",
        "[a](javascript:b)": r"[a]\(javascript:b)",
        "\x1b[0m\udcff": r"\\x1b[0m\\udcff",
    }
    for name, shown in names.items():
        line = markdown.table(("method",), [(name,)]).splitlines()[2]
        assert line.removeprefix("| ").removesuffix(" |").strip() == shown


def test_a_sentence_is_one_line_without_elements_and_keeps_its_code():
    assert markdown.sentence("add `a<b`;\n<b>&") == "add `a&lt;b`; &lt;b>&amp;"


def test_what_is_empty_has_a_table_too():
    assert markdown.table(("a", "b"), []) == "| a   |   b |\n| --- | --: |\n"
