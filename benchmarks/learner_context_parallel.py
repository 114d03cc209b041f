"""Whether torch's own context parallelism serves: attention over a sequence that two ranks share, on gloo and a CPU.

    python benchmarks/learner_context_parallel.py

Two processes each hold half of one causal sequence and call SDPA under `context_parallel`. Their halves of the output, put
together, are compared with those of one process; what torch refuses is printed as it says it.
"""

from __future__ import annotations

import logging
import socket

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn.functional import scaled_dot_product_attention

RANKS, HEADS, TOKENS, WIDTH = 2, 2, 64, 32


def on_rank(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("context",))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, TOKENS, WIDTH) for _ in range(3))
    whole = scaled_dot_product_attention(q, k, v, is_causal=True)
    try:
        with context_parallel(mesh, buffers=[q, k, v, whole], buffer_seq_dims=[2] * 4):
            found = scaled_dot_product_attention(q, k, v, is_causal=True)
            told = f"rank {rank}: largest difference to one process {float((found - whole).abs().max()):.2e}"
    except Exception as error:  # whatever torch refuses is the answer
        told = f"rank {rank}: {type(error).__name__}: {str(error).splitlines()[0]}"
    print(told, flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"torch {torch.__version__}")
    torch.multiprocessing.spawn(on_rank, args=(port,), nprocs=RANKS)


if __name__ == "__main__":
    main()
