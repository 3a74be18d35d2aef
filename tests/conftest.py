"""What tests of several rooms share."""

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

# Before torch is loaded, and for the processes that tests start: sums must not depend on the machine's cores, and two
# workers with two threads each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch


@pytest.fixture(scope="module")
def tiny():
    """A pipeline of random weights, small enough for every test."""
    from models.presets import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tokenizer(place):
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({w: k for k, w in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=77)


def text_config(**more):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=54, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=52, eos_token_id=53, **more,
    )  # fmt: skip


def codec(channels=4):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels,
    )  # fmt: skip


def unet(**more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def sd(tmp_path_factory):
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=codec(), unet=unet(), text_encoder=CLIPTextModel(text_config()), scheduler=DDIMScheduler(),
        tokenizer=tokenizer(place), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(place / "sd")  # fmt: skip
    return place / "sd"


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory):
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=40,
        transformer_layers_per_block=(1, 1),
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=codec(), unet=network, text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config(projection_dim=16)), tokenizer=tokenizer(place / "a"),
        tokenizer_2=tokenizer(place / "b"), scheduler=EulerDiscreteScheduler(), force_zeros_for_empty_prompt=True,
    ).save_pretrained(place / "sdxl")  # fmt: skip
    return place / "sdxl"


@pytest.fixture(scope="session")
def sd3(tmp_path_factory):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=8,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        vae=codec(), transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=CLIPTextModelWithProjection(text_config(projection_dim=16)), tokenizer=tokenizer(place / "a"),
        text_encoder_2=CLIPTextModelWithProjection(text_config(projection_dim=16)), tokenizer_2=tokenizer(place / "b"),
        text_encoder_3=None, tokenizer_3=None,
    ).save_pretrained(place / "sd3")  # fmt: skip
    return place / "sd3"


@pytest.fixture(scope="session")
def wan(tmp_path_factory):
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    text = UMT5Config(vocab_size=54, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    WanPipeline(
        tokenizer=tokenizer(place / "a"), text_encoder=UMT5EncoderModel(text),
        transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
    ).save_pretrained(place / "wan")  # fmt: skip
    return place / "wan"


@pytest.fixture(scope="session")
def ours(tmp_path_factory):
    from models.presets import tiny_pipeline

    place = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(place / "ours")
    return place / "ours"


@pytest.fixture
def pipelines(request):
    return lambda kind: request.getfixturevalue(kind)


@pytest.fixture
def adapt(tmp_path):
    """Makes an adapter file for a pipeline's network, with random changes in the place of trained ones."""

    def make(folder, method="paca", words=(), name="adapter", dtype="fp32", size=0.02, seed=1, **options):
        from models.components import load_component
        from models.loading import component_names
        from training.methods import METHODS, find_scope
        from training.methods.adapter import Adapter, files_hash, save_adapter, weights_hash

        component = component_names(folder)[0]
        network = load_component(folder, component)
        sizes, base = {n: p.numel() for n, p in network.named_parameters()}, weights_hash(network)
        config, scope = METHODS[method](**options), find_scope(network, words)
        tuner = config.attach(network, scope, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for group in tuner.parameters():
                for parameter in group.parameters:
                    parameter += size * torch.randn(parameter.shape, generator=generator)
        tuner.refresh()
        adapter = Adapter(
            method=method, config=config, scope=scope, base=base, files=files_hash(folder / component),
            delta=tuner.delta(), notes={"base": str(folder)},
        )  # fmt: skip
        path = tmp_path / f"{name}.safetensors"
        save_adapter(path, adapter, sizes, dtype=dtype)
        return path

    return make


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of this session, on a socket in a folder of its own."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip extra `postgres`)")
    program = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
    if program is None:
        pytest.skip("there is no PostgreSQL here (initdb)")
    binaries = Path(program).resolve().parent
    # the path of a socket may have 107 letters
    place = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    plain = unprivileged(place)

    def run(name, *words):
        subprocess.run([*plain, binaries / name, "-D", place / "data", *words], check=True, capture_output=True)

    try:
        run("initdb", "--auth=trust", "--username=studio", "--no-sync", "--encoding=UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c unix_socket_directories={place} -c shared_buffers=16MB"
        run("pg_ctl", "start", "--wait", "--log", place / "log", "-o", options)
        yield f"postgresql://studio@/postgres?host={place}"
        run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def unprivileged(place):
    """The words before a command that PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    names = [user.pw_name for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")]
    if not names or shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` or no `setpriv`")
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(place, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
