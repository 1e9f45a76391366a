"""Shared by the lessons: the digits, and the style and place of the pictures."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tinygrad_lenet import data

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, RED, GREY = "#2b6cb0", "#dd7a1f", "#2f855a", "#c53030", "#8a8f98"
mpl.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "savefig.dpi": 130,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, RED, GREY]),
        "legend.frameon": False,
    }
)


def find(name):
    """A file or folder of the examples: beside the lessons, or one folder up."""
    return next((place / name for place in (HERE, HERE.parent) if (place / name).exists()), HERE / name)


def save(name):
    """Save the current picture beside the lessons."""
    path = HERE / f"{name}.png"
    plt.savefig(path)
    print(f"picture: {path.name}")


def show(axes, picture, title="", signed=False):
    """Draw an image: dark is large; or, signed, red is above 0 and blue below."""
    limit = abs(picture).max()
    axes.imshow(picture, cmap="RdBu_r" if signed else "Greys", vmin=-limit if signed else 0, vmax=limit)
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.set_title(title, fontsize=10)


def digits(count, train=True):
    """The first ``count`` digits of MNIST: images (count, 1, 28, 28) from 0 to 1 in float32, and labels (count,)."""
    mnist = data.MNIST(find("data"), train=train)
    return mnist.images[:count, None].astype("float32") / 255, mnist.labels[:count].astype(int)


def draw_graph(axes, output):
    """Draw a graph of values, with the leaves to the left, values inside the nodes and slopes on the edges."""
    depth, rows = {}, {}

    def place(node, level):
        depth[node] = max(level, depth.get(node, 0))
        for parent in node.parents:
            place(parent, level + 1)

    place(output, 0)
    for node, level in depth.items():
        node.place = (-level, rows.get(level, 0) - level / 3)
        rows[level] = rows.get(level, 0) + 1
    for node in depth:
        for number, (parent, slope) in enumerate(zip(node.parents, node.slopes, strict=True)):
            bend = f"arc3,rad={0.35 * (1 - 2 * number)}" if node.parents.count(parent) > 1 else "arc3"
            arrow = {"arrowstyle": "-|>", "color": "0.5", "shrinkA": 19, "shrinkB": 19, "connectionstyle": bend}
            axes.annotate("", node.place, parent.place, arrowprops=arrow)
            middle = [(p + q) / 2 for p, q in zip(node.place, parent.place, strict=True)]
            lift = 0.32 * (1 - 2 * number) if node.parents.count(parent) > 1 else 0.12
            axes.text(middle[0], middle[1] + lift, f"{slope:.2f}", color=ORANGE, ha="center", va="center", fontsize=9)
        label = f"{node.name}\n{node.data:.2f}"
        axes.text(*node.place, label, ha="center", va="center", color="white", bbox={"boxstyle": "circle", "fc": BLUE})
