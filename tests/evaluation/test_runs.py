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
"""Variants: methods with settings, as users name them."""

import pytest

from litelvlm.evaluation.runs import Run, configured, parse_variant


def test_variants_change_the_configuration_for_a_while(embedded):
    config = embedded[0].config
    assert parse_variant("litelvlm", config) == ("litelvlm", (), None)
    text = "litelvlm:position_mode=original,num_context_tokens=16,guide_form=expression"
    method, settings, guide_form = parse_variant(text, config)
    assert guide_form == "expression" and Run("generation", method, 85, settings, guide_form).variant == text
    with pytest.raises(RuntimeError), configured(config, dict(settings)):
        assert config.position_mode == "original" and config.num_context_tokens == 16
        raise RuntimeError
    assert config.position_mode == "consecutive" and config.num_context_tokens is None


@pytest.mark.parametrize(
    "field", ["pruning_method=random", "num_retained_tokens=3", "seg_token_id=5", "dtype=float32"]
)
def test_a_field_that_selection_does_not_read_is_no_variant(embedded, field):
    with pytest.raises(ValueError, match=f"{field}.* is no FIELD=VALUE that selection reads; allowed are num_context"):
        parse_variant(f"litelvlm:{field}", embedded[0].config)


def test_both_selection_rules_are_variants(embedded):
    config = embedded[0].config
    for rule in ("paper", "released"):
        assert parse_variant(f"litelvlm:selection_rule={rule}", config)[1] == (("selection_rule", rule),)
    with pytest.raises(ValueError, match="`selection_rule` is 'papers'; allowed are 'paper', 'released'"):
        parse_variant("litelvlm:selection_rule=papers", config)
