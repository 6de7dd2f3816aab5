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
"""What is counted of one image: alone or with others, with a target or none."""

from copy import copy

import numpy as np
import pytest
import torch

from litelvlm.data.samples import Referring, ReferringImage
from litelvlm.evaluation.evaluate import figures
from litelvlm.evaluation.measure import measure
from litelvlm.evaluation.runs import Run, configured

RUNS = [Run("generation", "none", 256), Run("generation", "litelvlm", 85)]


def test_generation_does_not_depend_on_what_else_is_asked(embedded, val):
    alone = ReferringImage(val[0].id, val[0].load_image, val[0].expressions[:1])
    (run,) = RUNS[1:2]
    together = measure(*embedded, val[0], [run])["counts"][run.name][0]
    single = measure(*embedded, alone, [run])["counts"][run.name][0]
    assert together[0] == single[0] and np.allclose(together[1:], single[1:], atol=20)


def test_no_target_is_right_when_the_answer_is_empty(embedded, val):
    model, processor = embedded
    nothing = ReferringImage("a", val[0].load_image, (Referring("n", "the object", lambda: None),))
    ((_, intersection, union, predicted, expected, _),) = measure(model, processor, nothing, RUNS[:1])["counts"][
        RUNS[0].name
    ]
    assert intersection == expected == 0 and union == predicted


def test_conversations_leave_out_what_has_no_target(embedded, val):
    """The answer that is given names a mask, so that it cannot be asked for what is not there."""
    model, processor = embedded
    runs = [Run("generation", "none", 256), Run("conversation", "none", 256)]
    nothing, there = Referring("n", "the pink zebra", lambda: None), val[0].expressions[0]
    counts = measure(model, processor, ReferringImage("a", val[0].load_image, (nothing, there)), runs)["counts"]
    assert [[counted[0] for counted in counts[run.name]] for run in runs] == [["n", there.id], [there.id]]
    alone = measure(model, processor, ReferringImage("a", val[0].load_image, (nothing,)), runs)["counts"]
    assert [len(alone[run.name]) for run in runs] == [1, 0]


@pytest.mark.parametrize("protocol", ["generation", "conversation"])
def test_tokens_that_were_kept_are_counted_and_not_those_allowed(embedded, val, protocol):
    """The mean of a result is of all its expressions, however they share conversations."""
    model, processor = embedded
    four = tuple(Referring(str(i), text, lambda: np.ones((256, 256), np.uint8)) for i, text in enumerate("abcd"))
    runs = [Run(protocol, *kind) for kind in (("none", 256), ("prumerge-adaptive", 200), ("fastv", 85))]
    line = {"key": "a"} | measure(model, processor, ReferringImage("a", val[0].load_image, four), runs)
    inputs = processor(val[0].load_image(), "a")
    with torch.no_grad():
        adaptive = model(**inputs, pruning_method="prumerge-adaptive", num_retained_tokens=200).num_retained_tokens
    assert 1 < int(adaptive) < 100
    expected = [256, int(adaptive), 85]
    assert [[counted[-1] for counted in line["counts"][run.name]] for run in runs] == [[n] * 4 for n in expected]
    rows = figures([line], runs, 256, 0)
    assert [row["kept"] for row in rows] == expected and [row["retained"] for row in rows] == [256, 200, 85]


@pytest.mark.parametrize("form", ["question", "expression", "templates"])
def test_guide_form_decides_what_is_kept(embedded, val, form, monkeypatch):
    model, processor = embedded
    seen, select = [], type(model.model).select_tokens
    monkeypatch.setattr(type(model.model), "select_tokens", lambda *a: seen.append(select(*a)) or seen[-1])
    measure(model, processor, val[0], [Run("generation", "litelvlm", 85, guide_form=form)])
    texts = [expression.text for expression in val[0].expressions]
    asking = copy(processor)
    asking.guide_form = form
    inputs = asking(val[0].load_image(), texts)
    with torch.no_grad():
        expected = model(**inputs, num_retained_tokens=85, pruning_method="litelvlm").retained_indices
    assert torch.equal(seen[0][0].indices, expected)
    assert processor.guide_form == "question"


def test_one_state_serves_both_selection_rules(embedded, val, monkeypatch):
    """CLIP sees an image once for a method; what each rule keeps is what the model keeps that is configured so."""
    model, processor = embedded
    rules, kept, select = ("paper", "released"), [], type(model.model).select_tokens
    monkeypatch.setattr(type(model.model), "select_tokens", lambda *a: kept.append(select(*a)) or kept[-1])
    measure(model, processor, val[0], [Run("generation", "litelvlm", 85, (("selection_rule", r),)) for r in rules])
    monkeypatch.undo()
    inputs = processor(val[0].load_image(), [expression.text for expression in val[0].expressions])
    for rule, (tokens, _) in zip(rules, kept, strict=True):
        with torch.no_grad(), configured(model.config, {"selection_rule": rule}):
            expected = model(**inputs, num_retained_tokens=85, pruning_method="litelvlm").retained_indices
        assert torch.equal(tokens.indices, expected)
    assert not torch.equal(kept[0][0].indices, kept[1][0].indices)
