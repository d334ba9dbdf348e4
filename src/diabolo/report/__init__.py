"""A fitted estimator and its rows on one page: `summary` is a plain dict, `write` renders it as HTML.

diabolo.report.write(vae, X, "page.html", color="species", held_out=unseen)
"""

from diabolo.report.facts import summary
from diabolo.report.page import publish, render, write

__all__ = ["publish", "render", "summary", "write"]
