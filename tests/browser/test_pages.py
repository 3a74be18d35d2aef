"""Every page of a studio that was just installed opens, by the navigation and by its address, and says what to do."""


def test_every_page_opens_without_an_error(chromium, page, studio, picture_of, settle):
    names = page.locator("[data-testid=stSidebarNavLink]").all_inner_texts()
    names = [text.split("\n")[-1].strip() for text in names]
    assert len(names) == 9
    for name in names:
        page.get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=name, level=1).wait_for()
        if name == "Pose":
            page.get_by_test_id("stBaseButton-primary").click()
        if name == "Library":
            page.get_by_text("Characters", exact=True).click()
        if name == "System":  # what studio doctor found
            page.get_by_text("is here, – is not here").wait_for(timeout=120_000)
        settle(page, quiet_s=2)
        assert not page.locator("[data-testid=stException]").count(), name
        picture_of(page, f"page-{name.lower()}")


def test_the_first_page_of_a_fresh_studio_may_be_any(chromium, studio):
    """By its address, before anybody opened the first one."""
    tab = chromium.new_page()
    tab.goto(f"{studio.address}/library")
    tab.get_by_role("heading", name="Library", level=1).wait_for(timeout=60_000)
    tab.close()
