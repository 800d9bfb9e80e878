"""What only a CUDA device can show; skipped where there is none."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_recipes_local.data.documents import document_bounds
from llama_recipes_local.finetuning import main
from llama_recipes_local.kernels import attention

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("lengths", [[1, 5, 64, 333, 2, 100], [2048, 2048]])
def test_kernel_equals_attention_of_each_document_alone(lengths: list[int]) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 8, sum(lengths), 64, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 2, sum(lengths), 64, device="cuda").bfloat16() for _ in range(2))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    bounds, longest = document_bounds(positions)
    tensors = [x.requires_grad_() for x in (q, k, v)]
    out, _ = attention.document_attention(
        torch.nn.Module(), *tensors, None, cu_seq_lens_q=bounds.cuda(), max_length_q=longest
    )
    reference = [x.detach().float().requires_grad_() for x in tensors]
    expected, _ = attention.document_attention(
        torch.nn.Module(), *reference, None, cu_seq_lens_q=bounds.cuda(), max_length_q=longest
    )
    weight = torch.randn_like(expected)
    (out.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    # bfloat16 keeps 8 bits: a relative error of about 2**-8 an operation
    pairs = [(out, expected), *((a.grad, b.grad) for a, b in zip(tensors, reference, strict=True))]
    for got, wanted in pairs:
        assert (got.float() - wanted).norm() / wanted.norm() < 1e-2


def test_packed_model_equals_documents_alone_on_cuda():
    attention.register()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=500,
        attn_implementation=attention.NAME,
    )
    model = LlamaForCausalLM(config).cuda().bfloat16().eval()
    documents = [torch.randint(0, 500, (1, n), device="cuda") for n in (7, 130, 33)]
    positions = torch.cat([torch.arange(d.shape[1]) for d in documents])[None].cuda()
    with torch.no_grad():
        packed = model(torch.cat(documents, 1), position_ids=positions).logits.float()
        alone = torch.cat([model(d).logits for d in documents], 1).float()
    assert (packed - alone).norm() / alone.norm() < 1e-2


@pytest.mark.parametrize(
    "flags", [{}, {"pure_bf16": True}, {"dtype": "float32"}, {"gradient_checkpointing": True}]
)
def test_loss_falls_in_each_precision(flags, tiny_model, grammar_data, tmp_path):
    main(
        model_name=str(tiny_model),
        use_peft=True,
        dataset="grammar_dataset",
        data_root=str(grammar_data),
        context_length=128,
        lr=0.01,
        num_epochs=10,
        run_validation=False,
        output_dir=str(tmp_path),
        **flags,
    )
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # autocast left on across steps would keep training on the first weights, and the loss there
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.1


@pytest.mark.ranks
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--fsdp_cpu_offload"],
        ["--fsdp_cpu_offload", "--use_fp16"],
        ["--pure_bf16"],
    ],
)
def test_one_rank_of_fsdp_trains_on_cuda(flags, tiny_model, grammar_data, run_finetuning, tmp_path):
    done = run_finetuning(
        "--enable_fsdp",
        "--use_peft",
        "--gradient_clipping",
        f"--model_name={tiny_model}",
        "--dataset=grammar_dataset",
        f"--data_root={grammar_data}",
        "--context_length=256",
        "--max_train_step=3",
        "--output_dir=out",
        *flags,
        cwd=tmp_path,
        nproc=1,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_adapter_trained_on_cuda_is_saved(tiny_model, grammar_data, tmp_path):
    main(
        model_name=str(tiny_model),
        use_peft=True,
        dataset="grammar_dataset",
        data_root=str(grammar_data),
        context_length=256,
        max_train_step=3,
        output_dir=str(tmp_path / "out"),
    )
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
