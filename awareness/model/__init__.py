"""Torch and transformers: text -> latents -> memory -> answer. Knows nothing of git or the store."""

import logging

# Transformers imports torchao and bitsandbytes where they are installed; they warn of kernels for other processors.
for _name in ("torchao", "torch.utils._pytree", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(_name).setLevel(logging.ERROR)
