"""The picture of the README: the walk through the SIDs of MovieLens 100k, as a browser shows it.

Learns the SIDs (a minute) and takes a picture of their page, with Playwright and a chromium of the
system; needs the extra `browser`. `--page=sids.html` takes one that is there.

Run: ``python examples/readme_picture.py --output=docs/sids.png``
"""

import argparse
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

WINDOW = {"width": 1280, "height": 800}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main(arguments=None):
    """Write the picture; returns its path."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--page", help="sids.html of one table (default: learned here)")
    parser.add_argument("--place", default="#prefix=26&item=50", help="what is shown of the page")
    parser.add_argument("--output", default="docs/sids.png")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(options.page) if options.page else learned(folder)
        picture(page, options.place, Path(options.output))
    return options.output


def learned(folder):
    """The page of SIDs of titles and genres, by R3VAE."""
    from recbole_gr.commands.tokenize import tokenize

    settings = {"tokenizer": "R3VAE", "item_content": "text", "show_progress": False}
    tokenize("ml-100k", folder, config_dict=settings)
    return Path(folder, "sids.html")


def picture(page, place, output):
    """A picture of the first screen of a page; of 256 colours it takes a quarter of the bytes."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        window = browser.new_page(viewport=WINDOW)
        window.goto(f"{page.absolute().as_uri()}{place}")
        window.wait_for_selector("html[data-drawn][data-walk=drawn]")
        window.wait_for_timeout(500)  # the tree has grown to its size
        shot = window.screenshot()
        browser.close()
    Image.open(BytesIO(shot)).convert("RGB").quantize(256).save(output, optimize=True)


if __name__ == "__main__":
    print(main())
