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
"""Each method against its formula in NumPy, one sample at a time, and what all of them must guarantee."""

import numpy as np
import pytest
import torch

import litelvlm
from litelvlm.baselines.uniform import grid_of
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.pruning_litelvlm import PruningPlan, PruningSignals, get_pruning_method, list_pruning_methods

BEFORE = list_pruning_methods(before=True)
ON_CROPS = [name for name in BEFORE if name != "evtp" and not get_pruning_method(name).vision_layers]
SIDE = 8
NUM_PATCHES = SIDE**2


@pytest.fixture
def make_wide_model(make_model, config_values):
    """As `make_model`, with 64 patches and a vision tower of 4 layers."""
    backbone = config_values["backbone_config"]
    vision = backbone["vision_config"] | {"image_size": 8 * SIDE, "num_hidden_layers": 4}
    wider = {"vision_config": vision, "image_seq_length": NUM_PATCHES}
    return lambda **overrides: make_model(backbone_config=backbone | wider, **overrides).model


def inputs(batch_size=3, num_texts=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(3, 90, (batch_size, num_texts, 7), generator=generator)
    texts[..., -1] = 98
    mask = torch.ones_like(texts)
    mask[1:, 1:] = 0  # the first sample has all its texts, the others one
    return torch.randn(batch_size, 3, 8 * SIDE, 8 * SIDE, generator=generator), texts, mask


@torch.no_grad()
def select(model, name, budget, images, texts, mask):
    state = model.encode_image(images, pruning_method=name)
    return model.select_tokens(state, texts, mask, PruningPlan.resolve(model.config, budget, name))[0]


class Sample:
    """The signals of one sample as NumPy arrays in float64, without texts that are absent."""

    @torch.no_grad()
    def __init__(self, model, name, images, texts, mask, i):
        state = model.encode_image(images[i : i + 1], pruning_method=name)
        present = mask[i].bool().any(dim=-1)
        self.patches = state.patch_embeds[0].double().numpy()
        self.texts = model.guide(texts[i : i + 1], mask[i : i + 1])[0, present].double().numpy()
        self.contribution = state.contribution[0].double().numpy()
        self.features = state.image_features[0].double().numpy()
        self.class_features = state.class_features[0].double().numpy()
        self.projected = model.backbone.multi_modal_projector(state.image_features)[0].double().numpy()
        self.guide, self.tower = model.guide, model.backbone.vision_tower
        self.layers, self.layer_inputs = self.tower.encoder.layers, state.layer_inputs
        tower_output = self.tower(images[i : i + 1], output_hidden_states=True)
        self.hidden_states = [states[0].double().numpy() for states in tower_output.hidden_states]

    @torch.no_grad()
    def attention(self, layer, place, num_heads):
        """Softmax attention [heads, 1 + N, 1 + N] and keys [heads, 1 + N, d] of a layer of the vision tower."""
        module = self.layers[layer]
        states = module.layer_norm1(self.layer_inputs[0, place])
        q, k = (f(states).double().numpy() for f in (module.self_attn.q_proj, module.self_attn.k_proj))
        q, k = (np.stack(np.split(x, num_heads, axis=-1)) for x in (q, k))
        logits = q @ k.transpose(0, 2, 1) / np.sqrt(k.shape[-1])
        return softmax(logits), k


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def units(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def cosines(a, b):
    return units(a) @ units(b).T


def linear(module, x):
    bias = 0 if module.bias is None else module.bias.detach().double().numpy()
    return x @ module.weight.detach().double().numpy().T + bias


def norm(module, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + module.eps)
    return x * module.weight.detach().double().numpy() + module.bias.detach().double().numpy()


def top(scores, number):
    """Highest first; equal scores by the lowest index."""
    return np.argsort(-np.asarray(scores), kind="stable")[:number].tolist()


def reference_trim(s, budget):
    similarity = np.mean([[patch @ text for patch in s.patches] for text in s.texts], axis=0)
    kept = sorted(top(-similarity, budget - 1))
    dropped = [i for i in range(NUM_PATCHES) if i not in kept]
    return [*kept, -1], np.array([*(s.features[i] for i in kept), s.features[dropped].mean(axis=0)])


def reference_prumerge(s, budget, adaptive=False):
    attention, key = s.attention(-1, 0, 1)
    attention, key = attention[0, 0, 1:], key[0, 1:]
    number = budget - 1
    if adaptive:
        first, third = np.quantile(attention, [0.25, 0.75])
        number = min(number, int((attention > third + 1.5 * (third - first)).sum()))
    kept = top(attention, number)
    dropped = [i for i in range(NUM_PATCHES) if i not in kept]
    tokens = []
    for i in kept:
        near = [dropped[j] for j in top(cosines(key[i : i + 1], key[dropped])[0], 32)] if dropped else []
        tokens.append(s.features[i] + sum(attention[j] * s.features[j] for j in near))
    tokens.append(sum(attention[j] * s.features[j] for j in dropped))
    return [*kept, -1], np.array(tokens)


def reference_visionzip(s, budget):
    attention, key = s.attention(-2, 0, 2)
    attention, key = attention[:, 0, 1:].sum(axis=0), key[:, 1:].mean(axis=0)
    num_contextual = int(np.floor(budget * 5 / 32 + 0.5))
    dominant = sorted(top(attention, budget - num_contextual - 1))
    rest = [i for i in range(NUM_PATCHES) if i not in dominant]
    targets = rest[:: len(rest) // num_contextual][:num_contextual] if num_contextual else []
    joined = {target: [] for target in targets}
    for i in rest:
        if targets and i not in targets:
            joined[targets[int(np.argmax(cosines(key[i : i + 1], key[targets])[0]))]].append(i)
    merged = [s.features[t] + (s.features[j].mean(axis=0) if j else 0) for t, j in joined.items()]
    return [-1, *dominant, *targets], np.array([s.class_features, *(s.features[i] for i in dominant), *merged])


def reference_vispruner(s, budget):
    order = top(s.attention(-2, 0, 2)[0][:, 0, 1:].mean(axis=0), NUM_PATCHES)
    important, rest = order[: budget // 2], order[budget // 2 :]
    while len(rest) > budget - budget // 2:
        even, odd = rest[::2], rest[1::2]
        closeness = cosines(s.features[even], s.features[odd]).max(axis=1)
        number = min(8, len(even), len(rest) - (budget - budget // 2))
        dropped = {even[j] for j in top(closeness, number)}
        rest = [i for i in rest if i not in dropped]
    return sorted(important + rest), None


def reference_cdpruner(s, budget):
    relevance = -cosines(s.texts, s.patches).mean(axis=0)
    relevance = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    kernel = relevance[:, None] * cosines(s.projected, s.projected) * relevance
    chosen = []
    for _ in range(budget):
        # By the definition: the determinant of each larger subset
        gains = [
            -np.inf if i in chosen else np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])])
            for i in range(NUM_PATCHES)
        ]
        chosen.append(int(np.argmax(gains)))
    return sorted(chosen), None


def reference_divprune(s, budget):
    distance = 1 - cosines(s.projected, s.projected)
    alone = [min(distance[i, j] for j in range(NUM_PATCHES) if j != i) for i in range(NUM_PATCHES)]
    chosen = [int(np.argmax(alone))]
    while len(chosen) < budget:
        gaps = [-1 if i in chosen else min(distance[i, j] for j in chosen) for i in range(NUM_PATCHES)]
        chosen.append(int(np.argmax(gaps)))
    return sorted(chosen), None


def reference_evtp(s, budget):
    grid = [(y / (SIDE - 1), x / (SIDE - 1)) for y in range(SIDE) for x in range(SIDE)]
    points = np.array([[*(f / np.linalg.norm(f)), *at] for f, at in zip(s.features, grid, strict=True)])
    chosen = [int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=-1)))]
    while len(chosen) < budget:
        gaps = [min(np.linalg.norm(points[i] - points[j]) for j in chosen) for i in range(NUM_PATCHES)]
        chosen.append(int(np.argmax(gaps)))
    return sorted(chosen), None


