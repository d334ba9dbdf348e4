"""Panels: what a fitted estimator learned, drawn on matplotlib Axes.

Every panel takes a fitted estimator, mostly some rows, and an `ax` to draw on; without one it makes a figure
of its own, not one of pyplot's: `diabolo.plot.map(vae, X, color="species").figure.savefig("map.png")`.
What is drawn is a plain dict first (`diabolo.plot.shown`), so that a page can draw the same.
"""

from diabolo.plot.panels import loss, map, marginals, reconstructions, samples, surprise

__all__ = ["loss", "map", "marginals", "reconstructions", "samples", "surprise"]
