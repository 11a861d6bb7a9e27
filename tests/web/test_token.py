"""A page and its token: in a real browser, neither a link's code nor a token stays in the address."""

import pytest
from scene import Scene

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect  # noqa: E402

TOKEN = "a-long-token"


def listens(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("Listening")


def test_what_lets_a_page_in_does_not_stay_in_its_address(serve, opened):
    server = serve(token=TOKEN)
    server.publish(Scene().status())
    home = f"{server.url}/"
    page, other = opened(), opened()
    page.goto(server.link())
    listens(page)
    assert page.url == home
    page.reload()
    listens(page)
    assert other.goto(home).status == 401
    other.goto(f"{home}?token={TOKEN}&session=kitchen")
    listens(other)
    assert other.url == f"{home}?session=kitchen"
    other.reload()
    listens(other)


@pytest.mark.parametrize("path", ["", "overlay", "mic"])
def test_a_page_that_stays_open_for_months_asks_for_a_new_cookie(serve, opened, path):
    server = serve(token=TOKEN)
    page = opened()
    page.clock.install()
    page.goto(server.link(f"/{path}"))
    with page.expect_response(lambda response: response.request.method == "HEAD") as asked:
        page.clock.fast_forward("13:00:00")
    assert asked.value.url == f"{server.url}/{path}"
    assert asked.value.status == 200
