"""Pictures of the recorded graph, of training, and of what a network sees; and a page to draw digits on."""

from .figures import confusion, curves, feature_maps, html_report, kernels, mistakes, tiles
from .graphs import graph
from .pages import page

__all__ = ["confusion", "curves", "feature_maps", "graph", "html_report", "kernels", "mistakes", "page", "tiles"]
