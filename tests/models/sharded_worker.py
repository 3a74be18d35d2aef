"""One rank of the context-parallel test; started by test_dit.py with (rank, rendezvous file)."""

import sys

import torch
from torch import distributed


def main(rank, rendezvous):
    torch.set_num_threads(1)
    torch.accelerator.device_count = lambda: 1  # diffusers takes an accelerator for granted
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    from diffusers import ContextParallelConfig

    from models.dit import AnimateXTransformer3DModel

    torch.manual_seed(0)
    transformer = AnimateXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=10, freq_dim=16, ffn_dim=32, num_layers=4
    ).eval()
    inputs = dict(
        hidden_states=torch.randn(1, 36, 3, 4, 8),
        timestep=torch.tensor([500.0]),
        encoder_hidden_states=torch.randn(1, 7, 10),
        pose_tokens=torch.randn(1, 24, 24),
        motion_tokens=torch.randn(1, 3, 24),
        return_dict=False,
    )
    tokens = []
    transformer.blocks[3].ffn.register_forward_hook(lambda module, args, output: tokens.append(output.shape[1]))
    with torch.no_grad():
        (whole,) = transformer(**inputs)
        transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
        (sharded,) = transformer(**inputs)
    assert tokens == [24, 12], tokens
    torch.testing.assert_close(sharded, whole, atol=1e-5, rtol=1e-5)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
