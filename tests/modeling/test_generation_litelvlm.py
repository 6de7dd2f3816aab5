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
"""What `generate` and `forward` take as prompts: embeddings, cached conversations, more than there are positions."""

import copy
import logging

import pytest
import torch
from transformers import DynamicCache

from litelvlm.modeling.versions_litelvlm import CACHE_NAME

IMAGE_ID, SEG_ID = 90, 91
GENERATE = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


def as_embeddings(model, batch):
    return {name: value for name, value in batch.items() if name != "input_ids"} | {
        "inputs_embeds": model.get_input_embeddings()(batch["input_ids"]).detach()
    }


def turns(model, batch, **first_options):
    """A first turn, its cache, and the prompt of a second turn."""
    first = model.generate(**batch, **GENERATE, **first_options, return_dict_in_generate=True)
    second = torch.cat([first.sequences, torch.full((len(first.sequences), 3), 7)], dim=1)
    return first[CACHE_NAME], second


@pytest.mark.parametrize("method", ["litelvlm", "uniform", "fastv"])
def test_a_pruned_conversation_is_not_continued_from_its_cache(make_model, make_batch, method):
    model, batch = make_model(pruning_method=method), make_batch()
    cache, second = turns(model, batch)
    with pytest.raises(ValueError, match="pass the whole conversation"):
        model.generate(second, **{CACHE_NAME: cache}, **GENERATE)
    with pytest.raises(ValueError, match="pass the whole conversation"):
        model.generate(inputs_embeds=model.get_input_embeddings()(second), **{CACHE_NAME: cache}, **GENERATE)


def test_an_unpruned_conversation_goes_on_from_its_cache(make_model, make_batch):
    model, batch = make_model(), make_batch()
    cache, second = turns(model, batch, pruning_method="none")
    whole = model.generate(
        **batch | {"input_ids": second, "attention_mask": torch.ones_like(second)}, **GENERATE, pruning_method="none"
    )
    assert torch.equal(model.generate(second, **{CACHE_NAME: cache}, **GENERATE, pruning_method="none"), whole)


@pytest.mark.parametrize("method", ["litelvlm", "fastv"])
def test_the_cache_tells_whether_it_is_pruned_and_not_the_method_of_the_call(make_model, make_batch, method):
    """A first turn by a method that only its call names, and a second one by another."""
    model, batch = make_model(pruning_method="none"), make_batch(batch_size=1)
    cache, second = turns(model, batch, pruning_method=method, num_retained_tokens=6)
    with pytest.raises(ValueError, match="pass the whole conversation"):
        model.generate(second, **{CACHE_NAME: cache}, **GENERATE)
    model = make_model(pruning_method=method)
    cache, second = turns(model, batch, pruning_method="none")
    whole = model.generate(
        **batch | {"input_ids": second, "attention_mask": torch.ones_like(second)}, **GENERATE, pruning_method="none"
    )
    assert torch.equal(model.generate(second, **{CACHE_NAME: cache}, **GENERATE), whole)


def padded(batch):
    """A batch whose first sample is shorter, with its padding on the left."""
    ids = torch.nn.functional.pad(batch["input_ids"], (3, 0), value=5)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return batch | {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("later_method", [None, "none", "pyramiddrop"])
@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
@pytest.mark.parametrize("method", ["litelvlm", "uniform", "fastv"])
def test_forward_goes_on_from_a_pruned_cache_as_in_the_whole_conversation(
    make_model, make_batch, method, position_mode, later_method, is_padded
):
    model, batch = make_model(pruning_method=method, position_mode=position_mode), make_batch()
    batch = padded(batch) if is_padded else batch
    batch.pop("sam_pixel_values")
    new, cache, length = torch.full((3, 4), 7), DynamicCache(), batch["input_ids"].shape[1]
    longer = {
        "input_ids": torch.cat([batch["input_ids"], new], dim=1),
        "attention_mask": torch.cat([batch["attention_mask"], torch.ones_like(new)], dim=1),
    }
    # A method inside the language model chooses by the prompt, and not by what comes behind it
    options = {"prompt_length": length, "use_cache": False} if method == "fastv" else {}
    later = {} if later_method is None else {"pruning_method": later_method}
    with torch.no_grad():
        expected = model(**batch | longer, **options).logits[:, -4:]
        first = model(**batch, past_key_values=cache)
        got = [model(input_ids=ids, past_key_values=cache, **later).logits for ids in new.split((1, 3), dim=1)]
    assert cache is first[CACHE_NAME]
    torch.testing.assert_close(torch.cat(got, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_forward_refuses_what_does_not_fit_a_pruned_cache(make_model, make_batch):
    model, batch = make_model(), padded(make_batch())
    new, cache = torch.full((3, 4), 7), DynamicCache()
    with torch.no_grad():
        first = model(**batch, past_key_values=cache)
        expected = model(input_ids=new, past_key_values=copy.deepcopy(cache)).logits
        mask = torch.cat([first.attention_mask, torch.ones_like(new)], dim=1)
        got = model(input_ids=new, attention_mask=mask, past_key_values=copy.deepcopy(cache)).logits
        assert torch.equal(got, expected)
        of_all_tokens = torch.cat([batch["attention_mask"], torch.ones_like(new)], dim=1)
        with pytest.raises(ValueError, match=r"shape \(3, 37\), but \(3, 27\) is wanted"):
            model(input_ids=new, attention_mask=of_all_tokens, past_key_values=cache)
        with pytest.raises(ValueError, match=r"shape \(3, 27\), but \(1, 27\) is wanted"):
            model(input_ids=new[:1], past_key_values=cache)
        for later in ("litelvlm", "none", "fastv"):
            with pytest.raises(ValueError, match="without a cache"):
                model(**batch, past_key_values=cache, pruning_method=later)


@pytest.mark.parametrize("method", ["litelvlm", "none", "fastv"])
def test_embeddings_give_what_their_tokens_give(make_model, make_batch, method):
    model, batch = make_model(pruning_method=method), make_batch()
    batch["input_ids"][:, 25] = SEG_ID
    with torch.no_grad():
        expected, output = model(**batch), model(**as_embeddings(model, batch))
    assert torch.equal(output.logits, expected.logits)
    assert all(torch.equal(*pair) for pair in zip(output.pred_masks, expected.pred_masks, strict=True))
    assert len(output.pred_masks[0]) == 1
    assert torch.equal(
        model.generate(**as_embeddings(model, batch), **GENERATE), model.generate(**batch, **GENERATE)[:, 30:]
    )


def test_embeddings_of_text_alone_are_continued(make_model, make_batch):
    model, ids = make_model(), make_batch()["input_ids"][:, 20:]
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, **GENERATE), model.generate(ids, **GENERATE)[:, 10:])


@pytest.mark.parametrize(("num_retained_tokens", "is_too_long"), [(16, True), (6, False)])
def test_a_prompt_beyond_the_models_positions_is_said(
    make_model, make_batch, config_values, caplog, num_retained_tokens, is_too_long
):
    config_values["backbone_config"]["text_config"]["max_position_embeddings"] = 25
    model, batch = make_model(num_retained_tokens=num_retained_tokens), make_batch()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        logger.removeHandler(caplog.handler)
    assert ("reads 30 tokens, but it was made for 25 positions" in caplog.text) == is_too_long


def test_visual_tokens_are_returned_as_the_language_model_got_them(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        output = model(**batch)
        every = torch.stack(list(model.get_image_features(batch["pixel_values"]).pooler_output))
    got = torch.stack(output.image_outputs.pooler_output)
    torch.testing.assert_close(got, every.take_along_dim(output.retained_indices[..., None], dim=1))
