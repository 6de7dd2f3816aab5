"""What the names on the pages stand for while their code is run."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

import litelvlm

from ..checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def named(tmp_path_factory):
    """Folders by the Hub ids that the pages name; to be read only."""
    folder = tmp_path_factory.mktemp("named")
    model, processor = litelvlm.load_tiny()
    for saved in (model, processor):
        saved.save_pretrained(folder / "org/litelvlm-lisa-7b")
    lisa, clip = write_checkpoint("lisa", tmp_path_factory.mktemp("lisa"))
    llava, guide = folder / "llava-hf/llava-1.5-7b-hf", folder / "openai/clip-vit-large-patch14-336"
    write_llava(processor, llava, guide)
    return {
        "org/litelvlm-lisa-7b": folder / "org/litelvlm-lisa-7b",
        "xinlai/LISA-7B-v1": lisa,
        "openai/clip-tiny": clip,  # as the configuration of that LISA calls it
        "llava-hf/llava-1.5-7b-hf": llava,
        "openai/clip-vit-large-patch14-336": guide,
    }


def write_llava(processor, llava, guide):
    """A LLaVA of LLaVA-1.5's visual tokens, two layers deep and of random weights, and its CLIP."""
    tokenizer, words = processor.tokenizer, processor.guide_tokenizer
    vision = {"hidden_size": 1024, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}
    vision |= {"num_hidden_layers": 2, "intermediate_size": 64, "projection_dim": 32}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    language = {"model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model"} | vision,
        text_config=text | special | language | {"num_key_value_heads": 2, "pad_token_id": tokenizer.pad_token_id},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=576,
    )
    LlavaForConditionalGeneration(config).save_pretrained(llava)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=processor.chat_template,
        num_additional_image_tokens=1,
    ).save_pretrained(llava)
    special = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    special |= {"pad_token_id": words.pad_token_id, "vocab_size": len(words), "projection_dim": 32}
    CLIPModel(CLIPConfig(text_config=text | special, vision_config=vision, projection_dim=32)).save_pretrained(guide)
    words.save_pretrained(guide)


@pytest.fixture
def workspace(named, tmp_path, monkeypatch):
    """An empty folder to work in, but for what the pages take for given: those names, a photo and a folder of two."""
    for name, folder in named.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(folder)
    with Image.open(litelvlm.EXAMPLE_IMAGE) as image:
        image.convert("RGB").save(tmp_path / "street.jpg")
    (tmp_path / "photos").mkdir()
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(tmp_path / "street.jpg", tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return Path()
