"""Draws under a condition: is a digit drawn as a 3 a 3? `ConditionalVAE` by hidden share and by gain of the labels.

    python benchmarks/conditions.py [--seeds 2]

Of scikit-learn's handwritten digits 1,300 are learned, as tables of 64 columns, and 497 held out. 1,000 digits are
drawn, 100 under each label. A support vector classifier, trained on all true digits, says how many of them are what was
asked for. Nats: mean log-density of the held-out digits, given their label and with the label not known.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from diabolo import VAE, ConditionalVAE
from diabolo.families import conditional

N_TRAIN = 1300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    seeds = range(parser.parse_args().seeds)
    rows, number = load_digits(return_X_y=True)
    label = np.array([f"digit {k}" for k in number])
    judge, asked = SVC().fit(rows, label), np.repeat(np.unique(label), 100)
    plain = [VAE(hidden_layer_sizes=(64,), random_state=seed).fit(rows[:N_TRAIN]) for seed in seeds]
    print(f"VAE, which sees no label: {np.mean([vae.score(rows[N_TRAIN:]) for vae in plain]):.2f} nats")
    print("hidden  gain  as asked  nats, known  not known")
    for share, gain in ((0.0, 1.0), (0.0, 3.0), (0.1, 1.0), (0.1, 3.0), (0.1, 10.0), (0.2, 3.0), (0.3, 3.0)):
        conditional._GAIN = gain
        found = []
        for seed in seeds:
            cvae = ConditionalVAE(hidden_layer_sizes=(64,), given_dropout=share, random_state=seed)
            cvae.fit(rows[:N_TRAIN], label[:N_TRAIN])
            drawn = cvae.sample(len(asked), given=asked, random_state=seed)
            known = cvae.score(rows[N_TRAIN:], label[N_TRAIN:])
            unknown = cvae.score(rows[N_TRAIN:]) if share else np.nan
            found.append((np.mean(judge.predict(drawn) == asked), known, unknown))
        as_asked, known, unknown = np.mean(found, axis=0)
        print(f"{share:6g} {gain:5g} {as_asked:9.3f} {known:12.2f} {unknown:10.2f}", flush=True)


if __name__ == "__main__":
    main()