def reference_hiprune(s, budget):
    middle = s.attention(9 % 4, 0, 2)[0].mean(axis=(0, 1))[1:]
    late = s.attention(-2, 1, 2)[0].mean(axis=(0, 1))[1:]
    kept = set()
    for anchor in top(middle, round(budget * 0.1 / 5)):
        row, column = divmod(anchor, SIDE)
        for y, x in ((row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= y < SIDE and 0 <= x < SIDE:
                kept.add(y * SIDE + x)
    rest = [i for i in top(late, NUM_PATCHES) if i not in kept]
    return sorted([*kept, *rest[: budget - len(kept)]]), None


@torch.no_grad()
def reference_surgery(s, budget, number=2):
    path = s.hidden_states[-1 - number]
    for layer, entering in zip(s.layers[-number:], s.hidden_states[-1 - number : -1], strict=True):
        values = np.split(linear(layer.self_attn.v_proj, norm(layer.layer_norm1, entering)), 2, axis=-1)
        mixed = [softmax(v @ v.T / np.sqrt(v.shape[-1])) @ v for v in values]
        path = path + linear(layer.self_attn.out_proj, np.concatenate(mixed, axis=-1))
    class_token, patches = (
        units(linear(s.guide.visual_projection, norm(s.tower.post_layernorm, states)))
        for states in (s.hidden_states[-1][0], path[1:])
    )
    texts = units(s.texts)
    if len(texts) == 1:
        empty = s.guide.text_model(input_ids=torch.tensor([[97, 98]])).text_embeds[0].double().numpy()
        return sorted(top(patches @ (texts[0] - units(empty)), budget)), None
    weights = softmax(2 * texts @ class_token)
    # Channel by channel, as published: what all texts have in common is a vector for each patch
    features = patches[:, None] * texts * (weights / weights.mean())[:, None]  # [N, T, P]
    features = features - features.mean(axis=1, keepdims=True)
    return sorted(top(features.sum(axis=-1).max(axis=1), budget)), None


def reference_random(s, budget):
    similarity = s.texts @ s.patches.T

    def mix(value):
        value = int(value) % 2**32
        value = ((value ^ (value >> 16)) * 0x7FEB352D) % 2**32
        value = ((value ^ (value >> 15)) * 0x846CA68B) % 2**32
        return value ^ (value >> 16)

    seed = mix(np.argmax(s.contribution))
    for sign in (1, -1):
        seed = mix(seed + sum(mix(sign + 2 + 4 * int(np.argmax(sign * row))) for row in similarity))
    return sorted(sorted(range(NUM_PATCHES), key=lambda i: mix(mix(i) ^ seed))[:budget]), None


REFERENCES = {
    "cdpruner": reference_cdpruner,
    "divprune": reference_divprune,
    "evtp": reference_evtp,
    "hiprune": reference_hiprune,
    "prumerge": reference_prumerge,
    "prumerge-adaptive": lambda s, budget: reference_prumerge(s, budget, adaptive=True),
    "random": reference_random,
    "surgery": reference_surgery,
    "trim": reference_trim,
    "uniform": lambda s, budget: (grid_of(SIDE, budget), None),
    "visionzip": reference_visionzip,
    "vispruner": reference_vispruner,
}


def test_every_method_before_the_language_model_has_a_reference():
    assert {*REFERENCES, "litelvlm"} == set(BEFORE)  # that of litelvlm stands with its own tests


@pytest.mark.parametrize("budget", [1, 2, 21, 40])
@pytest.mark.parametrize("name", list(REFERENCES))
def test_batch_with_absent_texts_equals_the_formula_sample_by_sample(make_wide_model, name, budget):
    model, batch = make_wide_model(), inputs()
    retained = select(model, name, budget, *batch)
    for i in range(3):
        indices, features = REFERENCES[name](Sample(model, name, *batch, i), budget)
        is_valid = torch.ones(budget, dtype=torch.bool) if retained.is_valid is None else retained.is_valid[i]
        assert retained.indices[i][is_valid].tolist() == indices
        if features is not None:
            got = retained.features[i][is_valid].numpy()
            np.testing.assert_allclose(got, features, atol=1e-4 * np.abs(features).max())


@pytest.mark.parametrize("name", BEFORE)
def test_budget_is_exact_and_no_patch_is_taken_twice(make_wide_model, name):
    model, batch = make_wide_model(), inputs()
    for budget in (1, 9, NUM_PATCHES - 1, NUM_PATCHES):
        retained = select(model, name, budget, *batch)
        assert retained.indices.shape == (3, budget) and retained.indices.dtype == torch.int64
        for row in retained.indices.tolist():
            patches = [i for i in row if i >= 0]
            assert len(set(patches)) == len(patches) and all(i < NUM_PATCHES for i in patches)
            if retained.features is None:
                assert len(patches) == budget
        if retained.features is not None:
            assert retained.features.shape == (3, budget, 32) and retained.features.isfinite().all()


@pytest.mark.parametrize("budget", [13, 40])
@pytest.mark.parametrize("name", BEFORE)
def test_a_batch_equals_single_calls_and_a_second_call(make_wide_model, name, budget):
    model, batch = make_wide_model(), inputs(batch_size=6)
    together = select(model, name, budget, *batch)
    assert torch.equal(select(model, name, budget, *batch).indices, together.indices)
    for i in range(6):
        alone = select(model, name, budget, *(value[i : i + 1] for value in batch))
        assert torch.equal(alone.indices[0], together.indices[i])
        if together.features is not None:
            torch.testing.assert_close(alone.features[0], together.features[i], atol=1e-4, rtol=1e-4)


def test_cdpruner_does_not_turn_on_the_last_digit_of_its_features():
    """Which a batch changes: nearly as many patches are asked for as the features have dimensions."""
    generator = torch.Generator().manual_seed(0)
    images, patches, width = 600, 64, 32
    features = torch.randn(images, 1, width, generator=generator)
    features = features + 0.2 * torch.randn(images, patches, width, generator=generator)
    cosine = torch.rand(images, patches, generator=generator)
    kept = []
    for factor in (torch.ones(()), 1 + 1e-7 * torch.randn(features.shape, generator=generator)):
        signals = PruningSignals(
            similarity=None,
            contribution=torch.ones(images, patches),
            text_mask=torch.ones(images, 1, dtype=torch.bool),
            patch_embeds=torch.stack([cosine, (1 - cosine**2).sqrt()], dim=-1),
            text_embeds=torch.tensor([1.0, 0.0]).expand(images, 1, 2),
            image_features=features * factor,
            projector=torch.nn.Identity(),
        )
        kept.append(get_pruning_method("cdpruner").select(signals, 30, LiteLVLMConfig()).indices)
    assert torch.equal(*kept)


@pytest.mark.parametrize("name", ON_CROPS)
def test_only_patches_that_may_be_retained_are(make_wide_model, name):
    """As in images of different sizes, cut into crops: padded samples equal the same without padding."""
    model, (images, texts, mask) = make_wide_model(), inputs()
    state = model.encode_image(images, pruning_method=name)
    lengths = (64, 50, 33)
    state.is_patch = torch.arange(NUM_PATCHES) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        for budget in (1, 12, 33):
            plan = PruningPlan.resolve(model.config, budget, name)
            retained = model.select_tokens(state, texts, mask, plan)[0]
            for i, length in enumerate(lengths):
                row = retained.indices[i].tolist()
                assert len(row) == budget and max(row) < length
                cut = ("image_features", "patch_embeds", "contribution", "cosine_contribution", "is_patch")
                own = type(state)(**{key: state[key][i : i + 1, :length] for key in cut})
                alone = model.select_tokens(own, texts[i : i + 1], mask[i : i + 1], plan)[0]
                assert alone.indices[0].tolist() == row
                if alone.features is not None:
                    torch.testing.assert_close(alone.features[0], retained.features[i], atol=1e-5, rtol=1e-5)


def test_coordinates_of_patches_in_crops_are_refused(make_wide_model):
    model, (images, texts, mask) = make_wide_model(), inputs()
    state = model.encode_image(images, pruning_method="evtp")
    state.is_patch = torch.ones(3, NUM_PATCHES, dtype=torch.bool)
    with pytest.raises(ValueError, match="images in crops or of any size have none"):
        model.select_tokens(state, texts, mask, PruningPlan.resolve(model.config, 6, "evtp"))


@pytest.mark.parametrize(("depth", "number"), [(3, 2), (4, 2), (8, 4), (12, 6), (15, 6)])
def test_surgery_is_done_in_six_layers_or_half_of_a_small_tower(make_model, config_values, depth, number):
    backbone, batch = config_values["backbone_config"], inputs()
    vision = backbone["vision_config"] | {"image_size": 8 * SIDE, "num_hidden_layers": depth}
    wider = {"vision_config": vision, "image_seq_length": NUM_PATCHES}
    model = make_model(backbone_config=backbone | wider).model
    retained = select(model, "surgery", 21, *batch)
    for i in range(3):
        expected, _ = reference_surgery(Sample(model, "surgery", *batch, i), 21, number)
        assert retained.indices[i].tolist() == expected


def test_surgery_knows_the_empty_text_of_the_first_clips(make_wide_model, config_values):
    """Whose configurations have ids that their tokenizer does not: Transformers then reads at the highest id."""
    legacy = config_values["guide_config"] | {"bos_token_id": 0, "eos_token_id": 2}
    expected = select(make_wide_model(), "surgery", 9, *inputs()).indices
    assert torch.equal(select(make_wide_model(guide_config=legacy), "surgery", 9, *inputs()).indices, expected)


def test_surgery_takes_the_highest_whatever_the_order(make_wide_model):
    chosen = [
        select(make_wide_model(similarity_order=order), "surgery", 9, *inputs()).indices
        for order in ("lowest", "highest")
    ]
    assert torch.equal(*chosen)


def constant_signals(model, name):
    """Signals in which no patch differs from another."""
    method = get_pruning_method(name)
    return PruningSignals(
        similarity=torch.ones(2, 1, NUM_PATCHES),
        contribution=torch.ones(2, NUM_PATCHES),
        cosine_contribution=torch.ones(2, NUM_PATCHES),
        text_mask=torch.ones(2, 1, dtype=torch.bool),
        patch_embeds=torch.ones(2, NUM_PATCHES, 16),
        text_embeds=torch.ones(2, 1, 16),
        image_features=torch.ones(2, NUM_PATCHES, 32),
        class_features=torch.ones(2, 32),
        layer_inputs=torch.ones(2, len(method.vision_layers), 1 + NUM_PATCHES, 32),
        vision_tower=model.backbone.vision_tower,
        projector=model.backbone.multi_modal_projector,
        guide=model.guide,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cdpruner", [0, 1, 2, 3, 4, 5]),
        ("divprune", [0, 1, 2, 3, 4, 5]),
        ("hiprune", [0, 1, 2, 3, 4, 5]),
        # Three for their similarity, and the next three for context, which go first
        ("litelvlm", [3, 4, 5, 0, 1, 2]),
        ("prumerge", [0, 1, 2, 3, 4, -1]),
        ("surgery", [0, 1, 2, 3, 4, 5]),
        ("trim", [0, 1, 2, 3, 4, -1]),
        ("visionzip", [-1, 0, 1, 2, 3, 4]),
        # Of the even places of the rest, eight in every round, from the first on
        ("vispruner", [0, 1, 2, 50, 58, 62]),
    ],
)
def test_ties_go_to_the_lowest_index(make_wide_model, name, expected):
    with torch.no_grad():
        retained = get_pruning_method(name).select(constant_signals(make_wide_model(), name), 6, LiteLVLMConfig())
    assert retained.indices.tolist() == [expected] * 2


@pytest.mark.parametrize("name", BEFORE)
def test_half_precision_runs_end_to_end(make_wide_model, name):
    model, (images, texts, mask) = make_wide_model().to(torch.bfloat16), inputs()
    retained = select(model, name, 9, images.bfloat16(), texts, mask)
    assert retained.indices.shape == (3, 9)
    if retained.features is not None:
        assert retained.features.dtype == torch.bfloat16 and retained.features.isfinite().all()


@pytest.mark.parametrize("name", BEFORE)
def test_selection_compiles_into_one_graph_without_waiting_for_the_device(make_wide_model, name):
    """A graph break is what `.item()`, `nonzero` or a loop over the data would cause."""
    model, batch = make_wide_model(), inputs()
    expected = select(model, name, 7, *batch)

    def run(images, texts, mask):
        state = model.encode_image(images, pruning_method=name)
        return model.select_tokens(state, texts, mask, PruningPlan.resolve(model.config, 7, name))[0].indices

    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(run, fullgraph=True, backend="eager")
        assert torch.equal(compiled(*batch), expected.indices)


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_answers_are_generated_with_every_method(make_model, make_batch, name, position_mode):
    model, batch = make_model(position_mode=position_mode, pruning_method=name), make_batch()
    output = model.segment(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert output.sequences.shape == (3, 34) and output.retained_indices.shape == (3, 6)
    single = {key: value[1:2] for key, value in batch.items()}
    alone = model.segment(**single, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert torch.equal(alone.sequences[0], output.sequences[1])


@pytest.mark.parametrize("name", ["trim", "cdpruner"])
def test_the_sign_of_the_similarity_is_a_switch(make_wide_model, name):
    batch = inputs()
    lowest = select(make_wide_model(), name, 9, *batch).indices
    highest = select(make_wide_model(similarity_order="highest"), name, 9, *batch).indices
    assert not torch.equal(lowest, highest)


def test_uniform_grids_cover_the_image():
    assert grid_of(4, 16) == list(range(16)) and grid_of(4, 1) == [2 * 4 + 2]
    assert grid_of(4, 4) == [5, 7, 13, 15]
    for number in range(1, 65):
        grid = grid_of(8, number)
        assert len(set(grid)) == number and grid == sorted(grid) and grid[-1] < 64


def test_random_draws_differ_by_image_and_by_text_and_keep_global_state(make_wide_model):
    model, (images, texts, mask) = make_wide_model(), inputs()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    drawn = select(model, "random", 20, images, texts, mask).indices
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(row) for row in drawn.tolist()}) == 3
    others = select(model, "random", 20, images, texts.flip(0), mask).indices
    assert not torch.equal(others[0], drawn[0])


def test_random_draws_take_every_patch_equally_often():
    generator = torch.Generator().manual_seed(0)
    size = (2000, 1, NUM_PATCHES)
    signals = PruningSignals(
        similarity=torch.randn(size, generator=generator),
        contribution=torch.randn(size[0], NUM_PATCHES, generator=generator),
        text_mask=torch.ones(size[:2], dtype=torch.bool),
    )
    drawn = get_pruning_method("random").select(signals, 16, LiteLVLMConfig()).indices
    counts = torch.bincount(drawn.flatten(), minlength=NUM_PATCHES)
    # Binomial with mean 500 and deviation 19
    assert counts.min() > 420 and counts.max() < 580


def test_adaptive_prumerge_masks_what_the_image_does_not_need(make_model, make_batch):
    """Its answers equal those of a fixed budget of as many tokens as it has."""
    model, batch = make_model(pruning_method="prumerge-adaptive"), make_batch()
    state, plan = model.encode_image(batch["pixel_values"]), PruningPlan.resolve(model.config, 12)
    adaptive = model.model.select_tokens(state, None, None, plan)[0]
    with torch.no_grad():
        output = model(**batch, num_retained_tokens=12)
        assert output.num_retained_tokens.tolist() == adaptive.is_valid.sum(dim=-1).tolist()
        for i, number in enumerate(adaptive.is_valid.sum(dim=-1).tolist()):
            assert number < 12
            single = {key: value[i : i + 1] for key, value in batch.items()}
            fixed = model(**single, num_retained_tokens=number, pruning_method="prumerge")
            torch.testing.assert_close(output.logits[i, -5:], fixed.logits[0, -5:], atol=1e-4, rtol=1e-4)


def test_methods_say_where_they_come_from():
    for name in list_pruning_methods():
        method = get_pruning_method(name)
        assert method.source and method.function.__doc__
    assert litelvlm.baselines.select_trim is get_pruning_method("trim").function
