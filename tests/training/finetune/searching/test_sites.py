"""Which modules the bits of a mask switch."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from training.finetune.searching.sites import find_sites
from training.methods import METHODS, find_scope

BLOCK = "down_blocks.0.attentions.0.transformer_blocks"


@pytest.fixture(scope="module")
def unet():
    """As Stable Diffusion's, with few channels."""
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8, 8, 8), norm_num_groups=4, cross_attention_dim=8, attention_head_dim=2
    )


def trained(network, method, scope, **options):
    tuner = METHODS[method].model_validate(options).attach(network, scope, torch.Generator())
    names = {n for n, p in network.named_parameters() if p.requires_grad}
    tuner.unload()
    return names


@pytest.mark.parametrize(("preset", "bits"), [("sd-13", 13), ("sd-16", 16)])
def test_the_papers_masks_have_its_bits_in_its_order(unet, preset, bits):
    found = list(find_sites(unet, preset, method="sara").bits)
    assert len(found) == bits
    assert found[0] == BLOCK
    assert found[6] == "mid_block.attentions.0.transformer_blocks"
    assert found[7] == "up_blocks.1.attentions.0.transformer_blocks"
    assert found[-1] == f"up_blocks.3.attentions.{2 if bits == 16 else 1}.transformer_blocks"


def test_the_papers_empty_mask_of_sv_diff_trains_all_outside_the_blocks(unet):
    sites = find_sites(unet, "sd-13", method="svdiff")
    off = find_scope(unet, sites.scope([False] * 13))
    held = {n for n, _ in unet.named_parameters() if off.holds(n)}
    outside = {n for n, _ in unet.named_parameters() if not any(n.startswith(b + ".") for b in sites.bits)}
    assert held == outside
    # the third attention of an up block has no bit, so it is always trained
    assert any(n.startswith("up_blocks.1.attentions.2.transformer_blocks") for n in held)
    one = find_scope(unet, sites.scope([True] + [False] * 12))
    more = {n for n, _ in unet.named_parameters() if one.holds(n)} - held
    assert more and all(n.startswith(BLOCK) for n in more)


def test_the_papers_empty_mask_of_difffit_trains_biases_and_norms(unet):
    sites = find_sites(unet, "sd-13", method="difffit")
    assert sites.option == "gain_scope"
    none = METHODS["difffit"].model_validate({"gain_scope": ()})
    some = METHODS["difffit"].model_validate({"gain_scope": sites.scope([True] + [False] * 12)})
    whole = METHODS["difffit"].model_validate({})
    counts = []
    for method in (none, some, whole):
        tuner = method.attach(unet, find_scope(unet), torch.Generator())
        counts.append((len(tuner.gains), len(tuner.trained)))
        tuner.unload()
    # two attentions and a feed-forward layer of the block
    assert [gains for gains, _ in counts] == [0, 3, 3 * 16]
    assert len({tensors for _, tensors in counts}) == 1 and counts[0][1] > 0


def test_the_papers_attention_tuning_switches_attention_and_trains_the_rest_of_the_attentions(unet):
    sites = find_sites(unet, "sd-16", method="full")
    off = trained(unet, "full", find_scope(unet, sites.scope([False] * 16)))
    on = trained(unet, "full", find_scope(unet, sites.scope([True] * 16)))
    assert off and all("attentions" in n and ".attn" not in n for n in off)
    assert on - off == {n for n, _ in unet.named_parameters() if ".attn" in n}
    assert {n for n, _ in unet.named_parameters() if ".attentions." in n} == on


@pytest.mark.parametrize(("layout", "bits"), [("blocks", 3), ("layers", 9), ("matrices", 33), ("kinds", 7)])
def test_sites_of_the_animator(layout, bits):
    from models.presets import tiny_pipeline

    network = tiny_pipeline().transformer
    sites = find_sites(network, layout, method="full")
    # three blocks; its cross-attention also has keys and values of the picture; one convolution only
    assert len(sites.bits) == bits
    everything = find_scope(network, sites.scope([True] * len(sites.bits)))
    held = {n for n, _ in network.named_parameters() if everything.holds(n)}
    assert any(".attn1." in n for n in held) and any(".ffn." in n for n in held)
    # no number belongs to two bits
    parts = [[n for n, _ in network.named_parameters() if find_scope(network, p).holds(n)] for p in sites.bits.values()]
    assert len(held) == sum(map(len, parts))


def test_sites_by_words_and_what_is_always_trained(unet):
    sites = find_sites(unet, ["down_blocks.*", "mid_block"], ["norms"], method="full")
    assert list(sites.bits) == ["down_blocks.*", "mid_block"]
    assert set(sites.always) <= set(sites.scope([False, False])) and sites.always


def test_what_is_no_site_is_told(unet):
    with pytest.raises(ValueError, match=r"sites 'layer': no such layout; known are blocks, layers"):
        find_sites(unet, "layer", method="full")
    with pytest.raises(ValueError, match=r"scope 'nowhere' finds nothing"):
        find_sites(unet, ["nowhere"], method="full")
    with pytest.raises(ValueError, match=r"has no down_blocks"):
        find_sites(nn.Linear(2, 2), "sd-13", method="full")
    with pytest.raises(ValueError, match="this network has none"):
        find_sites(nn.Linear(2, 2), "layers", method="full")
