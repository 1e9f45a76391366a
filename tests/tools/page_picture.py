"""The README's picture of the page: a drawn 3, what speaks for it, and one unit in numbers.

python tests/tools/page_picture.py examples/page.png
"""

import sys
import tempfile
from pathlib import Path

from browser import browser
from PIL import Image
from test_page_browser import THREE, draw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))


def main(target):
    import predict

    from tinygrad_lenet import visualize

    model, mean, std = predict.load(ROOT / "examples" / "lenet5.npz")
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        path = Path(folder, "page.html")
        visualize.page(model, path, "LeNet-5 reads a drawn digit", mean=mean, std=std)
        page.emulate(1280, 900)
        page.open(path)
        draw(page, THREE)
        page.run("document.querySelectorAll('#bars input')[3].click(); select(4, 345)")
        page.picture(target)
    Image.open(target).convert("RGB").save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
