from warmstart.reporting import html


def test_text_is_escaped_wherever_it_enters():
    bad = '<b>"&'
    blocks = [
        html.paragraph(bad, kind="verdict"),
        html.bullets([bad]),
        html.table([bad, "x"], [(bad, bad)], caption=bad),
        html.figure("<svg></svg>", bad),
    ]
    page = html.page(bad, bad, [html.section(bad, *blocks)], footer=bad)
    assert "<b>" not in page
    assert page.count("&lt;b&gt;&quot;&amp;") == 13


def test_what_a_terminal_or_an_encoding_would_stumble_over_is_shown_as_escapes():
    name = "a\x1b0m\u202e\udcff"
    page = html.page(name, name, [html.paragraph(name), html.table([name], [(name,)], caption=name)])
    assert page.encode().count(rb"a\x1b0m\u202e\udcff") == 3 + 1 + 4


def test_code_and_addresses_are_marked():
    text = html.paragraph("see `x<y` at https://arxiv.org/abs/1, and http://other")
    assert text == (
        '<p>see <code>x&lt;y</code> at <a href="https://arxiv.org/abs/1">https://arxiv.org/abs/1</a>, '
        "and http://other</p>"
    )


def test_an_empty_section_is_left_out():
    assert html.section("Empty", html.bullets([]), html.subsection("Empty too", html.bullets([]))) == ""
    assert "Empty" not in html.page("t", "l", [html.section("Empty")])


def test_the_best_row_is_marked():
    table = html.table(["method", "steps"], [("cold", "10"), ("dash", "2")], caption="c", best="dash")
    assert table.count("class=best") == 1
    assert '<tr class=best><th scope="row">dash' in table
