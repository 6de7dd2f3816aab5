# Copyright 2026 The LiteLVLM authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""95 % bootstrap confidence intervals over images: who draws an image draws all of its expressions."""

from collections.abc import Sequence

import numpy as np


def resample(
    images: Sequence[str], values: np.ndarray, seed: int = 0, num_resamples: int = 1000
) -> tuple[np.ndarray, int]:
    """
    Sums of values over resampled images. `scipy.stats.bootstrap` would draw single expressions, which are not
    independent of others on the same image.

    Args:
        images (`Sequence[str]`): the image of each expression.
        values (`np.ndarray` of shape `(num_expressions, num_values)`): what to sum.
        seed (`int`): the same seed draws the same images for as many images.
        num_resamples (`int`): how often to draw as many images as there are, with replacement.

    Returns:
        The sums `(1 + num_resamples, num_values)`, float64, first those of the images themselves, and the number of
        images.
    """
    names, position = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, position, values.astype(np.float64))
    drawn: np.ndarray = np.ones((1, len(names)))
    if len(names):
        shares = np.full(len(names), 1 / len(names))
        draws = np.random.default_rng(seed).multinomial(len(names), shares, size=num_resamples)
        drawn = np.concatenate([drawn, draws])
    return drawn @ sums, len(names)


def interval(samples: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """The first of some samples, and the 95 % interval of the others; `None` where nothing is known."""
    value, drawn = float(samples[0]), samples[1:][~np.isnan(samples[1:])]
    if np.isnan(value):
        return None, None, None
    if not len(drawn):
        return value, None, None
    low, high = np.percentile(drawn, (2.5, 97.5))
    return value, float(low), float(high)


def mean_with_interval(
    images: Sequence[str], values: Sequence[float], seed: int = 0, num_resamples: int = 1000
) -> tuple[float, float, float]:
    """
    Mean of a value of each expression, and its 95 % interval.

    Args:
        images (`Sequence[str]`): the image of each expression.
        values (`Sequence[float]`): at least one.
        seed (`int`), num_resamples (`int`): as in [`resample`].
    """
    table = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    total, number = resample(images, table, seed, num_resamples)[0].T
    means = total / number
    low, high = np.percentile(means[1:], (2.5, 97.5))
    return float(means[0]), float(low), float(high)


__all__ = ["interval", "mean_with_interval", "resample"]
