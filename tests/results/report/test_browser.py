"""The page as a reader has it: headless Chromium, by keyboard, at three widths, light and dark."""

from typing import Any

import pytest

from tests.results.report.conftest import Written

_CONTRAST = """
const linear = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const worst = [];
const walker = document.createTreeWalker(document.querySelector('.frame'), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const colour = element.closest('svg') ? style.fill : style.color;
  if (!colour.startsWith('rgb')) continue;
  const pair = [luminance(parse(colour)), luminance(behind(element))].sort((a, b) => b - a);
  worst.push([(pair[0] + 0.05) / (pair[1] + 0.05), walker.currentNode.data.slice(0, 40), element.className.toString()]);
}
return worst.sort((a, b) => a[0] - b[0]).slice(0, 3);
"""


def show(browser: Any, written: Written, *, width: int = 1280, dark: bool = False, script: bool = True) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.get(written.page.as_uri())
    if not script:
        # Only now: the setting is of the page's process, and the first page of a file starts another one.
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        browser.refresh()


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_nothing_is_requested_and_nothing_complains(browser: Any, written: Written) -> None:
    browser.get_log("browser")
    show(browser, written)
    assert browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
    assert browser.get_log("browser") == []
    policy = browser.execute_script("return document.querySelector('meta[http-equiv]').content")
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Any, written: Written, width: int) -> None:
    show(browser, written, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    scroll, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == width
    assert scroll <= inner
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, svg')"
        " && one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)"
        ".map(one => one.outerHTML.slice(0, 200))"
    )
    assert wide == []


def test_the_main_tables_fit_a_laptop(browser: Any, written: Written) -> None:
    show(browser, written, width=1280)
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(one => one.checkVisibility()).map(one =>"
        " [one.querySelector('table').id, one.scrollWidth - one.clientWidth])"
    )
    main = {name: more for name, more in boxes if name.endswith(("scores", "comparisons", "published"))}
    assert {name.rpartition("_")[2].rpartition("-")[2] for name in main} == {"scores", "comparisons", "published"}
    assert set(main.values()) == {0}, main
    breaks = "return [...document.querySelectorAll('thead th')].map(one => getComputedStyle(one).overflowWrap)"
    assert set(browser.execute_script(breaks)) == {"normal"}  # no break inside a word of a heading


def test_wide_tables_scroll_by_keyboard_and_keep_their_first_column(browser: Any, written: Written) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, written, width=360)
    regions = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(o => [o.tabIndex, o.role, o.ariaLabel])"
    )
    assert all(index == 0 and role == "region" and label for index, role, label in regions)
    wide = "const box = [...document.querySelectorAll('.scroll')].find(one => one.scrollWidth > one.clientWidth + 100);"
    browser.execute_script(
        f"{wide} box.scrollIntoView(); box.focus({{preventScroll: true}}); box.scrollTo({{left: 80}})"
    )
    press(browser, Keys.ARROW_RIGHT)
    left, first, edge = browser.execute_script(
        f"{wide} return [box.scrollLeft, box.querySelector('tbody th').getBoundingClientRect().left,"
        " box.getBoundingClientRect().left]"
    )
    assert left >= 80
    assert first == pytest.approx(edge, abs=1)


def test_sorting_by_keyboard(browser: Any, written: Written) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, written)
    table = browser.execute_script(
        "return [...document.querySelectorAll('table.sortable')].find(one => one.tBodies[0].rows.length === 5).id"
    )
    find = f"const table = document.getElementById({table!r});"
    column = browser.execute_script(
        f"{find} return [...table.tHead.rows[0].cells].findIndex(o => o.innerText.startsWith('mean'))"
    )
    header = f"table.tHead.rows[0].cells[{column}]"
    read = (
        f"{find} return [[...table.tBodies[0].rows].map(row => row.cells[{column}].dataset.value), {header}.ariaSort]"
    )
    values, order = browser.execute_script(read)
    assert order == "none"
    browser.execute_script(f"{find} {header}.querySelector('button.sort').focus()")
    press(browser, Keys.ENTER)
    down, order = browser.execute_script(read)
    assert order == "descending"
    press(browser, Keys.SPACE)
    up, order = browser.execute_script(read)
    assert order == "ascending"
    for found, reverse in ((down, True), (up, False)):
        numbers = [float(value) for value in found if value]
        assert numbers == sorted(numbers, reverse=reverse)
        assert found[-1] == ""  # the group without a mean
        assert sorted(found) == sorted(values)


def test_help_opens_by_keyboard_and_closes_with_escape(browser: Any, written: Written) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, written)
    opened = "return document.querySelectorAll(':popover-open').length"
    browser.execute_script("document.querySelector('th .help').focus()")
    press(browser, Keys.ENTER)
    assert browser.execute_script(opened) == 1
    text = browser.execute_script("return document.querySelector(':popover-open').innerText")
    assert len(text) > 40
    box = browser.execute_script(
        "const b = document.querySelector(':popover-open').getBoundingClientRect(); return [b.left, b.right]"
    )
    assert 0 <= box[0] < box[1] <= 1280
    press(browser, Keys.ESCAPE)
    assert browser.execute_script(opened) == 0
    assert browser.execute_script("return document.activeElement.matches('th .help')")
    browser.execute_script("document.querySelector('.matrix td button').focus()")
    press(browser, Keys.ENTER)
    assert "Difference" in browser.execute_script("return document.querySelector(':popover-open').innerText")
    press(browser, Keys.ESCAPE)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(browser: Any, written: Written, dark: bool) -> None:
    show(browser, written, dark=dark)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    worst = browser.execute_script(_CONTRAST)
    assert worst[0][0] >= 4.5, worst


def test_everything_is_read_without_a_script(browser: Any, written: Written) -> None:
    show(browser, written, script=False)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    counts = browser.execute_script(
        "return [document.querySelectorAll('.sort').length, [...document.querySelectorAll('thead th')]"
        ".filter(one => one.checkVisibility() && !one.innerText.trim()).length]"
    )
    assert counts == [0, 0]  # no dead buttons, no header without words


def test_one_figure_at_a_time(browser: Any, written: Written) -> None:
    """Each figure is there for wide and for narrow pages, and one of them is shown."""
    for width in (360, 1280):
        show(browser, written, width=width)
        shown = browser.execute_script(
            "return [...document.querySelectorAll('figure')].map(one => [...one.querySelectorAll('svg.plot')]"
            ".filter(svg => svg.checkVisibility()).length)"
        )
        assert shown
        assert set(shown) == {1}
