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
"""The configuration names every bad value, and survives JSON."""

import json

import pytest

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig

SAM = {"prompt_encoder_config": {"hidden_size": 256}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_retained_tokens", 0),
        ("num_retained_tokens", -3),
        ("num_retained_tokens", 577),
        ("num_retained_tokens", 0.5),
        ("num_retained_tokens", True),
        ("num_retained_tokens", 1.0),
        ("num_retained_tokens", "192"),
        ("num_context_tokens", -1),
        ("num_context_tokens", 193),
        ("num_context_tokens", 1.0),
        ("pruning_method", "best"),
        ("pruning_method", None),
        ("similarity_order", "low"),
        ("selection_rule", "official"),
        ("selection_rule", None),
        ("token_order", "random"),
        ("position_mode", "absolute"),
        ("seg_token_id", 32000),
        ("seg_token_id", -1),
        ("seg_token_id", 5.0),
        ("dice_loss_weight", -0.5),
        ("ce_loss_weight", "1"),
    ],
)
def test_bad_value_is_named_with_what_is_allowed(field, value):
    with pytest.raises(ValueError, match=rf"`{field}` is {value!r}") as error:
        LiteLVLMConfig(**{field: value})
    assert "allowed" in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"guide_config": {"projection_dim": 512}},
            r"`guide_config.projection_dim` is 512 .* `projection_dim` is 768",
        ),
        ({"backbone_config": {"model_type": "llava", "vision_feature_select_strategy": "full"}}, r"is 'full'; only"),
        (
            {"backbone_config": {"model_type": "llava", "vision_config": {"model_type": "siglip2_vision_model"}}},
            r"vision tower is 'siglip2_vision_model'",
        ),
        ({"backbone_config": {"model_type": "llama"}}, r"is a 'llama' configuration"),
        ({"sam_config": SAM}, r"`seg_token_id` is None but `sam_config` is given"),
        ({"sam_config": SAM, "seg_token_id": 7, "mask_embedding_size": 64}, r"`mask_embedding_size` is 64"),
    ],
)
def test_parts_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LiteLVLMConfig(**values)


def test_defaults_are_those_of_the_paper():
    config = LiteLVLMConfig()
    assert (config.pruning_method, config.num_retained_tokens, config.num_patches) == ("litelvlm", 192, 576)
    assert (config.similarity_order, config.token_order, config.position_mode) == (
        "lowest",
        "reference",
        "consecutive",
    )
    assert (config.selection_rule, config.num_context_tokens) == ("paper", None)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("num_retained_token", "num_retained_tokens"), ("position_modes", "position_mode"), ("sam_confg", "sam_config")],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(name, nearest, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` is no field of LiteLVLMConfig. Did you mean `{nearest}`"):
        LiteLVLMConfig(**{name: 5})
    LiteLVLMConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`{name}` is no field of LiteLVLMConfig. Did you mean `{nearest}`"):
        LiteLVLMConfig.from_pretrained(tmp_path, **{name: 5})


def test_an_unknown_field_without_a_near_one_is_refused_too():
    with pytest.raises(ValueError, match="`colour` is no field of LiteLVLMConfig"):
        LiteLVLMConfig(colour="red")


def test_what_a_tool_has_set_on_a_saved_model_is_kept(tmp_path):
    config = LiteLVLMConfig()
    config.batch_norm_eps = 1.0
    config.save_pretrained(tmp_path)
    assert LiteLVLMConfig.from_pretrained(tmp_path).batch_norm_eps == 1.0


def test_a_misspelled_field_of_a_file_is_refused(tmp_path):
    values = LiteLVLMConfig().to_dict() | {"similarity_ordr": "highest"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"`similarity_ordr` is no field of LiteLVLMConfig. Did you mean"):
        LiteLVLMConfig.from_pretrained(tmp_path)


def test_the_budget_is_a_number():
    with pytest.raises(ValueError, match=r"`num_retained_tokens` is None; allowed .*`pruning_method='none'` keeps"):
        LiteLVLMConfig(num_retained_tokens=None)
    config = LiteLVLMConfig()
    assert config.resolve_pruning() == ("litelvlm", 192) == config.resolve_pruning(None, None)
    assert config.resolve_pruning(576, "none") == ("none", 576) == config.resolve_pruning(None, "none")
    with pytest.raises(ValueError, match=r"`num_retained_tokens` is 64, but `pruning_method=.none.` keeps all 576"):
        config.resolve_pruning(64, "none")


def test_a_field_that_is_set_later_is_looked_at_in_the_next_call():
    config = LiteLVLMConfig()
    config.similarity_order = "hightest"
    with pytest.raises(ValueError, match="`similarity_order` is 'hightest'; allowed are 'lowest', 'highest'"):
        config.resolve_pruning()


def test_json_round_trip_and_overrides(tmp_path, config_values):
    config = LiteLVLMConfig(**config_values)
    config.save_pretrained(tmp_path)
    assert LiteLVLMConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    overridden = LiteLVLMConfig.from_pretrained(tmp_path, num_retained_tokens=3, position_mode="original")
    assert (overridden.num_retained_tokens, overridden.position_mode) == (3, "original")
    with pytest.raises(ValueError, match="`num_retained_tokens` is 17; allowed are integers from 1 to 16"):
        LiteLVLMConfig.from_pretrained(tmp_path, num_retained_tokens=17)


def test_parts_do_not_say_where_they_were_loaded_from():
    config = LiteLVLMConfig(sam_config=SAM, seg_token_id=5)
    for part in (config.backbone_config, config.backbone_config.vision_config, config.guide_config, config.sam_config):
        part._name_or_path = "/data/mine/model"
    assert "/data/mine" not in config.to_json_string() and "/data/mine" not in json.dumps(config.to_diff_dict())
